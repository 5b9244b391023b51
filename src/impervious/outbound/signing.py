"""A message's header and the signature over it: made and stored before the first payment, and again when it is old."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from impervious.model import NodePubkey, RouteHint
from impervious.outbound.tools import Tools
from impervious.store import outbox
from impervious.store.outbox import Stored
from impervious.wire import envelope
from impervious.wire.envelope import Header, SignedHeader

SIGN_AGAIN_MS: Final = 6 * 86_400_000
"""A recipient believes a header for 7 days; only what is owed is tried for so long."""

HINTED_BYTES: Final = 400
"""A part with more has no room for the ways to our node: it would have to be cut, which costs a satoshi."""


@dataclass(slots=True)
class Signer:
    """Signs one message."""

    tools: Tools
    stored: Stored
    voids: tuple[int, ...]
    """Orders that the recipient has still to be told about."""
    local: NodePubkey | None
    """Our own node, as soon as it is known."""
    first_bytes: int
    """Of the payload in the part that carries the header."""
    _signed: SignedHeader | None = field(default=None, repr=False)

    @property
    def signed(self) -> SignedHeader:
        """What was signed last."""
        assert self._signed is not None, "nothing is packed before it is signed"
        return self._signed

    def recall(self) -> bool:
        """Take what is stored. False: it was not signed yet."""
        if not (self.stored.header and self.stored.signature):
            return False
        header = envelope.decode_header(self.stored.header)
        self._signed = SignedHeader(header=header, raw=self.stored.header, signature=self.stored.signature)
        return True

    async def sign(self) -> None:
        """Make and store header and signature.

        Raises:
          NodeUnavailable: the node cannot be asked.
          NodeRefused: it does not sign.
        """
        message = self.stored.message
        info = await self.tools.node.wait_ready()
        self.local = info.pubkey
        hints = await self.tools.own_hints.get() if self.first_bytes <= HINTED_BYTES else ()
        header = self._header(info.pubkey, hints)
        raw = envelope.encode_header(header)
        text = envelope.signed_text(
            raw,
            network=info.network,
            record_type=self.stored.record_type,
            recipient=message.recipient,
            message_id=message.id,
        )
        signature = await self.tools.node.sign(text)
        await self.tools.write(
            message.id, lambda tx: outbox.set_signed(tx, message.id, header=raw, signature=signature)
        )
        self._signed = SignedHeader(header=header, raw=raw, signature=signature)

    async def freshen(self) -> None:
        """Sign again what has become too old for the recipient to believe.

        Raises: as `sign`.
        """
        if self.tools.store.now_ms() - self.signed.header.sent_at_ms >= SIGN_AGAIN_MS:
            await self.sign()

    def _header(self, sender: NodePubkey, hints: tuple[RouteHint, ...]) -> Header:
        message = self.stored.message
        return Header(
            sender=sender,
            sent_at_ms=self.tools.store.now_ms(),
            reply_to=message.reply_to,
            total_bytes=len(message.payload),
            payload_sha256=hashlib.sha256(message.payload).digest(),
            amount=message.amount,
            order=self.stored.order,
            void_orders=self.voids,
            hints=hints,
        )
