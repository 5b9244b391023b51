"""`impervious tail`: what happens on a node, one line an event, for as long as somebody looks."""

import io
import os
import select
import shutil
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Final, NoReturn

import trio

from impervious.background import background
from impervious.cli.client.door import Door, add_door_arguments, find_door
from impervious.cli.client.follow import Watched, follow
from impervious.cli.client.lines import Look
from impervious.cli.exits import OK, UsageError
from impervious.cli.nodes import node_named

LOOK_EVERY_S: Final = 1.0
"""How often it is seen whether anybody still reads: without events nothing is written that could fail."""


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_door_arguments(parser)
    parser.add_argument("--since", type=int, metavar="SEQ", help="begin behind this event; 0: everything kept")
    parser.add_argument(
        "--type", action="append", default=[], metavar="TYPE", help="only this service, or status; can be repeated"
    )
    parser.add_argument(
        "--from",
        action="append",
        default=[],
        dest="senders",
        metavar="PUBKEY",
        help="only this node, its key or @ and a peer's imp id; can be repeated",
    )
    parser.add_argument("--full", action="store_true", help="show data whole, however long")
    parser.add_argument("--json", action="store_true", help="print each event as one JSON object, its data in base64")
    parser.add_argument("--retry", action="store_true", help="wait for a daemon that cannot be reached yet")
    parser.epilog = (
        "After a disconnect it goes on where it was, by seq: nothing is lost and nothing shown twice. "
        "Disconnects are told on stderr."
    )


def run(args: Namespace) -> int:
    """Follow until interrupted, or until nobody reads any more."""
    watched = Watched(
        since=_since(args.since),
        service_types=tuple(args.type),
        senders=tuple(node_named(each, f"--from {each}") for each in args.senders),
    )
    look = None if args.json else _look(full=args.full)
    trio.run(_tail, find_door(args), watched, look, args.retry)
    return OK


async def _tail(door: Door, watched: Watched, look: Look | None, patient: bool) -> None:
    with trio.CancelScope() as reading:
        async with (
            follow(door, watched, say=_say, patient=patient) as events,
            background(partial(_leave_with_reader, reading)),
        ):
            async for event in events:
                print(event.json if look is None else look.line(event), flush=True)
    raise BrokenPipeError  # as a write would


async def _leave_with_reader(reading: trio.CancelScope) -> NoReturn:
    while True:
        if _reader_has_gone():
            reading.cancel()
        await trio.sleep(LOOK_EVERY_S)


def _reader_has_gone() -> bool:
    if sys.stdout is None:  # closed before we started
        return True
    try:
        descriptor = sys.stdout.fileno()
    except (io.UnsupportedOperation, ValueError):
        return False
    poller = select.poll()
    poller.register(descriptor, 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poller.poll(0))


def _say(line: str) -> None:
    print(f"impervious: {line}", file=sys.stderr, flush=True)


def _look(*, full: bool) -> Look:
    terminal = sys.stdout is not None and sys.stdout.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size().columns if terminal else 200
    return Look(colours=colours, width=None if full else width)


def _since(since: int | None) -> int | None:
    if since is not None and since < 0:
        raise UsageError("--since is the seq of an event, or 0 for everything kept")
    return since
