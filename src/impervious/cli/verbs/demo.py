"""`impervious demo`: two daemons that talk, on a simulated network, with nothing to set up."""

import os
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

import trio

from impervious import logs
from impervious.cli.demo.facts import Stopping, Tell, TourEnded
from impervious.cli.demo.stage import open_stage
from impervious.cli.demo.tour import TOUR, run_tour
from impervious.cli.demo.views import choose
from impervious.cli.exits import INTERRUPTED, OK
from impervious.cli.numbers import port_base
from impervious.cli.simnet.layout import DEFAULT_BASE
from impervious.cli.stopping import stopped_by_signals, told
from impervious.config import LogConfig


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--once", action="store_true", help="end after the tour: exit code 0 if everything arrived, else not 0"
    )
    parser.add_argument(
        "--port-base",
        type=partial(port_base, lowest=0),
        default=DEFAULT_BASE,
        metavar="P",
        help="where the daemons listen: alice's gRPC P, HTTP P+1, text P+2, carol's P+10 to P+12; 0: any free ports "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for everything that happens")


def run(args: Namespace) -> int:
    """Give the tour, and serve until told to stop; return the exit code."""
    began = time.monotonic()
    logs.configure(LogConfig(level="warning"), sys.stderr, environ=os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="impervious-demo-") as folder,
        choose(sys.stdout, os.environ, as_json=args.json) as show,
    ):
        play = partial(_play, Path(folder), show, began_s=began, once=args.once, port_base=args.port_base)
        return trio.run(play)


async def _play(folder: Path, show: Tell, *, began_s: float, once: bool, port_base: int) -> int:
    def seconds() -> float:
        return time.monotonic() - began_s

    async with (
        stopped_by_signals() as closing,
        open_stage(folder, show, port_base=port_base, seconds=seconds) as stage,
    ):
        finished = False
        with closing.wait():
            tour_began_s = seconds()
            await run_tour(stage, TOUR)
            show(TourEnded(steps=len(TOUR), seconds=seconds() - tour_began_s, goes_on=not once))
            finished = True
        if not once:
            await told(closing)
        if closing.begun:
            show(Stopping())
        return OK if finished or not once else INTERRUPTED
