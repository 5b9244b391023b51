"""No statement that a stranger can cause reads a table that grows: each finds what it needs by an index."""

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.conftest import Wall
from tests.services.federate.test_service import claim, federate, named, stranger
from tests.services.vpn.house import answer, bought, house, key, quoted, vpn
from tests.services.vpn.shop import private_key
from tests.services.vpn.test_service import hears
from tests.walks import detail, stage
from trio.testing import MockClock

from impervious.services.federate import FederateService
from impervious.services.vpn.payloads import ContractRequest, write
from impervious.store import Tx
from impervious.supervisor import Node
from impervious.units import Sat

BOUNDED = {
    "vpn_sold": "what is sold and not gone: one for each address, each paid for (partial index)",
    "vpn_bought": "what was bought and is not over (partial index)",
    "peer": "federate.max_strangers, and whom the operator asked or accepted",
    "federate_pending": "federate.max_strangers",
    "log_size": "a row for each service",
    "reader": "a row for each service",
    "identity": "one row",
    "history": "one row",
    "invoice_cursor": "one row",
    "sqlite_sequence": "a row for each table that counts",
}
SCANNED = re.compile(r"^SCAN (\w+)(.*)$")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Give all statements of all transactions."""
    statements = set[str]()
    for name in ("run", "one", "all", "run_many", "insert"):
        whole = getattr(Tx, name)

        def heard(tx: Tx, sql: str, *rest: Any, _whole: Any = whole) -> Any:
            statements.add(sql)
            return _whole(tx, sql, *rest)

        monkeypatch.setattr(Tx, name, heard)
    return statements


async def scans(node: Node, statements: set[str]) -> list[str]:
    """Say which statements go through a whole table, and which table."""

    def explain(tx: Tx) -> list[str]:
        found: list[str] = []
        for sql in sorted(statements):
            if not re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT|WITH)\b", sql):
                continue
            marks = [int(each) for each in re.findall(r"\?(\d+)", sql)]
            rows = tx.all(f"EXPLAIN QUERY PLAN {sql}", *[None] * (max(marks) if marks else sql.count("?")))
            for row in rows:
                scan = SCANNED.match(str(row[-1]))
                if scan is None or scan[1] in (*BOUNDED, "CONSTANT"):
                    continue
                if not ("INDEX" in scan[2] and sql.endswith(("LIMIT 1", "LIMIT ?"))):  # the first of an index: at once
                    found.append(f"{scan[0]}: {sql}")
        return found

    return await vpn(node).context._store.read(explain)


async def test_of_a_seller_and_a_buyer(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, said: set[str]
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        seller = await key(carol)
        said.clear()  # migrations, which read what they move
        quote, event = await bought(alice, seller)
        assert detail(event)["recordId"] == "CONTRACT"
        await answer(alice, await vpn(alice).refresh(seller, quote["nonce"], Sat(100)))
        await answer(alice, await vpn(alice).refresh(seller, quote["nonce"], Sat(99)))
        other = await quoted(alice, seller)
        request = ContractRequest(nonce=other["nonce"], public_key=private_key(9).public.text)
        await hears(carol, stranger(1), write(request), 100_000)
        await hears(carol, stranger(1), b'{"recordId":"QUOTE_REQUEST"}', 1_000)
        await vpn(carol).cancel(quote["nonce"])
        await trio.sleep(7_200)
        assert len(said) > 80
        assert await scans(carol, said) == []


async def test_of_federation(tmp_path: Path, wall: Wall, autojump_clock: MockClock, said: set[str]) -> None:
    async with stage(tmp_path, wall) as where:
        named(where, "Alice", accept="ask")
        async with where.node("alice") as alice:
            named(where, "Carol")
            async with where.node("carol") as carol:
                await key(carol)
                said.clear()
                await federate(alice, carol)
                await claim(carol, stranger(1), "Carol", ttl_s=60)
                await claim(alice, stranger(2), "Zoe", ttl_s=60)
                await alice.service(FederateService).accept(stranger(2))
                await alice.service(FederateService).leave(await key(carol), wait=True)
                await alice.messages.send("@Zoe", b"hello")
                await trio.sleep(7_200)
                assert len(said) > 50
                assert await scans(carol, said) == []
