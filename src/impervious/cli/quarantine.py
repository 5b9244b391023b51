"""`impervious db quarantine`: payments that came and are not shown as what they claim to be."""

import json
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from datetime import timedelta

from impervious.cli.client.lines import exact_sat, in_words
from impervious.cli.exits import UsageError
from impervious.config import StoreConfig
from impervious.store import maintenance, quarantine
from impervious.store.quarantine import Quarantined

MAX_LIST = 1000


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="quarantine", required=True, metavar="list|show|release")
    listing = verbs.add_parser("list", help="the newest, with the reason of each")
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default: 100)")
    show = verbs.add_parser("show", help="one, with its bytes")
    show.add_argument("number", type=int, help="from the list, the event or the daemon's log")
    release = verbs.add_parser(
        "release",
        help="show some as events after all",
        description="The daemon reads such a payment again: if the reason is gone (message.accept_unsigned is on, or"
        " the service was switched on), it is shown as it would have been. Otherwise what it says is shown as a message"
        " that nobody proved to have sent, on streams with v=2. Each is released once.",
    )
    release.add_argument("number", type=int, nargs="+", help="from the list")
    for each in (listing, show, release):
        each.add_argument("--json", action="store_true", help="print JSON")
        each.add_argument("--config", "-config", metavar="PATH", default=SUPPRESS, help="the configuration file")


def run(args: Namespace, store: StoreConfig) -> None:
    """Do what is asked.

    Raises:
      NotFound: there is no such payment.
      UsageError: a number is out of range.
    """
    match args.quarantine:
        case "list":
            _list(args, store)
        case "show":
            _show(args, store)
        case _:
            _release(args, store)


def _list(args: Namespace, store: StoreConfig) -> None:
    if not 1 <= args.limit <= MAX_LIST:
        raise UsageError(f"--limit is between 1 and {MAX_LIST}")
    found, _ = maintenance.look(store.path, store.password, lambda tx: quarantine.newest(tx, limit=args.limit))
    if args.json:
        print(json.dumps([_shape(each) for each in found]))
    elif not found:
        print("nothing is in quarantine")
    for each in () if args.json else found:
        print(f"{each.number:6}  {_ago(each)}  {exact_sat(each.amount)} sat  {_kind(each)}  {each.reason}")


def _show(args: Namespace, store: StoreConfig) -> None:
    each, _ = maintenance.look(store.path, store.password, lambda tx: quarantine.find(tx, args.number))
    if args.json:
        print(json.dumps(_shape(each) | {"value": each.value.hex()}))
        return
    print(f"payment {each.number} in quarantine, {_ago(each)}: {each.reason}")
    print(f"  amount      {exact_sat(each.amount)} sat")
    print(f"  hash        {each.payment_hash.hex()}")
    print(f"  for         {_kind(each)}")
    if each.sender is not None:
        print(f"  sender      {each.sender}")
    print(f"  bytes       {len(each.value):,}")
    print(f"  hex         {each.value.hex()}")
    print(f"  text        {json.dumps(each.value.decode('utf-8', 'replace'))}")


def _release(args: Namespace, store: StoreConfig) -> None:
    maintenance.change(store.path, store.password, lambda tx: quarantine.want(tx, args.number), keep=True)
    served = maintenance.is_served(store.path)
    if args.json:
        print(json.dumps({"releasing": args.number, "served": served}))
    else:
        when = "within seconds" if served else "when it starts"
        print(f"the daemon releases {', '.join(map(str, args.number))} {when}; the events are on streams with v=2")


def _shape(each: Quarantined) -> dict[str, object]:
    return {
        "number": each.number,
        "at_ms": each.at_ms,
        "reason": each.reason,
        "amount_msat": each.amount,
        "payment_hash": each.payment_hash.hex(),
        "service": each.service_type,
        "record_type": each.record_type,
        "sender": each.sender.hex if each.sender else None,
        "id": str(each.message_id) if each.message_id else None,
        "bytes": len(each.value),
    }


def _kind(each: Quarantined) -> str:
    return each.service_type or "no service"


def _ago(each: Quarantined) -> str:
    return f"{in_words(timedelta(milliseconds=max(0, time.time_ns() // 1_000_000 - each.at_ms)))} ago"
