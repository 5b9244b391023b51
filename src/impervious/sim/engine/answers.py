"""How a simulated LND says no: a gRPC status with LND's own words.

LND reports nearly everything as UNKNOWN, so clients tell its errors apart by their texts; these are those texts.
"""

from enum import IntEnum
from typing import Final

from grpclib.const import Status


class LndError(Exception):
    """What an RPC ends with.

    Attributes:
      status: its gRPC status.
      text: LND's words, the grpc-message.
    """

    def __init__(self, text: str, status: Status = Status.UNKNOWN) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def from_hex(text: str) -> bytes:
    """Bytes from hex, or Go's words why not (encoding/hex).

    Raises:
      LndError: it is no hex.
    """
    for character in text:
        if character not in "0123456789abcdefABCDEF":
            shown = f"U+{ord(character):04X} {character!r}" if character.isprintable() else f"U+{ord(character):04X}"
            raise LndError(f"encoding/hex: invalid byte: {shown}")
    if len(text) % 2:
        raise LndError("encoding/hex: odd length hex string")
    return bytes.fromhex(text)


class WalletState(IntEnum):
    """lnrpc.WalletState."""

    NON_EXISTING = 0
    LOCKED = 1
    UNLOCKED = 2
    RPC_ACTIVE = 3
    SERVER_ACTIVE = 4
    WAITING_TO_START = 255


NOT_YET: Final = {
    WalletState.WAITING_TO_START: "waiting to start, RPC services not available",
    WalletState.NON_EXISTING: "wallet not created, create one to enable full RPC access",
    WalletState.LOCKED: "wallet locked, unlock it to enable full RPC access",
    WalletState.UNLOCKED: ("the RPC server is in the process of starting up, but not yet ready to accept calls"),
}
"""What every RPC but State's answers before RPC_ACTIVE."""

NO_PATH: Final = "unable to find a path to destination"
"""What QueryRoutes says, whatever the reason but one."""

NO_BALANCE: Final = "insufficient local balance"
"""What it says if all channels of the node together cannot send the amount."""

HASH_TAKEN: Final = "invoice with payment hash already exists"
"""What AddInvoice says of a preimage that it has an invoice for."""

GONE: Final = "connection refused"
"""What a client sees of an LND that does not run."""

BROKEN: Final = "connection reset by peer"
"""What a client sees when the connection breaks in the middle of a call."""
