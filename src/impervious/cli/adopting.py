"""`impervious db adopt`: a database restored from a backup learns what the Lightning node has paid for since."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Final

import trio

from impervious.adoption import Adoption, adopt, read_books
from impervious.cli.client.lines import exact_sat
from impervious.clock import NodeClock
from impervious.config import Config
from impervious.errors import ConfigError, NodeUnavailable
from impervious.node import LightningNode
from impervious.service.discovery import find_services, with_entries
from impervious.services.built_in import BUILT_IN
from impervious.store import Store, Tx, history, open_store
from impervious.supervisor import check_identity, record_types, send_policy

READY_S: Final = 30.0
"""How long LND may take to be ready."""
ROUTES_S: Final = 60
"""How long payments are waited for that no route carries yet: LND finds a first one, or none, within seconds."""


def run(config: Config, args: Namespace) -> None:
    """Do it, and say what was done.

    Raises:
      StoreLocked: a daemon runs.
      NodeUnavailable: LND is not ready; says why.
      ConfigError: the database is another node's, or this machine's clock is wrong.
    """
    tell = (lambda _: None) if args.json else partial(print, file=sys.stderr, flush=True)
    found = trio.run(partial(_adopt, config, dry_run=args.dry_run, count_others=args.count_others, tell=tell))
    if args.json:
        print(json.dumps({"done": not args.dry_run, **asdict(found)}))
        return
    print("this would be done; nothing was changed" if args.dry_run else "done; the daemon can be started")
    for line in _lines(found):
        print(f"  {line}")


class _OnlyLookedError(Exception):
    """Undoes what was done to see what would be done."""

    def __init__(self, found: Adoption) -> None:
        super().__init__()
        self.found = found


async def _adopt(config: Config, *, dry_run: bool, count_others: bool, tell: Callable[[str], None]) -> Adoption:
    path = config.store.path.expanduser()
    if not path.exists():
        raise ConfigError(f"sqlite3.path: there is no database at {path}: restore the backup first")
    # Here, because a caller of `adopt_into` that brings its own node need not load LND's messages.
    from impervious.lnd import LIGHTNING_NODE, open_lnd

    config = with_entries(config, find_services(BUILT_IN, ()))
    async with (
        open_store(path, config.store.password) as store,
        open_lnd(config.lightning.lnd, requires=LIGHTNING_NODE) as node,
    ):
        return await adopt_into(store, node, config, dry_run=dry_run, count_others=count_others, tell=tell)


async def adopt_into(
    store: Store,
    node: LightningNode,
    config: Config,
    *,
    dry_run: bool = False,
    count_others: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Adoption:
    """Adopt what a node has paid for into an open database.

    Args:
      store: the database; nothing else uses it.
      node: the Lightning node.
      config: the daemon's, with an entry for each of its services.
      dry_run: whether to undo it all.
      count_others: whether payments that are no message's count in the budget, too.
      tell: gets a line for the operator if this waits.

    Raises: as `run`.
    """
    with trio.move_on_after(READY_S) as waiting:
        info = await node.wait_ready()
    if waiting.cancelled_caught:
        raise NodeUnavailable(node.status.reason)
    clock = NodeClock(store.now_ms, trio.current_time)
    clock.compare(info.chain_time_s)
    if clock.problem:
        raise ConfigError(clock.problem)

    def known(tx: Tx) -> history.Mark:
        check_identity(tx, info.pubkey)
        return history.mark(tx, kept_days=config.limits.idempotency_days) or history.Mark()

    mark = await store.read(known)
    policy = send_policy(config)
    for waited_s in range(ROUTES_S + 1):
        books = await read_books(node, mark, own=info.pubkey, services=record_types(config))
        if not books.unreadable:
            break
        if waited_s == 0:
            tell(
                f"waiting for at most {ROUTES_S} s: LND looks for routes for {books.unreadable} payments, and does not"
                " say before what they are for"
            )
        elif waited_s == ROUTES_S:
            tell(f"{books.unreadable} payments still have no route, and are taken for those of other programs")
        await trio.sleep(1)

    def write(tx: Tx) -> Adoption:
        found = adopt(tx, books, policy, own=info.pubkey, count_others=count_others)
        if dry_run:
            raise _OnlyLookedError(found)
        return found

    try:
        return await store.write(write)
    except _OnlyLookedError as looked:
        return looked.found


def _lines(found: Adoption) -> Iterator[str]:
    yield f"{found.messages:,} messages that were not known, sent with {found.payments:,} payments"
    if found.incomplete:
        yield f"  {found.incomplete:,} of them only in part: the rest is lost, and they end as failed"
    yield f"{found.queued_delivered:,} queued messages had been sent already, and end as delivered"
    if found.queued_shortened:
        yield f"{found.queued_shortened:,} queued messages had been sent in part, and go on from there"
    if found.under_way:
        yield f"{found.under_way:,} messages have payments that LND has not ended: the daemon follows them"
    if found.answers:
        yield f"{found.answers:,} queued answers had been given already"
    yield f"{exact_sat(found.spent_msat)} sat of it spent in the last 24 hours, and counted"
    counted = "counted, too" if found.others_counted else "not counted; --count-others does"
    yield (
        f"{found.other_payments:,} other payments of {exact_sat(found.other_msat)} sat in the last 24 hours, by"
        f" PayInvoice, SendKeysend or other programs: {counted}"
    )
    yield f"epoch {found.epoch}; events go on with seq {found.next_seq}"
