"""`impervious simnet`: a simulated Lightning network for daemons of other processes."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from impervious.cli.exits import OK
from impervious.cli.numbers import milliseconds, port_base
from impervious.cli.simnet.layout import DEFAULT_BASE, STRIDE
from impervious.cli.simnet.serving import DEFAULT_NODES, SimnetOptions, open_simnet
from impervious.cli.simnet.shown import lines, summary
from impervious.cli.stopping import stopped_by_signals, told
from impervious.config import LogConfig
from impervious.logs import configure
from impervious.sim import DEFAULT_LATENCY_S


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--dir", required=True, type=Path, metavar="DIR", help="where everything is kept; made if it is not there"
    )
    parser.add_argument(
        "--nodes",
        type=_listed,
        default=(),
        metavar="NAMES",
        help=f"nodes that must be there (default: those in DIR, else {','.join(DEFAULT_NODES)})",
    )
    parser.add_argument(
        "--channels",
        type=_listed,
        default=(),
        metavar="CHANNELS",
        help="channels that must be there, as alice-bob:1000000 (satoshis, half on each side) or "
        "alice-bob:1000000:700000 (alice's share), separated by commas (default: from each of NAMES to the next)",
    )
    parser.add_argument(
        "--port-base",
        type=port_base,
        metavar="P",
        help=f"first of {STRIDE} ports for each node: its daemon's gRPC P, HTTP P+1, text P+2, its LND P+9 "
        f"(default: as in DIR, else {DEFAULT_BASE})",
    )
    parser.add_argument(
        "--latency",
        type=milliseconds,
        metavar="MS",
        help="what a payment takes per hop; 0 settles at once (default: "
        f"{DEFAULT_LATENCY_S[0] * 1e3:g} to {DEFAULT_LATENCY_S[1] * 1e3:g}, at random)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object when it is ready")


def run(args: Namespace) -> int:
    """Serve until told to stop, and return the exit code."""
    configure(LogConfig(level="warning"), sys.stderr, environ=os.environ)
    options = SimnetOptions(folder=args.dir, nodes=args.nodes, channels=args.channels, port_base=args.port_base)
    if args.latency is not None:
        options = replace(options, latency_s=(args.latency, args.latency))
    trio.run(partial(_serve, options, as_json=args.json))
    return OK


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


async def _serve(options: SimnetOptions, *, as_json: bool) -> None:
    async with stopped_by_signals() as closing, open_simnet(options) as simnet:
        for problem in (problem for setup in simnet.setups.values() for problem in setup.problems):
            print(f"warning: {problem}", file=sys.stderr)
        print(json.dumps(summary(simnet)) if as_json else "\n".join(lines(simnet)), flush=True)
        await told(closing)
