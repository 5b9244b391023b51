import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.sim.engine.channel import MAX_HTLCS, Channel, Side
from impervious.sim.engine.topology import Policy
from impervious.units import Msat

CAPACITY = 100_000_000
RESERVE = 1_000_000


def channel(first: int = CAPACITY // 2) -> Channel:
    return Channel(
        chan_id=1,
        nodes=("alice", "bob"),
        capacity=Msat(CAPACITY),
        balances=[Msat(first), Msat(CAPACITY - first)],
        policies=(Policy(), Policy()),
    )


ALICE, BOB = Side(0), Side(1)


def test_money_is_in_one_place_at_every_step() -> None:
    ledger = channel()
    index = ledger.offer(ALICE, Msat(700))
    assert (ledger.balances, ledger.htlcs) == ([49_999_300, 50_000_000], {(ALICE, index): 700})
    ledger.settle(ALICE, index)
    assert (ledger.balances, ledger.htlcs, ledger.sent) == ([49_999_300, 50_000_700], {}, [700, 0])


def test_a_failed_htlc_gives_everything_back() -> None:
    ledger = channel()
    ledger.fail(BOB, ledger.offer(BOB, Msat(5)))
    assert (ledger.balances, ledger.htlcs, ledger.sent) == ([50_000_000, 50_000_000], {}, [0, 0])


def test_the_reserve_cannot_be_spent() -> None:
    ledger = channel()
    assert ledger.spendable(ALICE) == 50_000_000 - RESERVE
    with pytest.raises(ValueError, match="cannot offer"):
        ledger.offer(ALICE, Msat(50_000_000 - RESERVE + 1))
    ledger.offer(ALICE, Msat(50_000_000 - RESERVE))
    assert ledger.spendable(ALICE) == 0


def test_who_has_less_than_the_reserve_can_spend_nothing() -> None:
    assert channel(first=RESERVE - 1).spendable(ALICE) == 0


def test_a_side_has_so_many_slots() -> None:
    ledger = channel()
    indexes = [ledger.offer(ALICE, Msat(1)) for _ in range(MAX_HTLCS)]
    assert (ledger.spendable(ALICE), ledger.spendable(BOB)) == (0, 50_000_000 - RESERVE)
    ledger.fail(ALICE, indexes[0])
    assert ledger.spendable(ALICE) > 0


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(1, 60_000_000), st.sampled_from("sfk"))))
def test_nothing_is_ever_made_or_lost(moves: list[tuple[Side, int, str]]) -> None:
    ledger = channel()
    for side, amount, end in moves:
        if amount > ledger.spendable(side):
            continue
        index = ledger.offer(side, Msat(amount))
        if end == "s":
            ledger.settle(side, index)
        elif end == "f":
            ledger.fail(side, index)
        assert sum(ledger.balances) + sum(ledger.htlcs.values()) == CAPACITY
        assert min(ledger.balances) >= RESERVE
        assert ledger.pending[side] == sum(1 for offerer, _ in ledger.htlcs if offerer == side)
