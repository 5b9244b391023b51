from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.model import HtlcState, PaymentHash, Preimage
from impervious.sim.rows import from_text, to_text
from impervious.units import Msat


@dataclass(frozen=True)
class Inner:
    amount: Msat
    name: str


@dataclass
class Outer:
    hash: PaymentHash
    state: HtlcState
    inner: tuple[Inner, ...]
    records: Mapping[int, bytes]
    pairs: dict[tuple[int, int], Msat]
    avoid: frozenset[tuple[int, str]]
    balances: list[Msat]
    policies: tuple[Inner, Inner]
    preimage: Preimage | None
    when_s: float
    ready: bool
    count: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.count = [len(self.inner)]


INNERS = st.builds(Inner, amount=st.integers(0, 2**62).map(Msat), name=st.text(max_size=5))


@given(
    st.builds(
        Outer,
        hash=st.binary(max_size=40).map(PaymentHash),
        state=st.sampled_from(HtlcState),
        inner=st.lists(INNERS, max_size=3).map(tuple),
        records=st.dictionaries(st.integers(0, 2**64 - 1), st.binary(max_size=50), max_size=3),
        pairs=st.dictionaries(st.tuples(st.integers(), st.integers()), st.integers().map(Msat), max_size=3),
        avoid=st.frozensets(st.tuples(st.integers(), st.text(max_size=3)), max_size=3),
        balances=st.lists(st.integers().map(Msat), max_size=3),
        policies=st.tuples(INNERS, INNERS),
        preimage=st.none() | st.binary(min_size=32, max_size=32).map(Preimage),
        when_s=st.floats(allow_nan=False, allow_infinity=False),
        ready=st.booleans(),
    )
)
def test_what_is_written_is_read(value: Outer) -> None:
    assert from_text(Outer, to_text(value)) == value


def test_a_field_that_came_later_takes_its_default() -> None:
    @dataclass
    class Later:
        old: int
        new: int = 7

    assert from_text(Later, '{"old":1}') == Later(old=1, new=7)


def test_what_state_does_not_hold_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="does not hold complex"):
        to_text(Inner(amount=1j, name=""))  # type: ignore[arg-type]  # that is the point
