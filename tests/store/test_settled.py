from impervious.model import EventKind, PaymentHash, SettledInvoice
from impervious.store.settled import event_of, invoice_of
from impervious.units import Msat


def test_an_invoice_comes_back_as_it_was() -> None:
    invoice = SettledInvoice(
        payment_hash=PaymentHash(bytes(range(32))),
        amount=Msat(2**62),
        records={65536: b"\xff", 2**64 - 1: b""},
        is_keysend=False,
        add_index=7,
        settle_index=9,
        created_s=1,
        settled_s=2,
        memo="ö",
        payment_request="lnbcrt1",
    )
    event = event_of(invoice)
    assert invoice_of(event.data) == invoice
    assert (event.kind, event.public, event.verified, event.sender) == (EventKind.PAYMENT, False, False, None)
