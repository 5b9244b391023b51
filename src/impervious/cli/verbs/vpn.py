"""`impervious vpn`: what an operator does about tunnels."""

import json
import os
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import trio

from impervious.cli.exits import OK, USAGE
from impervious.config_file import Found, read_config
from impervious.model import ServiceType
from impervious.wireguard.check import Finding, bad, check

_SERVICE: Final = ServiceType("vpn")
_SETTING: Final = "vpn:"
"""How a cure begins that belongs into the configuration file; the others are commands."""


def add_parser(parser: ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    looking = actions.add_parser(
        "check",
        help="say whether this machine can sell tunnels, and give the command for whatever it lacks",
        description="Look at the WireGuard interface, forwarding and the firewall, changing nothing. "
        "Only root can see everything. Exit code 2: something must be put right before anything is sold.",
        allow_abbrev=False,
    )
    # Where one writes it last, too; without a default, which would win over what stands before the action.
    looking.add_argument("--config", "-config", metavar="PATH", default=SUPPRESS, help="the configuration file")
    looking.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    """Do it, and return the exit code."""
    return _check(args.config, as_json=args.json)


def _check(named: str | None, *, as_json: bool) -> int:
    found = read_config(named, needs_lnd=False)
    findings = [*_switched_off(found), *trio.run(partial(check, found.config.vpn))]
    wrong = sum(finding.is_bad for finding in findings)
    if as_json:
        rows = [{**asdict(finding), "state": finding.state.value} for finding in findings]
        print(json.dumps({"ok": not wrong, "file": str(found.path), "findings": rows}))
    else:
        print("\n".join((*_lines(findings, found.path), _verdict(findings, wrong))))
    return USAGE if wrong else OK


def _switched_off(found: Found) -> Iterator[Finding]:
    if not found.config.service(_SERVICE).active:
        says = "the vpn service is switched off in service_list: nothing is sold; set its `active` to true"
        yield bad("service", says)


def _lines(findings: Iterable[Finding], path: Path) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.state.value:8} {finding.name}: {finding.says}"
        if finding.fix:
            where = f"in {path}:" if finding.fix.startswith(_SETTING) else "run:"
            yield f"{'':8} {where} {finding.fix}"


def _verdict(findings: Iterable[Finding], wrong: int) -> str:
    unseen = sum(finding.is_unknown for finding in findings)
    hint = "; root sees more" if os.geteuid() else ""
    unsure = f" ({unseen} could not be judged{hint})" if unseen else ""
    if wrong:
        return f"\nThis machine cannot sell yet: {wrong} wrong, to be put right from the top; then check again{unsure}."
    return f"\nThis machine can sell{unsure}."
