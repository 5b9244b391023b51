from dataclasses import replace

import pytest
from tests.sim.engine.network import EPOCH_S, hash_of, preimage_of

from impervious.model import HtlcState, InvoiceState, Preimage
from impervious.sim.engine.identity import Identity
from impervious.sim.engine.receiving import Answer, Incoming, decide, insert_keysend
from impervious.sim.engine.world import Node
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD

HEIGHT = 850_000
GOOD = Incoming(
    payment_hash=hash_of(1),
    amount=Msat(1000),
    chan_id=1,
    index=0,
    expiry_height=HEIGHT + 83,
    onion={PREIMAGE_RECORD: preimage_of(1).raw},
    wire={},
    payment_addr=b"",
)


def receiver(*, hold_s: float = 0, accepts: bool = True) -> Node:
    return Node(name="bob", identity=Identity(bytes(31) + b"\x09"), accepts_keysend=accepts, keysend_hold_s=hold_s)


def answer(node: Node, htlc: Incoming) -> Answer:
    insert_keysend(node, htlc, height=HEIGHT, now_s=EPOCH_S)
    return decide(node, htlc, height=HEIGHT)


def test_a_keysend_gets_an_open_invoice_of_its_amount() -> None:
    node = receiver()
    inserted = insert_keysend(node, GOOD, height=HEIGHT, now_s=EPOCH_S)
    assert inserted is not None
    assert (inserted.state, inserted.value, inserted.is_keysend, inserted.expiry_s) == (
        InvoiceState.OPEN,
        1000,
        True,
        3600,
    )
    assert (inserted.memo, inserted.payment_request, inserted.payment_addr) == ("", "", bytes(32))
    assert decide(node, GOOD, height=HEIGHT) is Answer.SETTLE
    assert insert_keysend(node, GOOD, height=HEIGHT, now_s=EPOCH_S) is None


@pytest.mark.parametrize(
    "change",
    [
        {"onion": {}},
        {"onion": {PREIMAGE_RECORD: preimage_of(2).raw}},
        {"onion": {PREIMAGE_RECORD: preimage_of(1).raw[:31]}},
        {"onion": {PREIMAGE_RECORD: b""}},
        {"payment_addr": bytes(32)},
        {"expiry_height": HEIGHT + 18},
    ],
)
def test_a_bad_keysend_is_failed_and_leaves_no_invoice(change: dict[str, object]) -> None:
    node = receiver()
    assert answer(node, replace(GOOD, **change)) is Answer.FAIL  # type: ignore[arg-type]  # a table of one field each
    assert len(node.invoices) == 0


def test_a_node_without_keysend_knows_no_such_hash() -> None:
    assert answer(receiver(accepts=False), GOOD) is Answer.FAIL


def test_a_settled_keysend_takes_more_of_the_same_but_not_less() -> None:
    node = receiver()
    answer(node, GOOD)
    node.invoices.move(node.invoices.lookup(hash_of(1)), InvoiceState.SETTLED, now_s=EPOCH_S)
    assert answer(node, replace(GOOD, onion={**GOOD.onion, 400000: b"forged"})) is Answer.SETTLE
    assert answer(node, replace(GOOD, amount=Msat(999))) is Answer.FAIL


def test_a_cancelled_keysend_is_failed() -> None:
    node = receiver()
    answer(node, GOOD)
    node.invoices.move(node.invoices.lookup(hash_of(1)), InvoiceState.CANCELED, now_s=EPOCH_S)
    assert answer(node, GOOD) is Answer.FAIL


def test_hold_mode_holds_keysends_only() -> None:
    node = receiver(hold_s=30)
    invoice = node.invoices.add(
        payment_hash=preimage_of(5).payment_hash,
        preimage=preimage_of(5),
        value=Msat(10),
        created_s=EPOCH_S,
        is_keysend=False,
        payment_addr=b"a" * 32,
    )
    paying = replace(GOOD, payment_hash=invoice.payment_hash, onion={}, payment_addr=b"a" * 32, amount=Msat(10))
    assert answer(node, GOOD) is Answer.HOLD
    assert answer(node, paying) is Answer.SETTLE


