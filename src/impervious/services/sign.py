"""Signatures by the node's identity key over any text, and who made one.

Whoever can have any text signed could have our own messages signed too, so texts that begin as those do are refused.
LND's verdict is "a node of my graph signed this"; who it was is recovered here, from a digest computed here.
"""

from dataclasses import dataclass
from typing import Final

from impervious.errors import InvalidArgument, Malformed, Unverified
from impervious.model import NodePubkey, ServiceType
from impervious.service import Service
from impervious.wire import lnd_signature, zbase32
from impervious.wire.envelope import SIGNING_PREFIX

SIGNATURE_CHARACTERS: Final = -(-lnd_signature.SIGNATURE_BYTES * 8 // 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What is known of a signature."""

    result: bool
    """Whether the named key signed; where none was named, LND's verdict: somebody signed who is in its graph."""
    pubkey: NodePubkey | None
    """Who signed. Of another text than the signed one, it is some key that nobody has."""
    in_graph: bool
    """Whether LND's graph knows that node."""


class SignService(Service):
    """Signs, and verifies signatures of others."""

    service_type = ServiceType("sign")

    async def sign(self, text: str | bytes) -> str:
        """Sign a text, as LND's SignMessage does.

        Args:
          text: what to sign; str as UTF-8.

        Returns:
          The signature in zbase32, 104 characters. It is not unique, so it is no id of the text.

        Raises:
          InvalidArgument: there is nothing to sign, or it could pass for a message of ours.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        raw = _raw(text)
        if raw.startswith(SIGNING_PREFIX.encode()):
            raise InvalidArgument(
                f'a text that begins with "{SIGNING_PREFIX}" is not signed: nodes sign their messages to each other so,'
                " and it would pass for one; put something before it"
            )
        self.context.require_node()
        return zbase32.encode(await self.context.node.sign(raw))

    async def verify(self, text: str | bytes, signature: str, *, pubkey: NodePubkey | None = None) -> Verification:
        """Tell who signed a text.

        Args:
          text: what is said to be signed.
          signature: in zbase32.
          pubkey: who is said to have signed it.

        Raises:
          InvalidArgument: there is no text, or what is no signature of any text.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        raw, compact = _raw(text), _compact(signature)
        self.context.require_node()
        verdict = await self.context.node.verify(raw, compact)
        try:
            signer = lnd_signature.recover(raw, compact)
        except Unverified:
            return Verification(result=False, pubkey=None, in_graph=False)
        # LND's word counts for its graph only, and only if it speaks of the same key.
        in_graph = verdict.valid and verdict.pubkey == signer
        return Verification(result=in_graph if pubkey is None else signer == pubkey, pubkey=signer, in_graph=in_graph)


def _raw(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    if not raw:
        raise InvalidArgument("msg is empty: give the text, as msg or text, or bytes as data (in JSON base64)")
    return raw


def _compact(signature: str) -> bytes:
    if not signature:
        raise InvalidArgument("signature is missing: give the zbase32 text that signing returned")
    if len(signature) != SIGNATURE_CHARACTERS:
        raise InvalidArgument(f"signature has {len(signature)} characters; one has {SIGNATURE_CHARACTERS}, in zbase32")
    try:
        return zbase32.decode(signature)
    except Malformed as error:
        raise InvalidArgument(f"signature: {error}") from None
