import pytest
from grpclib.const import Status
from tests.sim.engine.network import EPOCH_S, hash_of, preimage_of

from impervious.model import HtlcState, InvoiceState, PaymentHash
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.invoices import Backend, Invoice, LiveFilter, ReceivedHtlc, Registry
from impervious.units import Msat


def filled(count: int, *, backend: Backend = Backend.KV) -> Registry:
    """Open invoices 1 to `count`, one a second."""
    registry = Registry(backend)
    for number in range(1, count + 1):
        registry.add(
            payment_hash=hash_of(number),
            preimage=preimage_of(number),
            value=Msat(1000),
            created_s=EPOCH_S + number,
            is_keysend=True,
        )
    return registry


def settle(registry: Registry, number: int, *, at_s: int = EPOCH_S) -> Invoice:
    return registry.move(registry.lookup(hash_of(number)), InvoiceState.SETTLED, now_s=at_s)


def cancel(registry: Registry, number: int) -> Invoice:
    return registry.move(registry.lookup(hash_of(number)), InvoiceState.CANCELED, now_s=EPOCH_S)


def adds(rows: tuple[Invoice, ...] | list[Invoice]) -> list[int]:
    return [row.add_index for row in rows]


def htlc(index: int, state: HtlcState = HtlcState.ACCEPTED, amount: int = 1000) -> ReceivedHtlc:
    return ReceivedHtlc(
        chan_id=1,
        index=index,
        amount=Msat(amount),
        accept_height=800_000,
        accepted_s=EPOCH_S,
        resolved_s=0,
        expiry_height=800_083,
        state=state,
        records={},
    )


def test_both_indexes_count_from_one() -> None:
    registry = filled(3)
    assert adds(list(registry)) == [1, 2, 3]
    assert [settle(registry, number).settle_index for number in (3, 1)] == [1, 2]


def test_a_hash_is_taken_once() -> None:
    registry = filled(1)
    with pytest.raises(LndError, match="invoice with payment hash already exists"):
        registry.add(
            payment_hash=hash_of(1), preimage=preimage_of(1), value=Msat(1), created_s=EPOCH_S, is_keysend=True
        )


@pytest.mark.parametrize(
    ("registry", "payment_hash", "text", "status"),
    [
        (filled(0), hash_of(1), "there are no existing invoices", Status.NOT_FOUND),
        (filled(1), hash_of(2), "unable to locate invoice", Status.NOT_FOUND),
        (filled(1), b"short", "payment hash must be exactly 32 bytes, is instead 5", Status.UNKNOWN),
    ],
)
def test_looking_up_nothing_says_what_lnd_says(
    registry: Registry, payment_hash: bytes, text: str, status: Status
) -> None:
    with pytest.raises(LndError) as caught:
        registry.lookup(payment_hash)
    assert (caught.value.text, caught.value.status) == (text, status)


def test_settling_resolves_what_was_held() -> None:
    registry = filled(1)
    registry.move(registry.lookup(hash_of(1)), InvoiceState.ACCEPTED, now_s=EPOCH_S, htlc=htlc(4))
    settled = registry.move(registry.lookup(hash_of(1)), InvoiceState.SETTLED, now_s=EPOCH_S + 9)
    assert [(h.index, h.state, h.resolved_s) for h in settled.htlcs] == [(4, HtlcState.SETTLED, EPOCH_S + 9)]
    assert (settled.settled_s, settled.amount_paid) == (EPOCH_S + 9, 1000)


def test_cancelling_refuses_what_was_held() -> None:
    registry = filled(1)
    registry.move(registry.lookup(hash_of(1)), InvoiceState.ACCEPTED, now_s=EPOCH_S, htlc=htlc(4))
    canceled = cancel(registry, 1)
    assert ([h.state for h in canceled.htlcs], canceled.amount_paid, canceled.settle_index) == (
        [HtlcState.CANCELED],
        0,
        0,
    )


