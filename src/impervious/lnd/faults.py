"""What LND's errors mean, and what cures them.

LND reports nearly everything as UNKNOWN, so its words are what counts: they are those of lnd 0.13 to 0.21 (rpcperms,
macaroons, routing/pathfind.go). What is not known here is a refusal, which no caller takes for more than it says;
`LndNode.send_keysend` asks before it believes one.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.errors import NodeRefused, NodeUnavailable

_GONE: Final = (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED)
"""From the transport, ours or a proxy's; LND itself answers so only when we have hung up."""

_NOT_SERVING: Final = (
    "wallet locked",
    "wallet not created",
    "waiting to start",
    "in the process of starting",
    "unable to determine macaroon permissions",  # before its macaroon store is open
    "unknown permissions required",
    "shutting down",
    "exiting",
    "database not open",
)

_MACAROON: Final = (
    "permission denied",
    "verification failed",
    "macaroon",
    "unmarshal v2",
    "caveat",
    "encoding/hex",
)

_NO_ROUTE: Final = (
    "unable to find a path to destination",
    "insufficient local balance",
    "destination hop doesn't understand",
    "unknown required feature",
    "missing dependent feature",
    "empty payment session",
)

_CURES: Final = (
    (("WRONG_VERSION_NUMBER",), "the port does not speak TLS: it must be LND's gRPC port (rpclisten), usually 10009"),
    (
        ("certificate has expired",),
        "restart LND, which then makes itself a new certificate, and set lightning.lnd_node.tls_cert to that",
    ),
    (
        ("self-signed certificate", "self signed certificate", "local issuer certificate", "signature failure"),
        "the certificate is not one that we trust: set lightning.lnd_node.tls_cert to LND's present tls.cert",
    ),
    (("Connection refused",), "start LND, or correct lightning.lnd_node.ip and port"),
    (
        ("Name or service not known", "nodename nor servname", "No address associated"),
        "there is no such host: correct lightning.lnd_node.ip",
    ),
)
"""Parts of what OpenSSL and systems say about connections -> what to do."""


class LndRefused(NodeRefused):
    """LND answered with an error.

    Attributes:
      status: its gRPC status; mostly UNKNOWN.
      words: LND's own.
    """

    def __init__(self, status: Status, words: str) -> None:
        super().__init__(f"LND: {words}")
        self.status = status
        self.words = words

    @property
    def no_route(self) -> bool:
        """Whether it says that there is no way for a payment."""
        return any(part in self.words for part in _NO_ROUTE)

    @property
    def taken(self) -> bool:
        """Whether it says that there is an invoice with that hash (invoices.ErrDuplicateInvoice)."""
        return "invoice with payment hash already exists" in self.words


class MacaroonRefused(NodeUnavailable):
    """LND does not accept the macaroon, or not for this call.

    Attributes:
      for_this_call: it may be that the macaroon allows others; otherwise it has expired, is revoked or another node's.
    """

    def __init__(self, text: str, *, for_this_call: bool = False) -> None:
        super().__init__(text)
        self.for_this_call = for_this_call


@contextmanager
def translated(host: str) -> Iterator[None]:
    """Turn gRPC errors of the block into ours.

    Args:
      host: that was dialled, for what may be wrong with a certificate.

    Raises:
      NodeUnavailable: LND cannot be asked now.
      MacaroonRefused: it does not let us ask.
      LndRefused: it said no.
    """
    try:
        yield
    except GRPCError as error:
        raise meaning(error, host) from error


def meaning(error: GRPCError, host: str) -> NodeUnavailable | LndRefused:
    """Say what a gRPC error of LND's is to us. See `translated`."""
    words = error.message or error.status.name
    if error.status in _GONE:
        return NodeUnavailable(f"LND is away: {words}{_cure(words, host)}")
    if any(part in words for part in _NOT_SERVING):
        return NodeUnavailable(f"LND: {words}")
    if error.status in (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED) or any(part in words for part in _MACAROON):
        return MacaroonRefused(
            f"LND refuses the macaroon ({words}): put the path of this node's admin.macaroon, or of one baked for this,"
            " into lightning.lnd_node.admin_macaroon",
            for_this_call="permission denied" in words or error.status is Status.PERMISSION_DENIED,
        )
    return LndRefused(error.status, words)


def _cure(words: str, host: str) -> str:
    if "certificate is not valid for" in words:
        option = f"--tlsextraip={host}" if _is_ip(host) else f"--tlsextradomain={host}"
        return (
            f"; LND's certificate does not name {host}: remove LND's tls.cert and tls.key, start it with {option}, so"
            " that it makes new ones, and set lightning.lnd_node.tls_cert to the new tls.cert"
        )
    for parts, cure in _CURES:
        if any(part in words for part in parts):
            return f"; {cure}"
    return ""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
