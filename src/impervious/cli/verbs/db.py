"""`impervious db`: what the database holds, forgetting, payments put aside, restored backups, and its password."""

import getpass
import json
import os
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Final

from impervious.cli import quarantine
from impervious.cli.client.lines import exact_sat, in_words
from impervious.cli.exits import OK, UsageError
from impervious.config import SAMPLE_PASSWORD
from impervious.config_file import Found, read_config
from impervious.store import history, log, maintenance, upkeep
from impervious.store.connection import locked
from impervious.store.maintenance import Size
from impervious.store.rekey import rekey
from impervious.store.transaction import Tx
from impervious.store.upkeep import DAY_MS, MIB, Summary
from impervious.units import Sat

NEW_PASSWORD: Final = "IMPERVIOUS_NEW_PASSWORD"
OLD_PASSWORD: Final = "IMPERVIOUS_OLD_PASSWORD"
"""Environment variables; a password on the command line could be read by every user of the machine."""


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="show|prune|quarantine|adopt|rekey")
    show = verbs.add_parser("show", help="what is stored, how large and how old it is; also while a daemon runs")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    prune = verbs.add_parser("prune", help="delete old events; also while a daemon runs")
    prune.add_argument("--days", type=int, metavar="N", help="those older (default: limits.events_days)")
    prune.add_argument("--mb", type=int, metavar="N", help="the oldest beyond this size (default: limits.events_mb)")
    prune.add_argument("--yes", action="store_true", help="do it; without this it only says what it would do")
    prune.add_argument("--json", action="store_true", help="print one JSON object")
    books = verbs.add_parser("adopt", help="after a restored backup: learn from LND what was paid; no daemon may run")
    books.description = (
        "After a backup of the database was restored: reads LND's payments since the backup, writes down which "
        "messages were sent, so that none of them is paid again, counts what they cost, and begins a new epoch, with "
        "seq numbers that no lost event has had. No daemon may run; LND must. Until this is done a daemon pays nothing "
        "if it sees that LND has paid for messages that the database does not know. Idempotency keys of the lost time "
        "cannot be found again: a call that is repeated with one of them is a new call."
    )
    books.add_argument("--dry-run", action="store_true", help="only say what it would do")
    books.add_argument(
        "--count-others",
        action="store_true",
        help="count payments that are no message's in the budget, too: of PayInvoice, SendKeysend and other programs",
    )
    books.add_argument("--json", action="store_true", help="print one JSON object")
    quarantine.add_parser(
        verbs.add_parser("quarantine", help="payments that came and are not shown; also while a daemon runs")
    )
    change = verbs.add_parser(
        "rekey",
        help="set, change or remove the password; no daemon may run",
        description="Sets, changes or removes the password. What opens the database now is sqlite3.password of the "
        f"configuration, or {OLD_PASSWORD}. The new one is asked for at a terminal, or comes from {NEW_PASSWORD} or a "
        "file. It can be killed at any moment: the database then has its old password or its new one.",
    )
    change.add_argument("--new-password-file", metavar="PATH", help="a file that holds the new one; - for stdin")
    change.add_argument("--old-password-file", metavar="PATH", help="a file that holds the present one")
    change.add_argument("--remove", action="store_true", help="have no password: the database is not encrypted then")
    for each in (show, prune, books, change):
        each.add_argument("--config", "-config", metavar="PATH", default=SUPPRESS, help="the configuration file")


def run(args: Namespace) -> int:
    """Do what is asked, and return the exit code."""
    found = read_config(args.config, needs_lnd=args.what == "adopt")
    match args.what:
        case "show":
            _show(found, as_json=args.json)
        case "prune":
            _prune(found, args)
        case "adopt":
            # Here, because the others need not load all that a daemon is made of.
            from impervious.cli import adopting

            adopting.run(found.config, args)
        case "quarantine":
            quarantine.run(args, found.config.store)
        case _:
            _rekey(found, args)
    return OK


# --- show -------------------------------------------------------------------------------------------------------------


def _show(found: Found, *, as_json: bool) -> None:
    path, password = found.config.store.path, found.config.store.password
    summary, size = maintenance.look(path, password, upkeep.summary)
    served, encrypted = maintenance.is_served(path), bool(password)
    if as_json:
        facts = {"path": str(path), "encrypted": encrypted, "served": served, **asdict(size), **asdict(summary)}
        print(json.dumps(facts))
        return
    print(
        f"{path}: {_mib(size.file_bytes)}, {'encrypted' if encrypted else 'not encrypted'}, "
        f"{'a daemon has it' if served else 'no daemon has it'}"
    )
    for name, text in _lines(summary, size, limit=found.config.lightning.daily_limit_sat):
        print(f"  {name:12}{text}")


