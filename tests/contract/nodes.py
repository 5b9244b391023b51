"""Nodes that are put to the test by what they answer alone: simulated, themselves and over the wire, and real ones.

alice-bob-carol in a line. The real ones have a past: tests look at what is new.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio
from tests.contract.stage import Stage, sim_stage, wire_stage
from tests.lnd.regtest import Regtest

from impervious.lnd import LIGHTNING_NODE, open_lnd
from impervious.model import AddedInvoice, DecodedInvoice, InvoiceTerms, Payment
from impervious.node import LightningNode
from impervious.units import Msat


@dataclass(frozen=True)
class Nodes:
    """alice, bob and carol, ready."""

    alice: LightningNode
    bob: LightningNode
    carol: LightningNode

    async def ask(self, amount: int, *, memo: str = "", expiry_s: int = 3600) -> tuple[AddedInvoice, DecodedInvoice]:
        """An invoice of carol's as alice reads it."""
        terms = InvoiceTerms(amount=Msat(amount), memo=memo, expiry_s=expiry_s)
        added = await self.carol.add_invoice(terms)
        return added, await self.alice.decode_invoice(added.payment_request)

    async def pay(self, invoice: DecodedInvoice, *, fee_limit: int = 5000, amount: int = 0) -> Payment:
        """Let alice pay."""
        with trio.fail_after(60):
            return await pay(self.alice, invoice, fee_limit=fee_limit, amount=amount)


async def pay(node: LightningNode, invoice: DecodedInvoice, *, fee_limit: int = 5000, amount: int = 0) -> Payment:
    return await node.pay_invoice(invoice, fee_limit=Msat(fee_limit), timeout_s=30, amount=Msat(amount))


class GetRegtest(Protocol):
    """The real network, started when it is first asked for."""

    def __call__(self) -> Regtest: ...


@asynccontextmanager
async def _of(stage: AbstractAsyncContextManager[Stage]) -> AsyncIterator[Nodes]:
    async with stage as opened:
        nodes = Nodes(opened.node("alice"), opened.node("bob"), opened.node("carol"))
        for node in (nodes.alice, nodes.bob, nodes.carol):
            await node.wait_ready()
        yield nodes


@asynccontextmanager
async def sim_nodes(_regtest: GetRegtest) -> AsyncIterator[Nodes]:
    async with _of(sim_stage()) as nodes:
        yield nodes


@asynccontextmanager
async def wire_nodes(_regtest: GetRegtest) -> AsyncIterator[Nodes]:
    async with _of(wire_stage()) as nodes:
        yield nodes


@asynccontextmanager
async def real_nodes(regtest: GetRegtest) -> AsyncIterator[Nodes]:
    network = regtest()
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_lnd(network[name].config, requires=LIGHTNING_NODE))
            for name in ("alice", "bob", "carol")
        ]
        with trio.fail_after(30):
            for node in opened:
                await node.wait_ready()
        yield Nodes(*opened)


KINDS: dict[str, Callable[[GetRegtest], AbstractAsyncContextManager[Nodes]]] = {
    "sim": sim_nodes,
    "lnd": wire_nodes,
    "real": real_nodes,
}
