from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from impervious.cli.client.answers import DaemonRefused
from impervious.cli.demo.facts import Fact, StepBegan, StepEnded
from impervious.cli.demo.stage import DemoFailed, Stage
from impervious.cli.demo.tour import TOUR, Step, run_tour


class Heard(list[Fact]):
    @property
    def stage(self) -> Stage:
        return cast("Stage", SimpleNamespace(tell=self.append))


async def fine(stage: Stage) -> None:
    await trio.sleep(2)


async def never(stage: Stage) -> None:
    await trio.sleep_forever()


async def refused(stage: Stage) -> None:
    await trio.lowlevel.checkpoint()
    raise DaemonRefused("msg is empty", code=3)


async def changed(stage: Stage) -> None:
    await trio.lowlevel.checkpoint()
    raise DemoFailed("something else arrived")


async def broken(stage: Stage) -> None:
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError


def steps(*runs: Any) -> tuple[Step, ...]:
    return tuple(Step(name=run.__name__, title=f"the {run.__name__} one", run=run) for run in runs)


async def test_steps_are_taken_in_order(autojump_clock: trio.testing.MockClock) -> None:
    heard = Heard()
    await run_tour(heard.stage, steps(fine, fine))
    assert heard == [
        StepBegan(name="fine", title="the fine one", number=1, steps=2),
        StepEnded(name="fine", seconds=2),
        StepBegan(name="fine", title="the fine one", number=2, steps=2),
        StepEnded(name="fine", seconds=2),
    ]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (never, "step 'never': it was not done after 60 s"),
        (refused, "step 'refused': msg is empty"),
        (changed, "step 'changed': something else arrived"),
    ],
)
async def test_what_did_not_work_ends_the_tour(run: Any, says: str, autojump_clock: trio.testing.MockClock) -> None:
    heard = Heard()
    with pytest.raises(DemoFailed, match=f"^{says}$"):
        await run_tour(heard.stage, steps(fine, run, fine))
    assert sum(isinstance(fact, StepBegan) for fact in heard) == 2


async def test_a_bug_is_a_bug(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        await run_tour(Heard().stage, steps(broken))


def test_names_are_unique() -> None:
    assert len({step.name for step in TOUR}) == len(TOUR)
