"""Runs benchmarks by name, or all of them: `python -m benchmarks [NAME…] [--rounds N] [--seconds S]`.

A benchmark is a function `run(options) -> None` in a module of this folder; it prints a table with our number beside
its rival's, both measured in the same run and taking turns, because machines are noisy. To add one, add a line to
BENCHMARKS.
"""

import argparse
import importlib
from typing import Final

from .options import Options

BENCHMARKS: Final = {
    "rpc": "benchmarks.rpc",
    "fanout": "benchmarks.fanout",
    "relay": "benchmarks.relay",
    "walk": "benchmarks.walk",
    "invoices": "benchmarks.invoices",
    "vpn": "benchmarks.vpn",
}
"""Name -> module with a function `run(options)`."""


def main() -> None:
    """Parse the command line and run what it names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with the alternatives.")
    parser.add_argument("name", nargs="*", choices=[[], *BENCHMARKS], help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="how often the contestants take turns (medians count)")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of each measurement")
    arguments = parser.parse_args()
    options = Options(rounds=arguments.rounds, seconds=arguments.seconds)
    for name in arguments.name or BENCHMARKS:
        importlib.import_module(BENCHMARKS[name]).run(options)


if __name__ == "__main__":
    main()
