"""A clock that jumps, and what the chain says of it."""

import pytest

from impervious.clock import AGREES_MS, STEP_MS, NodeClock, Trust

DAY_MS = 86_400_000
START_MS = 1_760_000_000_000


class Machine:
    """A wall clock and a counting one, which the test moves."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.elapsed_s = 100.0
        self.clock = NodeClock(lambda: self.wall_ms, lambda: self.elapsed_s)

    def pass_s(self, seconds: float) -> None:
        self.elapsed_s += seconds
        self.wall_ms += int(seconds * 1000)

    def compare(self, chain_ms: int) -> None:
        self.clock.now_ms()
        self.clock.compare(chain_ms // 1000)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_new_database_goes_by_the_machine(machine: Machine) -> None:
    machine.clock.begin(0)
    assert machine.clock.now_ms() == START_MS
    machine.compare(START_MS - 600_000)
    assert machine.clock.trust is Trust.RIGHT
    machine.pass_s(5)
    assert machine.clock.now_ms() == START_MS + 5000


def test_before_the_chain_was_asked_no_time_has_passed_since_the_database_ended(machine: Machine) -> None:
    machine.clock.begin(START_MS - 9 * DAY_MS)
    machine.pass_s(5)
    assert (machine.clock.now_ms(), machine.clock.trust) == (START_MS - 9 * DAY_MS + 5000, Trust.UNCHECKED)
    machine.compare(START_MS)
    assert (machine.clock.now_ms(), machine.clock.trust) == (START_MS + 5000, Trust.RIGHT)


@pytest.mark.parametrize("step_ms", [9 * DAY_MS, -9 * DAY_MS, STEP_MS + 1, -STEP_MS - 1])
def test_a_step_does_not_count_until_the_chain_was_asked(machine: Machine, step_ms: int) -> None:
    machine.compare(START_MS)
    machine.wall_ms += step_ms
    machine.pass_s(1)
    assert (machine.clock.trust, machine.clock.now_ms()) == (Trust.UNCHECKED, START_MS + 1000)
    machine.compare(START_MS + step_ms)  # the machine slept, or was wrong before: the chain knows
    assert (machine.clock.trust, machine.clock.now_ms()) == (Trust.RIGHT, START_MS + 1000 + step_ms)


@pytest.mark.parametrize("step_ms", [STEP_MS, -STEP_MS])
def test_a_correction_is_followed(machine: Machine, step_ms: int) -> None:
    machine.compare(START_MS)
    machine.wall_ms += step_ms
    assert (machine.clock.trust, machine.clock.now_ms()) == (Trust.RIGHT, START_MS + step_ms)


@pytest.mark.parametrize(("step_ms", "word"), [(9 * DAY_MS, "9 days ahead"), (-60 * DAY_MS, "60 days behind")])
def test_a_clock_that_the_chain_contradicts_does_not_count(machine: Machine, step_ms: int, word: str) -> None:
    machine.compare(START_MS)
    machine.wall_ms += step_ms
    machine.pass_s(1)
    machine.compare(START_MS - 600_000)
    assert (machine.clock.trust, machine.clock.now_ms()) == (Trust.WRONG, START_MS + 1000)
    assert f"the clock is {word}; set it" in machine.clock.problem
    machine.pass_s(60)
    assert machine.clock.now_ms() == START_MS + 61_000
    machine.wall_ms -= step_ms
    machine.compare(START_MS)
    assert (machine.clock.trust, machine.clock.problem) == (Trust.RIGHT, "")
    assert machine.clock.now_ms() == START_MS + 61_000


@pytest.mark.parametrize("ended_ms", [START_MS - 90 * DAY_MS, START_MS, START_MS + 90 * DAY_MS, 0])
@pytest.mark.parametrize("off_ms", [60 * DAY_MS, -60 * DAY_MS])
def test_a_start_with_a_wrong_clock_goes_by_the_chain(machine: Machine, ended_ms: int, off_ms: int) -> None:
    machine.wall_ms += off_ms
    machine.clock.begin(ended_ms)
    machine.compare(START_MS)
    assert machine.clock.trust is Trust.WRONG
    assert abs(machine.clock.now_ms() - START_MS) <= AGREES_MS


def test_a_database_that_a_wrong_clock_wrote_is_no_obstacle(machine: Machine) -> None:
    machine.clock.begin(START_MS + 9 * DAY_MS)
    machine.compare(START_MS)
    assert (machine.clock.trust, machine.clock.now_ms()) == (Trust.RIGHT, START_MS)


def test_a_node_that_tells_no_time_is_no_witness(machine: Machine) -> None:
    machine.clock.begin(START_MS - 9 * DAY_MS)
    machine.compare(0)
    assert (machine.clock.trust, machine.clock.now_ms()) == (Trust.RIGHT, START_MS)


def test_what_no_calendar_has_is_told_too(machine: Machine) -> None:
    machine.wall_ms = 10**17
    machine.compare(START_MS)
    assert "a year that no calendar has" in machine.clock.problem


def test_two_hours_without_a_block_are_no_reason(machine: Machine) -> None:
    machine.compare(START_MS - 2 * 3_600_000)
    assert machine.clock.trust is Trust.RIGHT
