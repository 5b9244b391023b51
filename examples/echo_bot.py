"""A bot that answers for money: who sends it a text with at least 10 sat gets the text back, shouted.

    python echo_bot.py config.yml

The node runs inside this program; no daemon and no port is needed. Nothing is answered twice and nothing forgotten,
whenever the program is killed: it starts again behind the last event it noted, and an answer's idempotency key is the
message's id, so that one more time costs nothing.
"""

import sys
from pathlib import Path

import trio

import impervious
from impervious.errors import CallerError, ImperviousError
from impervious.model import Event, EventKind
from impervious.units import Sat, msat

PRICE = msat(Sat(10))


class EchoBot:
    """Answers messages through a node."""

    def __init__(self, node: impervious.Node, notes: Path) -> None:
        self.node = node
        self.notes = notes

    async def run(self) -> None:
        """Answer for ever."""
        me = await self.node.wait_ready()
        print("send 10 sat and a text to", me.pubkey, flush=True)
        done = int(self.notes.read_text()) if self.notes.exists() else 0
        async with self.node.events(since=done) as events:
            async for event in events:
                if event.kind is EventKind.MESSAGE and event.sender is not None:
                    await self.answer(event)
                self.note(event.seq)

    async def answer(self, event: Event) -> None:
        """Answer one message, if it was paid for: an answer costs us what it carries, and the fee."""
        assert event.sender is not None
        if event.amount < PRICE:
            print("too little for", event.id, flush=True)
            return
        text = event.data.decode(errors="replace").upper()
        try:
            await self.node.messages.send(event.sender, text, reply_to=event.id, idempotency_key=f"echo {event.id}")
        except CallerError as error:  # it can never be sent: our budget is spent, or the text is too long
            print("no answer to", event.id, error, flush=True)
        else:
            print("answered", event.id, flush=True)

    def note(self, seq: int) -> None:
        """Remember what is done, in one step: a half-written note would be worse than none."""
        new = self.notes.with_suffix(".new")
        new.write_text(str(seq))
        new.replace(self.notes)


async def main(path: str) -> None:
    """Run a node, and the bot on it."""
    config = impervious.read_config(path).config
    async with impervious.open_node(config) as node:
        await EchoBot(node, config.store.path.with_name("echo.seq")).run()


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1])
    except* ImperviousError as group:
        sys.exit(str(group.exceptions[0]))
    except* KeyboardInterrupt:
        pass