def test_another_htlc_keeps_the_index_and_raises_the_amount() -> None:
    registry = filled(1)
    first = registry.move(
        registry.lookup(hash_of(1)), InvoiceState.SETTLED, now_s=EPOCH_S, htlc=htlc(7, HtlcState.SETTLED)
    )
    again = registry.move(first, InvoiceState.SETTLED, now_s=EPOCH_S + 5, htlc=htlc(2, HtlcState.SETTLED, 2000))
    assert (again.settle_index, again.settled_s, again.amount_paid) == (1, EPOCH_S, 3000)
    assert [h.index for h in again.htlcs] == [2, 7]  # by htlc_index, not by time
    assert registry.settled == 1


@pytest.mark.parametrize("state", [InvoiceState.OPEN, InvoiceState.SETTLED, InvoiceState.ACCEPTED])
def test_a_cancelled_invoice_stays_cancelled(state: InvoiceState) -> None:
    registry = filled(1)
    with pytest.raises(ValueError, match="cannot go from canceled"):
        registry.move(cancel(registry, 1), state, now_s=EPOCH_S)


@pytest.mark.parametrize(
    ("offset", "limit", "backwards", "found"),
    [
        (0, 0, False, [1, 2, 3, 4, 5]),
        (0, 2, False, [1, 2]),
        (2, 2, False, [3, 4]),
        (5, 2, False, []),
        (99, 2, False, []),
        (0, 2, True, [4, 5]),
        (4, 2, True, [2, 3]),
        (1, 2, True, []),
    ],
)
def test_pages_are_exclusive_and_ascending(offset: int, limit: int, backwards: bool, found: list[int]) -> None:
    assert adds(filled(5).page(index_offset=offset, limit=limit, backwards=backwards)) == found


def test_a_page_without_limit_has_a_hundred() -> None:
    assert adds(filled(150).page()) == list(range(1, 101))


def test_pages_can_be_bounded_by_date_inclusively_and_to_the_pending() -> None:
    registry = filled(5)
    settle(registry, 2)
    cancel(registry, 3)
    assert adds(registry.page(created_from_s=EPOCH_S + 2, created_to_s=EPOCH_S + 4)) == [2, 3, 4]
    assert adds(registry.page(created_from_s=EPOCH_S + 2, limit=2)) == [2, 3]
    assert adds(registry.page(pending_only=True)) == [1, 4, 5]


@pytest.mark.parametrize("backend", Backend)
def test_a_backlog_from_zero_is_empty_so_the_first_index_never_comes_again(backend: Backend) -> None:
    registry = filled(3, backend=backend)
    for number in (1, 2, 3):
        settle(registry, number)
    assert registry.backlog(add_index=0, settle_index=0) == []
    assert adds(registry.backlog(add_index=0, settle_index=1)) == [2, 3]


@pytest.mark.parametrize(("backend", "order"), [(Backend.KV, [3, 2, 1]), (Backend.SQL, [1, 2, 3])])
def test_back_ends_order_a_backlog_by_different_indexes(backend: Backend, order: list[int]) -> None:
    registry = filled(4, backend=backend)
    for number in (4, 3, 2, 1):
        settle(registry, number)
    assert adds(registry.backlog(add_index=0, settle_index=1)) == order


@pytest.mark.parametrize(("backend", "found"), [(Backend.KV, [3]), (Backend.SQL, [2, 3])])
def test_the_old_back_end_skips_an_entry_when_the_start_is_an_index_nobody_has(
    backend: Backend, found: list[int]
) -> None:
    registry = filled(3, backend=backend)
    settle(registry, 1)
    registry.skip(settled=5)
    settle(registry, 2)
    settle(registry, 3)
    assert adds(registry.backlog(add_index=0, settle_index=4)) == found


