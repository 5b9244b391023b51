import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from impervious.cli.stopping import SIGNALS, stopped_by_signals, told


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_first_signal_ends_what_waits_and_cancels_nothing(number: signal.Signals) -> None:
    went_on = False
    async with stopped_by_signals() as closing:
        os.kill(os.getpid(), number)
        with trio.fail_after(5):
            await told(closing)
        await trio.lowlevel.checkpoint()
        went_on = True
    assert went_on


async def test_a_block_that_ends_by_itself_gives_the_signals_back() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    async with stopped_by_signals() as closing:
        assert [signal.getsignal(each) for each in SIGNALS] != before
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert not closing.begun


async def test_cancelled_from_outside_signals_are_taken_until_the_block_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with trio.move_on_after(1) as scope:
        async with stopped_by_signals() as closing:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    assert [signal.getsignal(each) for each in SIGNALS] != before
                    os.kill(os.getpid(), signal.SIGTERM)
                    await told(closing)
    assert scope.cancelled_caught
    assert closing.begun


@pytest.mark.parametrize("error", [ValueError("body"), ExceptionGroup("its own", [KeyError()]), SystemExit(3)])
async def test_what_the_block_raises_comes_out_as_it_went_in(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with stopped_by_signals():
            raise error
    assert caught.value is error


@pytest.mark.slow
@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_ends_the_process(second: signal.Signals) -> None:
    program = f"""
import os, signal, trio
from impervious.cli.stopping import stopped_by_signals, told
async def main():
    async with stopped_by_signals() as closing:
        os.kill(os.getpid(), signal.SIGTERM)
        await told(closing)
        os.kill(os.getpid(), {second})
        await trio.sleep(50)
trio.run(main)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=40, check=False)
    assert ended.returncode == -second
