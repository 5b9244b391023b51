"""A simulated network's state in a folder: one SQLite file, one row for each thing, written as it changes.

A row is a JSON text. What one step of the network touches is one transaction, so whatever is found after a crash is a
state that the network was in, with every msat in one place. The file holds the nodes' secret keys.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from impervious.errors import StoreError, StoreLocked
from impervious.model import PaymentHash
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.identity import Identity
from impervious.sim.engine.invoices import Backend, Invoice
from impervious.sim.engine.payments import SimPayment
from impervious.sim.engine.world import Flight, Forward, Node, Touched, World
from impervious.sim.rows import from_text, to_text

FILE: Final = "network.db"
VERSION: Final = 1
"""PRAGMA user_version: another number is another layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """What is kept of a node besides its invoices and payments."""

    name: str
    secret: bytes
    accepts_keysend: bool
    keysend_hold_s: float
    backend: Backend
    added: int
    settled: int
    started: int
    """The last payment_index."""
    addresses: int = 0


class StateFolder:
    """The open file. Use it as a context manager.

    Raises:
      StoreLocked: another network has it open.
      StoreError: it is not a network's file, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / FILE
        if not self._path.exists():  # else closing it would drop the locks of another network in this process
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, 0o600))
        self._file = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._file.close()
            if "locked" in str(error):
                raise StoreLocked(f"{self._path} is in use: another simulated network runs in this folder") from error
            raise StoreError(f"{self._path} cannot be read: {error}. Move it away to begin anew") from error
        except StoreError:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _prepare(self) -> None:
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE").close()
        with closing(self._file.execute("PRAGMA user_version")) as rows:
            (version,) = rows.fetchone()
        if version not in (0, VERSION):
            raise StoreError(f"{self._path} has layout {version}, this program writes {VERSION}: move it away")
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            self._file.execute(f"PRAGMA {pragma}").close()
        with self._transaction():
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS state "
                "(kind TEXT, name TEXT, key BLOB, value TEXT, PRIMARY KEY (kind, name, key))"
            ).close()
            self._file.execute(f"PRAGMA user_version = {VERSION}").close()

    def names(self) -> tuple[str, ...]:
        """The nodes that were saved, oldest first."""
        return tuple(from_text(NodeRow, text).name for text in self._rows("node"))

    def load(self, world: World) -> None:
        """Fill an empty world with what was last saved."""
        for text in self._rows("channel"):
            world.graph.add(from_text(Channel, text))
        for text in self._rows("node"):
            node = self._node(from_text(NodeRow, text))
            world.nodes[node.name], world.pubkeys[node.name] = node, node.pubkey
        for text in self._rows("flight"):
            flight = from_text(Flight, text)
            world.flights[flight.id] = flight
            world.launched = max(world.launched, flight.id)
        attempts = [a.id for node in world.nodes.values() for payment in node.payments for a in payment.attempts]
        world.tried = max([0, *attempts, *(flight.attempt_id for flight in world.flights.values())])

    def save(self, world: World, touched: list[Touched]) -> None:
        """Keep what was touched, all of it or nothing."""
        with self._transaction():
            for item in touched:
                self._write(item, _value(world, item))

    def _write(self, item: Touched, value: object) -> None:
        key = (item.kind, item.name, item.key)
        if value is None:
            self._file.execute("DELETE FROM state WHERE kind = ? AND name = ? AND key = ?", key).close()
        else:
            sql = "INSERT INTO state VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
            self._file.execute(sql, (*key, to_text(value))).close()

    def _node(self, row: NodeRow) -> Node:
        node = Node(
            name=row.name,
            identity=Identity(row.secret),
            accepts_keysend=row.accepts_keysend,
            keysend_hold_s=row.keysend_hold_s,
        )
        node.invoices.backend = row.backend
        invoices = [from_text(Invoice, text) for text in self._rows("invoice", row.name)]
        node.invoices.restore(invoices, added=row.added, settled=row.settled)
        payments = [from_text(SimPayment, text) for text in self._rows("payment", row.name)]
        node.payments.restore(payments, started=row.started)
        node.addresses = row.addresses
        node.forwards = [from_text(Forward, text) for text in self._rows("forward", row.name)]
        return node

    def _rows(self, kind: str, name: str | None = None) -> list[str]:
        """All rows of a kind, in the order they were first written."""
        sql = "SELECT value FROM state WHERE kind = ? AND coalesce(name = ?, true) ORDER BY rowid"
        with closing(self._file.execute(sql, (kind, name))) as rows:
            return [value for (value,) in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE").close()
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK").close()
            raise
        self._file.execute("COMMIT").close()


def kept_names(folder: Path) -> tuple[str, ...]:
    """The nodes of the network that a folder keeps, oldest first; none if it keeps no network.

    Raises:
      StoreLocked: a network runs in the folder.
      StoreError: what is in the folder cannot be read.
    """
    if not (folder / FILE).exists():
        return ()
    with closing(StateFolder(folder)) as state:
        return state.names()


def _value(world: World, item: Touched) -> object:
    """What a touched thing is now; None if it is gone."""
    if item.kind == "node":
        node = world.nodes[item.name]
        return NodeRow(
            name=node.name,
            secret=node.identity.secret,
            accepts_keysend=node.accepts_keysend,
            keysend_hold_s=node.keysend_hold_s,
            backend=node.invoices.backend,
            added=node.invoices.added,
            settled=node.invoices.settled,
            started=node.payments.started,
            addresses=node.addresses,
        )
    if item.kind == "channel":
        return world.graph.channels[int(item.key)]
    if item.kind == "flight":
        return world.flights.get(int(item.key))
    if item.kind == "forward":
        return world.nodes[item.name].forwards[int(item.key)]
    if item.kind == "invoice":
        return world.nodes[item.name].invoices.get(PaymentHash(item.key))
    return world.nodes[item.name].payments.get(PaymentHash(item.key))
