"""What a new invoice shall say, and LND's limits for it (invoicesrpc AddInvoice, zpay32 writeTaggedField)."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from impervious.model import MAX_DESCRIPTION_BYTES, MAX_EXPIRY_S, MAX_INVOICE, MAX_MEMO_BYTES, PaymentHash, Preimage
from impervious.sim.engine.addresses import check_address
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.route import RouteHint
from impervious.units import Msat

INVOICE_EXPIRY_S: Final = 86_400
"""lnd's default for AddInvoice."""
MAX_HOP_HINTS: Final = 20
"""invoicesrpc.maxHopHints."""
MIN_CLTV: Final = 24
"""routing.MinCLTVDelta."""
MAX_CLTV: Final = 65_535
"""invoices.MaxFinalCltvDelta."""
_MSAT_PER_BITCOIN: Final = 10**11


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A new invoice."""

    value: Msat = Msat(0)
    """0 leaves it to the payer."""
    preimage: Preimage | None = None
    """None: a random one, or that of `hold_hash`, which only its owner knows."""
    hold_hash: PaymentHash | None = None
    """The hash of a hold invoice: what is paid is held until its owner settles or cancels it."""
    memo: str = ""
    """Its description, unless there is a hash."""
    description_hash: bytes = b""
    """32 bytes, or empty."""
    expiry_s: int = 0
    """0 or less is LND's default."""
    private: bool = False
    """It names its node's private channels as ways to it."""
    hints: tuple[RouteHint, ...] = ()
    """Ways to its node besides those."""
    cltv_expiry: int = 0
    """Blocks that an HTLC for it must have left; 0 is LND's default."""
    fallback: str = ""
    """An address on the chain, for payers who find no way."""

    def check(self) -> None:
        """Refuse what LND refuses.

        Raises:
          LndError: in LND's words.
        """
        memo_bytes = len(self.memo.encode())
        if memo_bytes > MAX_MEMO_BYTES:
            raise LndError(f"memo too large: {memo_bytes} bytes (maxsize={MAX_MEMO_BYTES})")
        if self.description_hash and len(self.description_hash) != 32:
            raise LndError(f"description hash is {len(self.description_hash)} bytes, must be 32")
        if self.value > MAX_INVOICE:
            raise LndError(f"invoice amount {_bitcoin(self.value)} is too large, max is {_bitcoin(MAX_INVOICE)}")
        if self.fallback:
            check_address(self.fallback)
        if self.expiry_s > MAX_EXPIRY_S:
            longest = go_float(MAX_EXPIRY_S)
            raise LndError(f"expiry of {go_float(self.expiry_s)} seconds greater than max expiry of {longest} seconds")
        if self.cltv_expiry > MAX_CLTV:
            raise LndError(f"CLTV delta of {self.cltv_expiry} is too large, max accepted is: {MAX_CLTV}")
        if 0 < self.cltv_expiry < MIN_CLTV:
            raise LndError(f"CLTV delta of {self.cltv_expiry} must be greater than minimum of {MIN_CLTV}")
        if len(self.hints) > MAX_HOP_HINTS:
            raise LndError(f"number of routing hints must not exceed maximum of {MAX_HOP_HINTS}")
        if not all(self.hints):
            raise LndError("number of hop hint within a route must be positive")
        if memo_bytes > MAX_DESCRIPTION_BYTES and not self.description_hash:
            groups = -(-memo_bytes * 8 // 5)
            raise LndError(f"data length too big to fit within 10 bits: {groups}")


def go_float(value: float) -> str:
    """A number as Go's %v writes a float64: with an exponent from a million on."""
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    assert isinstance(exponent, int)
    power = len(digits) - 1 + exponent
    if -4 <= power < 6:
        return f"{Decimal(repr(float(value))).normalize():f}"
    text = "".join(map(str, digits))
    mantissa = text[0] + (f".{text[1:]}" if len(text) > 1 else "")
    return f"{'-' * sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def _bitcoin(value: Msat) -> str:
    """An amount as btcutil.Amount writes it: whole satoshis, in bitcoin."""
    satoshis = Decimal(value // 1000) / (_MSAT_PER_BITCOIN // 1000)
    return f"{satoshis.normalize():f} BTC"