def test_a_backlog_by_addition_has_current_states_and_neither_held_nor_cancelled() -> None:
    registry = filled(5)
    settle(registry, 2)
    cancel(registry, 3)
    registry.move(registry.lookup(hash_of(4)), InvoiceState.ACCEPTED, now_s=EPOCH_S, htlc=htlc(1))
    backlog = registry.backlog(add_index=1, settle_index=0)
    assert [(row.add_index, row.state) for row in backlog] == [(2, InvoiceState.SETTLED), (5, InvoiceState.OPEN)]


def test_an_invoice_newer_than_both_starts_comes_once_for_each() -> None:
    registry = filled(3)
    settle(registry, 1)
    settle(registry, 3)
    assert adds(registry.backlog(add_index=1, settle_index=1)) == [2, 3, 3]


def test_a_migration_keeps_old_settle_indexes_and_counts_anew() -> None:
    registry = filled(4)
    for number in (1, 2, 4):
        settle(registry, number)
    cancel(registry, 3)
    registry.delete_canceled(hash_of(3))
    registry.renumber()
    assert [(row.add_index, row.settle_index) for row in registry] == [(1, 1), (2, 2), (3, 3)]
    added = registry.add(
        payment_hash=hash_of(9), preimage=preimage_of(9), value=Msat(1), created_s=EPOCH_S, is_keysend=True
    )
    assert (added.add_index, settle(registry, 9).settle_index) == (4, 1)
    assert adds(registry.backlog(add_index=0, settle_index=2)) == [3]


def test_only_a_cancelled_invoice_can_be_deleted_and_leaves_a_gap() -> None:
    registry = filled(2)
    with pytest.raises(LndError, match="invoice not canceled"):
        registry.delete_canceled(hash_of(1))
    cancel(registry, 1)
    registry.delete_canceled(hash_of(1))
    assert adds(registry.page()) == [2]
    assert registry.get(hash_of(1)) is None


def test_saved_rows_are_taken_over_with_their_counters() -> None:
    former = filled(3)
    settle(former, 2)
    registry = Registry(Backend.KV)
    registry.restore(list(former), added=7, settled=5)
    assert adds(registry.page()) == [1, 2, 3]
    assert registry.backlog(add_index=1, settle_index=0) == former.backlog(add_index=1, settle_index=0)
    added = registry.add(
        payment_hash=hash_of(9), preimage=preimage_of(9), value=Msat(1), created_s=EPOCH_S, is_keysend=True
    )
    assert (added.add_index, settle(registry, 9).settle_index) == (8, 6)


def live(settle_index: int, add_index: int = 0) -> tuple[list[int], list[int]]:
    """Indexes of OPEN and SETTLED events that pass, of three invoices settled in order."""
    registry, gate = filled(3), LiveFilter(add_index=add_index, settle_index=settle_index)
    opened = [row.add_index for row in registry if gate.passes(row)]
    settled = [row.settle_index for row in [settle(registry, n) for n in (1, 2, 3)] if gate.passes(row)]
    return opened, settled


def test_a_cursor_above_the_counter_suppresses_what_settles_now() -> None:
    assert live(0) == ([1, 2, 3], [1, 2, 3])
    assert live(2) == ([1, 2, 3], [3])
    assert live(10, add_index=2**62) == ([], [])


@pytest.mark.parametrize("state", [InvoiceState.ACCEPTED, InvoiceState.CANCELED])
def test_held_and_cancelled_invoices_are_never_sent(state: InvoiceState) -> None:
    registry = filled(1)
    changed = registry.move(registry.lookup(hash_of(1)), state, now_s=EPOCH_S)
    assert not LiveFilter(add_index=0, settle_index=0).passes(changed)


def test_an_event_counts_once() -> None:
    registry, gate = filled(1), LiveFilter(add_index=0, settle_index=0)
    row = registry.lookup(PaymentHash(hash_of(1)))
    assert [gate.passes(row), gate.passes(row)] == [True, False]
