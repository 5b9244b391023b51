"""Messages: sent at one node's HTTP door, seen on the other's websocket."""

import json
from functools import partial
from typing import Final, NoReturn

import trio

from impervious.background import background
from impervious.cli.demo.facts import Progressed, Sent, shortened
from impervious.cli.demo.inbox import STATUS, Arrival
from impervious.cli.demo.stage import DemoFailed, Host, Stage

QUESTION: Final = "Hello carol, can you hear me over Lightning?"
ANSWER: Final = "Loud and clear, alice. That reply cost me a satoshi."
LARGE_BYTES: Final = 100_000
POLL_S: Final = 0.05
"""How often the progress of a large message is looked at."""

ENDS: Final = ("delivered", "failed")
"""States of a message that has ended; it may be told before that it waits."""


async def short(stage: Stage) -> None:
    """Alice asks."""
    await deliver(stage, stage.alice, stage.carol, QUESTION)


async def reply(stage: Stage) -> None:
    """Carol answers what she saw last."""
    asked = stage.carol.inbox.latest("message")
    if asked is None:
        raise DemoFailed("carol has seen no message that she could reply to")
    await deliver(stage, stage.carol, stage.alice, ANSWER, reply_to=asked.id)


async def large(stage: Stage) -> None:
    """Alice sends what takes many payments."""
    text = _lines(LARGE_BYTES)
    async with background(partial(_tell_progress, stage, stage.carol, stage.alice.node.messages.minimum(len(text)))):
        await deliver(stage, stage.alice, stage.carol, text)


async def deliver(stage: Stage, sender: Host, recipient: Host, text: str, *, reply_to: str = "", to: str = "") -> None:
    """Send a text through the sender's door, and wait until both ends have shown what they must.

    Args:
      stage: told of it.
      sender: where it is sent.
      recipient: where it must arrive.
      text: what it says.
      reply_to: the id of what it answers.
      to: how the recipient is addressed, if not by its key.

    Raises:
      DemoFailed: it arrived changed, or the sender could not deliver it.
    """
    body = {"pubkey": to or recipient.pubkey, "text": text, "replyToId": reply_to}
    answer = await sender.post("/v1/message/send", dict(body))
    sent = str(answer["id"])
    data = text.encode()
    stage.tell(Sent(by=sender.name, to=recipient.name, id=sent, size=len(data), text=shortened(data)))
    outcome = await sender.inbox.wait_for(lambda arrival: _is_outcome(arrival, sent))
    told = json.loads(outcome.data)
    if told["state"] != "delivered":
        raise DemoFailed(f"{sender.name} could not deliver it: {told.get('reason', told['state'])}")
    arrived = await recipient.inbox.wait_for(lambda arrival: arrival.id == sent)
    if (arrived.data, arrived.from_pubkey, arrived.reply_to) != (data, sender.pubkey, reply_to):
        raise DemoFailed(f"{recipient.name} saw something else than {sender.name} sent: {_described(arrived)}")


def _is_outcome(arrival: Arrival, sent: str) -> bool:
    return (arrival.id, arrival.service) == (sent, STATUS) and json.loads(arrival.data)["state"] in ENDS


def _described(arrival: Arrival) -> str:
    return f"{len(arrival.data)} bytes from {arrival.from_pubkey}, a reply to {arrival.reply_to or 'nothing'}"


async def _tell_progress(stage: Stage, recipient: Host, parts: int) -> NoReturn:
    """Tell how many of a message's payments have settled at its recipient."""
    before, told = stage.settled_at(recipient), -1
    while True:
        settled = stage.settled_at(recipient) - before
        if settled != told:
            stage.tell(Progressed(to=recipient.name, settled=settled, parts=max(parts, settled)))
            told = settled
        await trio.sleep(POLL_S)


def _lines(size: int) -> str:
    """Make a text of that many bytes in which every line is different, so that a part in the wrong place shows."""
    text = "".join(f"{number:06} the quick brown fox jumps over the lazy dog\n" for number in range(size // 40))
    return text[:size]