def _lines(summary: Summary, size: Size, *, limit: Sat) -> Iterator[tuple[str, str]]:
    now_ms = time.time_ns() // 1_000_000

    def ago(at_ms: int | None) -> str:
        return "never" if at_ms is None else f"{in_words(timedelta(milliseconds=now_ms - at_ms))} ago"

    if size.free_bytes:
        yield "free", f"{_mib(size.free_bytes)} inside the file, filled again before it grows"
    if summary.events:
        kinds = ", ".join(f"{count:,} {name}" for name, count in summary.by_type.items())
        yield "events", f"{summary.events:,} ({kinds}), {_mib(summary.data_bytes)} of data"
        yield "seq", f"{summary.oldest_seq} to {summary.newest_seq}"
        yield "written", f"{ago(summary.oldest_at_ms)} to {ago(summary.newest_at_ms)}"
    else:
        yield "events", f"none kept; the last seq was {summary.newest_seq}" if summary.newest_seq else "none yet"
    since = f", the oldest accepted {ago(summary.unfinished_since_ms)}" if summary.unfinished_messages else ""
    yield "to send", f"{summary.unfinished_messages:,} messages neither delivered nor failed{since}"
    if summary.undelivered_debts:
        yield "owed", f"{summary.undelivered_debts:,} refunds or answers could not be delivered and are tried again"
    yield (
        "arriving",
        (
            f"{summary.incomplete_messages:,} lack parts, {summary.held_messages:,} wait for an earlier one, "
            f"{summary.quarantined:,} payments in quarantine"
        ),
    )
    yield "spent", f"{exact_sat(summary.spent_msat)} of {limit:,} sat in 24 hours, what may yet be spent included"
    for name, seq in summary.readers.items():
        yield "read", f"{name} has read up to seq {seq}"
    for name, value in summary.counters.items():
        yield "count", f"{name.replace('_', ' ')}: {value:,}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes" if size_bytes < MIB // 10 else f"{size_bytes / MIB:,.1f} MiB"


# --- prune ------------------------------------------------------------------------------------------------------------


def _prune(found: Found, args: Namespace) -> None:
    limits, store = found.config.limits, found.config.store
    named = args.days is not None or args.mb is not None
    days, mb = (args.days, args.mb) if named else (limits.events_days or None, limits.events_mb or None)
    if days is None and mb is None:
        raise UsageError("say what is to go: --days N, --mb N, or set limits.events_days or limits.events_mb")
    if (days is not None and days < 0) or (mb is not None and mb < 0):
        raise UsageError("--days and --mb are 0 or more")

    max_bytes = None if mb is None else mb * MIB

    def before_ms(tx: Tx) -> int | None:
        if days is None:
            return None
        # A clock that is ahead must not make all events old: at most a day has passed that the database knows not of.
        return min(tx.now_ms, history.newest_ms(tx) + DAY_MS) - days * DAY_MS

    def step(tx: Tx) -> int:
        return log.prune(tx, before_ms=before_ms(tx), max_bytes=max_bytes, limit=log.STEP_EVENTS)

    def count(tx: Tx) -> tuple[int, int]:
        return log.prunable(tx, before_ms=before_ms(tx), max_bytes=max_bytes), log.extent(tx).events

    if args.yes:
        removed = maintenance.change_in_steps(store.path, store.password, step)
        kept = maintenance.look(store.path, store.password, log.extent)[0].events
        shrunk = bool(removed) and maintenance.shrink(store.path, store.password)
    else:
        removed, events = maintenance.look(store.path, store.password, count)[0]
        kept, shrunk = events - removed, False
    if args.json:
        print(json.dumps({"removed": removed, "kept": kept, "done": args.yes, "shrunk": shrunk}))
    elif not args.yes:
        print(f"{removed:,} events would go and {kept:,} stay; --yes does it")
    else:
        print(f"{removed:,} events are gone and {kept:,} stay")
        if removed and not shrunk:
            print("the file keeps its size while a daemon has it; the space is used for new events")


# --- rekey ------------------------------------------------------------------------------------------------------------


def _rekey(found: Found, args: Namespace) -> None:
    store = found.config.store
    old = _old_password(args.old_password_file) or store.password
    with maintenance.existing(store.path), locked(store.path):
        pass  # before anybody is asked for a password
    new = _new_password(args)
    if new == (old or None):
        raise UsageError("that is the present password: nothing was changed")
    rekey(store.path, old, new)
    if new is None:
        print(f"{store.path} is not encrypted any more")
        if store.password:
            print(f"Now take sqlite3.password out of {found.path}, or the daemon cannot open it.")
        return
    print(f"{store.path} is encrypted with the new password")
    if store.password != new:
        print(
            f"Now put it at sqlite3.password in {found.path}, or into IMPERVIOUS_SQLITE3__PASSWORD, "
            "or the daemon cannot open it."
        )


def _old_password(file: str | None) -> str | None:
    return _password_in(file, "--old-password-file") if file else os.environ.get(OLD_PASSWORD)


def _new_password(args: Namespace) -> str | None:
    """Find the new password; None: there is to be none.

    Raises:
      UsageError: nobody gave one, or it protects nothing.
    """
    if args.remove:
        if args.new_password_file:
            raise UsageError("--remove and --new-password-file contradict each other")
        return None
    if args.new_password_file:
        new = _password_in(args.new_password_file, "--new-password-file")
    elif NEW_PASSWORD in os.environ:
        new = os.environ[NEW_PASSWORD]
    elif sys.stdin.isatty():
        new = getpass.getpass("New password: ")
        if new and getpass.getpass("Again: ") != new:
            raise UsageError("the two are not the same: nothing was changed")
    else:
        raise UsageError(f"give the new password in {NEW_PASSWORD} or with --new-password-file, or use --remove")
    if not new:
        raise UsageError("the new password is empty; --remove is how to have none")
    if new == SAMPLE_PASSWORD:
        raise UsageError("everybody knows the sample's password: choose another")
    if not new.isprintable():
        raise UsageError("the new password holds characters that cannot be printed: it could not be put into a file")
    return new


def _password_in(file: str, option: str) -> str:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {file}: cannot be read: {error}") from None
    return text.rstrip("\r\n")
