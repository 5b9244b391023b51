"""The verbs of the command line, without their code.

To add one: a row here, and a module `impervious.cli.verbs.<name>` with `add_parser` and `run`. It is imported when it
is called, so `impervious --help` costs what this table costs.
"""

import difflib
import importlib
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from typing import Final, Protocol, cast

from impervious.cli.exits import UsageError

DEFAULT: Final = "run"
"""What `impervious` does without a verb."""


class VerbModule(Protocol):
    """What a module in `impervious.cli.verbs` has."""

    def add_parser(self, parser: ArgumentParser) -> None:
        """Declare the verb's arguments on its own parser, which has --config already."""

    def run(self, args: Namespace) -> int:
        """Do it, and return the exit code. Errors of impervious.errors may pass: `exits` turns them into a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A row of `impervious --help`."""

    name: str
    group: str
    meaning: str
    """One line."""
    examples: tuple[str, ...] = ()

    def load(self) -> VerbModule:
        """Import its module."""
        return cast("VerbModule", importlib.import_module(f"impervious.cli.verbs.{self.name}"))


RUN: Final = "Run"
USE: Final = "Use a running daemon"
SET_UP: Final = "Set up"
TRY: Final = "Try it without a node of your own"
VPN: Final = "Tunnels"

VERBS: Final = (
    Verb(
        name="run",
        group=RUN,
        meaning="run the daemon (also without a verb)",
        examples=("impervious --config alice.yml",),
    ),
    Verb(
        name="send",
        group=USE,
        meaning="send a text, a file or standard input to another node",
        examples=("impervious send 02f6…9d @photo.jpg --wait",),
    ),
    Verb(
        name="tail",
        group=USE,
        meaning="show what happens on the node, one line an event",
        examples=("impervious tail --since 0 --type message",),
    ),
    Verb(
        name="init",
        group=SET_UP,
        meaning="write a first configuration file, with every setting explained",
        examples=("impervious init",),
    ),
    Verb(
        name="config",
        group=SET_UP,
        meaning="show the configuration in effect, or check whether it can work",
        examples=("impervious --config alice.yml config check",),
    ),
    Verb(
        name="db",
        group=SET_UP,
        meaning="look into the database: prune, rekey, quarantined payments, adopt a backup",
        examples=("impervious db prune --days 90 --yes",),
    ),
    Verb(
        name="demo",
        group=TRY,
        meaning="show two daemons that talk on a simulated network, and leave them running",
        examples=("impervious demo",),
    ),
    Verb(
        name="simnet",
        group=TRY,
        meaning="serve a simulated Lightning network, to run daemons on",
        examples=("impervious simnet --dir simnet", "impervious run --config simnet/alice/config.yml"),
    ),
    Verb(
        name="vpn",
        group=VPN,
        meaning="buy WireGuard tunnels from other nodes, and see whether this machine can sell them",
        examples=("impervious vpn buy 02f6…9d --hours 24 --max-price 2500", "sudo impervious vpn check"),
    ),
)
"""In the order of the help; verbs of one group stand together."""


def find(name: str) -> Verb:
    """Look a verb up.

    Raises:
      UsageError: there is none of that name.
    """
    for verb in VERBS:
        if verb.name == name:
            return verb
    near = difflib.get_close_matches(name, [verb.name for verb in VERBS], n=1)
    hint = f"did you mean {near[0]}?" if near else "`impervious --help` lists them"
    raise UsageError(f"there is no verb {name!r}; {hint}")
