"""The tour: what is shown, one step after the other.

To add a step: a coroutine of its own in `steps`, that takes the stage and raises `DemoFailed` if something did not
happen, and a row here.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from impervious.cli.demo.facts import StepBegan, StepEnded
from impervious.cli.demo.stage import DemoFailed, Stage
from impervious.cli.demo.steps import federate, lightning, message, sign, socket
from impervious.errors import ImperviousError

WITHIN_S: Final = 60.0
"""A step takes a second or two; this is for machines that are very busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is shown."""

    name: str
    title: str
    run: Callable[[Stage], Awaitable[None]]


TOUR: Final = (
    Step(
        name="message",
        title="alice sends carol a short message; they have no channel, so the payment that carries it goes by bob",
        run=message.short,
    ),
    Step(name="reply", title="carol replies", run=message.reply),
    Step(name="large", title="alice sends carol 100 KB, in parts that overlap", run=message.large),
    Step(name="sign", title="alice signs a text with her node's key, and carol checks it", run=sign.sign_and_verify),
    Step(name="federate", title="alice and carol federate: a name does for a key", run=federate.federate),
    Step(name="invoice", title="carol makes an invoice, alice pays it, and both see it", run=lightning.invoice),
    Step(name="socket", title="two programs talk through a UDP relay of alice's", run=socket.relay),
)


async def run_tour(stage: Stage, steps: Sequence[Step], *, within_s: float = WITHIN_S) -> None:
    """Take every step.

    Args:
      stage: what it plays on; told how it goes.
      steps: what to show.
      within_s: how long each may take.

    Raises:
      DemoFailed: something that must work did not; says in which step.
    """
    for number, step in enumerate(steps, start=1):
        stage.tell(StepBegan(name=step.name, title=step.title, number=number, steps=len(steps)))
        began = trio.current_time()
        try:
            with trio.fail_after(within_s):
                await step.run(stage)
        except trio.TooSlowError as error:
            raise DemoFailed(f"step {step.name!r}: it was not done after {within_s:.0f} s") from error
        except ImperviousError as error:
            raise DemoFailed(f"step {step.name!r}: {error}") from error
        stage.tell(StepEnded(name=step.name, seconds=trio.current_time() - began))
