from dataclasses import replace

import pytest
from grpclib.const import Status
from tests.sim.engine.network import EPOCH_S, Lab, hash_of, preimage_of

from impervious.model import HtlcState
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.payments import Attempt, Order, PaymentTable, SimPayment, Stage
from impervious.sim.engine.route import Hop, Path
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD

DEST = b"\x02" + bytes(31) + b"\x01"
OWN = b"\x03" + bytes(31) + b"\x01"


def order(number: int = 1) -> Order:
    return Order(dest=DEST, amount=Msat(1000), payment_hash=hash_of(number))


def table(*stages: Stage) -> PaymentTable:
    payments = PaymentTable()
    for number, stage in enumerate(stages, start=1):
        payment = payments.start(order(number), created_s=EPOCH_S, deadline_s=60)
        payments.put(replace(payment, stage=stage))
    return payments


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Stage.INITIATED, "payment already exists"),
        (Stage.IN_FLIGHT, "payment is in transition"),
        (Stage.SUCCEEDED, "invoice is already paid"),
    ],
)
def test_a_hash_is_paid_once(stage: Stage, text: str) -> None:
    with pytest.raises(LndError) as caught:
        table(stage).start(order(), created_s=EPOCH_S, deadline_s=60)
    assert (caught.value.text, caught.value.status) == (text, Status.ALREADY_EXISTS)


def test_a_failed_payment_can_be_started_anew_under_a_new_index() -> None:
    payments = table(Stage.FAILED, Stage.SUCCEEDED)
    again = payments.start(order(1), created_s=EPOCH_S, deadline_s=60)
    assert (again.index, again.stage, again.attempts, again.failure) == (3, Stage.INITIATED, (), None)
    assert [payment.index for payment in payments] == [2, 3]


@pytest.mark.parametrize(
    ("payment_hash", "text", "status"),
    [
        (hash_of(1), "payment isn't initiated", Status.NOT_FOUND),
        (b"x" * 31, "invalid hash length of 31, want 32", Status.UNKNOWN),
    ],
)
def test_tracking_nothing_says_what_lnd_says(payment_hash: bytes, text: str, status: Status) -> None:
    with pytest.raises(LndError) as caught:
        table().lookup(payment_hash)
    assert (caught.value.text, caught.value.status) == (text, status)


def test_pages_show_what_succeeded_unless_asked_for_all() -> None:
    payments = table(Stage.SUCCEEDED, Stage.FAILED, Stage.SUCCEEDED, Stage.IN_FLIGHT)

    def indexes(rows: list[SimPayment]) -> list[int]:
        return [row.index for row in rows]

    assert indexes(payments.page()) == [1, 3]
    assert indexes(payments.page(include_incomplete=True)) == [1, 2, 3, 4]
    assert indexes(payments.page(include_incomplete=True, index_offset=1, limit=2)) == [2, 3]
    assert indexes(payments.page(include_incomplete=True, index_offset=4, limit=2, backwards=True)) == [2, 3]
    assert indexes(payments.page(include_incomplete=True, limit=2, backwards=True)) == [3, 4]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dest": b""}, "invalid vertex length of 0, want 33"),
        ({"dest": DEST + b"x"}, "invalid vertex length of 34, want 33"),
        ({"payment_hash": b"x"}, "invalid hash length of 1, want 32"),
        ({"amount": Msat(0)}, "amount must be specified"),
        ({"amount": Msat(-1)}, "amount cannot be negative"),
        ({"records": {65535: b""}}, "no custom records with types below 65536 allowed"),
        ({"first_hop_records": {1: b""}}, "custom records entry with TLV type below min: 65536"),
        ({"fee_limit": Msat(-1)}, "fee limit cannot be negative"),
        ({"dest": OWN}, "self-payments not allowed"),
        (
            {"records": {PREIMAGE_RECORD: bytes(32)}, "max_shard_size": Msat(1)},
            "keysend payments cannot specify a max shard amount - MPP not supported with keysend payments",
        ),
    ],
)
def test_what_cannot_be_paid_is_refused_in_the_words_of_lnd(change: dict[str, object], text: str) -> None:
    with pytest.raises(LndError) as caught:
        replace(order(), **change).check(OWN)  # type: ignore[arg-type]  # a table of one field each
    assert (caught.value.text, caught.value.status) == (text, Status.UNKNOWN)


def test_a_good_order_passes() -> None:
    order().check(OWN)
    replace(order(), dest=OWN, allow_self_payment=True).check(OWN)


def test_an_attempt_takes_the_place_of_its_former_self() -> None:
    hop = Hop(
        chan_id=1,
        name="bob",
        pubkey=Lab(["bob"], []).engine.world.pubkeys["bob"],
        forwards=Msat(1000),
        fee=Msat(0),
        expiry=9,
    )
    path = Path(source="alice", hops=(hop,), total=Msat(1007), time_lock=9)
    payment = table(Stage.IN_FLIGHT).lookup(hash_of(1))
    for number in (1, 2):
        payment = payment.with_attempt(Attempt(id=number, path=path, tried_s=EPOCH_S))
    payment = payment.with_attempt(replace(payment.attempts[0], state=HtlcState.CANCELED))
    payment = payment.with_attempt(replace(payment.attempts[1], state=HtlcState.SETTLED))
    assert [(a.id, a.state) for a in payment.attempts] == [(1, HtlcState.CANCELED), (2, HtlcState.SETTLED)]
    assert payment.fee == 7
    assert [a.id for a in payment.without_failed_attempts().attempts] == [2]


def test_a_preimage_makes_its_hash() -> None:
    assert preimage_of(1).payment_hash == hash_of(1)
