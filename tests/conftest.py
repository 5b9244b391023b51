"""What several rooms' tests need."""

import signal
from collections.abc import Callable, Iterator
from typing import TypeVar

import hypothesis
import pytest
import trio
import trio.testing
from tests.lnd.regtest import KEYSEND, NO_PASSWORD, Regtest, running

T = TypeVar("T")

# A shell starts its background jobs with control-C ignored; programs that tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("ours", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("ours")


async def inline(function: Callable[[], T], /, *, limiter: trio.CapacityLimiter) -> T:
    """Run what would block in a thread at once: threads and a virtual clock do not mix."""
    async with limiter:
        return function()


class Wall:
    """A wall clock that follows Trio's, so that a virtual clock moves both."""

    def __init__(self) -> None:
        self.offset_ms = 1_760_000_000_000

    def __call__(self) -> int:
        return self.offset_ms + int(trio.current_time() * 1000)


@pytest.fixture(scope="session")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regtest]:
    """Real lnd nodes: alice-bob-carol in a line; dave takes no keysends, erin holds them."""
    nodes = {
        "alice": [NO_PASSWORD, KEYSEND],
        "bob": [NO_PASSWORD, KEYSEND],
        "carol": [NO_PASSWORD, KEYSEND],
        "dave": [NO_PASSWORD],
        "erin": [NO_PASSWORD, KEYSEND, "--keysend-hold-time=1h"],
    }
    with running(tmp_path_factory.mktemp("regtest"), nodes) as network:
        network.open_channels(("alice", "bob"), ("bob", "carol"), ("bob", "dave"), ("bob", "erin"))
        yield network


@pytest.fixture
def wall() -> Wall:
    return Wall()
