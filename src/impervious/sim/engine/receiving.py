"""What a node does with an HTLC that ends at it (lnd invoiceregistry.go processKeySend, update.go updateLegacy).

A keysend record counts only if its preimage is that of the hash, whether the node accepts keysends or has an ordinary
invoice with that hash. All refusals look the same to the sender. A keysend invoice that is settled takes further HTLCs
with the same preimage, silently: whoever forwarded the first knows the preimage and may append records that its sender
never wrote.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from impervious.errors import InvalidArgument
from impervious.model import HtlcState, InvoiceState, PaymentHash, Preimage, Records
from impervious.sim.engine.invoices import Invoice, ReceivedHtlc
from impervious.sim.engine.world import Node
from impervious.units import Msat
from impervious.wire import keysend

FINAL_CLTV_REJECT_DELTA: Final = 19
"""An HTLC that expires sooner is failed."""


class Answer(Enum):
    """What becomes of an HTLC at its receiver."""

    SETTLE = "settle"
    HOLD = "hold"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """An HTLC as its receiver sees it: nothing tells who sent it."""

    payment_hash: PaymentHash
    amount: Msat
    chan_id: int
    index: int
    expiry_height: int
    onion: Records
    wire: Records
    payment_addr: bytes

    def recorded(self, state: HtlcState, *, height: int, now_s: int) -> ReceivedHtlc:
        """What the invoice keeps of it."""
        return ReceivedHtlc(
            chan_id=self.chan_id,
            index=self.index,
            amount=self.amount,
            accept_height=height,
            accepted_s=now_s,
            resolved_s=0 if state is HtlcState.ACCEPTED else now_s,
            expiry_height=self.expiry_height,
            state=state,
            records={**self.onion, **self.wire},
        )


def insert_keysend(node: Node, htlc: Incoming, *, height: int, now_s: int) -> Invoice | None:
    """Make an invoice for a keysend, if it is a valid one and has none yet."""
    preimage = _preimage(htlc)
    if not node.accepts_keysend or preimage is None or node.invoices.get(htlc.payment_hash) is not None:
        return None
    if htlc.payment_addr or htlc.expiry_height < height + FINAL_CLTV_REJECT_DELTA:
        return None
    return node.invoices.add(
        payment_hash=preimage.payment_hash, preimage=preimage, value=htlc.amount, created_s=now_s, is_keysend=True
    )


def decide(node: Node, htlc: Incoming, *, height: int) -> Answer:
    """Settle, hold or fail, once a keysend's invoice is in."""
    invoice = node.invoices.get(htlc.payment_hash)
    carries_keysend = keysend.PREIMAGE_RECORD in htlc.onion and node.accepts_keysend
    if invoice is None or (carries_keysend and (_preimage(htlc) is None or htlc.payment_addr)):
        return Answer.FAIL
    if invoice.state is InvoiceState.CANCELED or htlc.amount < invoice.value:
        return Answer.FAIL
    if htlc.expiry_height < height + FINAL_CLTV_REJECT_DELTA:
        return Answer.FAIL
    if not invoice.is_keysend and htlc.expiry_height < height + invoice.cltv_expiry:
        return Answer.FAIL
    if htlc.payment_addr:
        if invoice.is_keysend or htlc.payment_addr != invoice.payment_addr or invoice.settle_index:
            return Answer.FAIL
    elif not invoice.is_keysend and _preimage(htlc) is None:
        return Answer.FAIL  # only whoever knows the preimage may do without the address (lnd#11024)
    if invoice.state is InvoiceState.SETTLED:
        return Answer.SETTLE
    held = node.keysend_hold_s > 0 if invoice.is_keysend else invoice.preimage is None
    return Answer.HOLD if held else Answer.SETTLE


def _preimage(htlc: Incoming) -> Preimage | None:
    """The preimage that a keysend's onion carries, if it is the right one."""
    try:
        preimage = Preimage(htlc.onion[keysend.PREIMAGE_RECORD])
    except (KeyError, InvalidArgument):
        return None
    return preimage if preimage.payment_hash == htlc.payment_hash else None
