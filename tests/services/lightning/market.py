"""A buyer and a seller on one simulated network, in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.conftest import Wall
from tests.walks import Stage, detail, everything, stage
from trio.testing import wait_all_tasks_blocked

from impervious.model import Payment, PaymentHash
from impervious.services.lightning import LightningService
from impervious.store import spending
from impervious.supervisor import Node
from impervious.units import Sat

FEE: Final = 1000
"""What bob takes, in msat."""


@dataclass
class Market:
    """Alice, who buys, and carol, who sells; bob is between them."""

    where: Stage
    alice: Node
    carol: Node

    @property
    def buyer(self) -> LightningService:
        return self.alice.service(LightningService)

    @property
    def seller(self) -> LightningService:
        return self.carol.service(LightningService)

    async def ask(self, amount: int = 5, memo: str = "", *, expiry_s: int = 0) -> tuple[str, PaymentHash]:
        added = await self.seller.generate(Sat(amount), memo, expiry_s=expiry_s)
        return added.payment_request, added.payment_hash

    async def got(self, payment_hash: PaymentHash) -> int:
        """What came for an invoice of carol's, in msat."""
        return (await self.where.network.node("carol").lookup_invoice(payment_hash)).amount_paid

    async def paid(self, payment_hash: PaymentHash) -> Payment:
        return await self.where.network.node("alice").lookup_payment(payment_hash)


async def spent(node: Node) -> int:
    """What counts against the budget, in msat."""
    return await node.messages.context.read(lambda tx: spending.spent(tx._tx))


async def left_open(node: Node) -> int:
    """How many payments have an end that nobody has been told of."""
    await wait_all_tasks_blocked()
    rows = await node.messages.context.read(lambda tx: tx.all("SELECT * FROM lightning_open"))
    return len(rows)


async def told(node: Node) -> list[dict[str, Any]]:
    """The events of payments of the node's own."""
    found = [event for event in await everything(node) if event.service_type == "lightning"]
    return [detail(event) for event in found if detail(event)["recordId"] == "PAYMENT"]


@asynccontextmanager
async def open_market(folder: Path, wall: Wall, **settings: Any) -> AsyncIterator[Market]:
    async with stage(folder, wall) as where:
        plain = where.config
        where.config = replace(plain, lightning=replace(plain.lightning, **settings))
        async with where.node("alice") as alice, where.node("carol") as carol:
            await alice.wait_ready()
            await carol.wait_ready()
            yield Market(where, alice, carol)
