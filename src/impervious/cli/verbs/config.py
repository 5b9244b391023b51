"""`impervious config`: what is in effect, and whether it can work."""

import json
from argparse import ArgumentParser, Namespace

from impervious.cli.exits import OK, exit_code
from impervious.config import Config, effective, show
from impervious.config_file import read_config
from impervious.errors import ConfigError, StoreError


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "what",
        choices=("show", "check"),
        help="show: print every setting in effect, file and environment taken together, with secrets hidden; "
        "check: say whether the daemon could start with it, and what it would warn about",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    """Show or check, and return the exit code."""
    return _show(args.config, as_json=args.json) if args.what == "show" else _check(args.config, as_json=args.json)


def _show(named: str | None, *, as_json: bool) -> int:
    found = read_config(named, needs_lnd=False)
    if as_json:
        print(json.dumps(effective(found.config)))
    else:
        print(f"# {found.path} and the environment\n{show(found.config)}", end="")
    return OK


def _check(named: str | None, *, as_json: bool) -> int:
    try:
        found = read_config(named)
        _check_the_rest(found.config)
    except (ConfigError, StoreError) as error:
        if not as_json:
            raise
        print(json.dumps({"ok": False, "error": str(error)}))
        return exit_code(error)
    if as_json:
        print(json.dumps({"ok": True, "file": str(found.path), "warnings": found.warnings}))
        return OK
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(f"{found.path}: ok")
    return OK


def _check_the_rest(config: Config) -> None:
    """Look for the services and at the database, as the daemon does when it starts."""
    # Here, because `config show` need not load them.
    from impervious.service.discovery import find_services, with_entries
    from impervious.services.built_in import BUILT_IN
    from impervious.store.connection import check_database

    with_entries(config, find_services(BUILT_IN, ()))
    check_database(config.store.path, config.store.password)