def test_an_ordinary_invoice_wants_its_address_and_is_paid_once() -> None:
    node = receiver(accepts=False)
    invoice = node.invoices.add(
        payment_hash=preimage_of(5).payment_hash,
        preimage=preimage_of(5),
        value=Msat(10),
        created_s=EPOCH_S,
        is_keysend=False,
        payment_addr=b"a" * 32,
    )
    paying = replace(GOOD, payment_hash=invoice.payment_hash, onion={}, payment_addr=b"a" * 32, amount=Msat(10))
    assert answer(node, replace(paying, payment_addr=b"b" * 32)) is Answer.FAIL
    assert answer(node, replace(paying, payment_addr=b"")) is Answer.FAIL
    assert answer(node, replace(paying, amount=Msat(9))) is Answer.FAIL
    assert answer(node, paying) is Answer.SETTLE
    node.invoices.move(node.invoices.lookup(invoice.payment_hash), InvoiceState.SETTLED, now_s=EPOCH_S)
    assert answer(node, paying) is Answer.FAIL


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize(
    ("record", "expected"),
    [(preimage_of(5).raw, Answer.SETTLE), (preimage_of(6).raw, Answer.FAIL), (b"short", Answer.FAIL)],
)
def test_an_ordinary_invoice_takes_a_keysend_that_knows_its_preimage(
    accepts: bool, record: bytes, expected: Answer
) -> None:
    node = receiver(accepts=accepts)
    invoice = node.invoices.add(
        payment_hash=preimage_of(5).payment_hash,
        preimage=preimage_of(5),
        value=Msat(10),
        created_s=EPOCH_S,
        is_keysend=False,
        payment_addr=b"a" * 32,
    )
    paying = replace(GOOD, payment_hash=invoice.payment_hash, onion={PREIMAGE_RECORD: record}, amount=Msat(10))
    assert answer(node, paying) is expected


def test_an_invoice_wants_the_blocks_that_it_says() -> None:
    node = receiver()
    invoice = node.invoices.add(
        payment_hash=preimage_of(5).payment_hash,
        preimage=preimage_of(5),
        value=Msat(10),
        created_s=EPOCH_S,
        is_keysend=False,
        payment_addr=b"a" * 32,
        cltv_expiry=40,
    )
    paying = replace(GOOD, payment_hash=invoice.payment_hash, onion={}, payment_addr=b"a" * 32, amount=Msat(10))
    assert answer(node, replace(paying, expiry_height=HEIGHT + 39)) is Answer.FAIL
    assert answer(node, replace(paying, expiry_height=HEIGHT + 40)) is Answer.SETTLE


def test_a_keysend_record_spoils_the_payment_of_an_invoice() -> None:
    node = receiver()
    invoice = node.invoices.add(
        payment_hash=Preimage(b"p" * 32).payment_hash,
        preimage=Preimage(b"p" * 32),
        value=Msat(10),
        created_s=EPOCH_S,
        is_keysend=False,
        payment_addr=b"a" * 32,
    )
    spoiled = replace(
        GOOD, payment_hash=invoice.payment_hash, onion={PREIMAGE_RECORD: b"p" * 32}, payment_addr=b"a" * 32
    )
    assert answer(node, spoiled) is Answer.FAIL


def test_the_wire_wins_over_the_onion() -> None:
    htlc = replace(GOOD, onion={400000: b"onion", 400001: b"kept"}, wire={400000: b"wire", 106823: b"\x00"})
    recorded = htlc.recorded(HtlcState.SETTLED, height=HEIGHT, now_s=EPOCH_S)
    assert recorded.records == {400000: b"wire", 400001: b"kept", 106823: b"\x00"}
