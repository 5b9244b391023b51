"""A reader of settled invoices that keeps its promises as `inbound` does, and payments for it to read."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from impervious.errors import NodeUnavailable
from impervious.model import InvoiceCursor, InvoiceState, NodePubkey, Payment, PaymentHash, Preimage, SettledInvoice
from impervious.sim import SimNetwork, SimNode
from impervious.sim.engine.invoices import Invoice
from impervious.sim.engine.payments import Order
from impervious.units import Msat


def preimage_of(number: int) -> Preimage:
    return Preimage(hashlib.sha256(b"reader %d" % number).digest())


async def pay(
    sender: SimNode,
    dest: NodePubkey,
    number: int,
    *,
    amount: int = 1000,
    records: Mapping[int, bytes] | None = None,
    fee_limit: int = 5000,
) -> Payment:
    """A keysend with a preimage of that number."""
    return await sender.send_keysend(
        dest, Msat(amount), preimage_of(number), records or {}, fee_limit=Msat(fee_limit), timeout_s=60
    )


async def pay_invoice(network: SimNetwork, sender: str, receiver: str, invoice: Invoice) -> None:
    """Pay an ordinary invoice."""
    order = Order(
        dest=network.lnd(receiver).pubkey.raw,
        amount=invoice.value,
        payment_hash=invoice.payment_hash,
        payment_addr=invoice.payment_addr,
        fee_limit=Msat(5000),
    )
    async with network.lnd(sender).rpcs.send_payment(order) as updates:
        async for _ in updates:
            pass


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that is learnt at the other end of a wire."""
    with trio.fail_after(5):
        while not true():  # noqa: ASYNC110 - nothing tells it
            await trio.sleep(0.005)


def settled_at(network: SimNetwork, name: str) -> set[PaymentHash]:
    """What the node itself says has settled."""
    invoices = network.lnd(name).node.invoices
    return {invoice.payment_hash for invoice in invoices if invoice.state is InvoiceState.SETTLED}


@dataclass
class Reader:
    """What survives a crash of the reader, and what it was told."""

    node: SimNode
    cursor: InvoiceCursor = InvoiceCursor()
    processed: dict[PaymentHash, SettledInvoice] = field(default_factory=dict)
    told: int = 0
    """Invoices told, those told again included."""
    passes: int = 0
    """How often everything was said to have been told."""

    async def read(self, *, steps: int | None = None, rescan: bool = False) -> None:
        """Read one opening to its end, or as many steps and then crash before storing anything of the next."""
        async with self.node.settled_invoices(self.cursor, rescan=rescan) as news:
            async for item in news:
                if steps == 0:
                    return
                steps = None if steps is None else steps - 1
                self.cursor = item.cursor
                self.passes += item.invoice is None
                if item.invoice is not None:
                    self.told += 1
                    self.processed.setdefault(item.invoice.payment_hash, item.invoice)

    async def read_forever(self) -> None:
        """Open again whenever an opening ends."""
        while True:
            with suppress(NodeUnavailable):
                await self.read()
            await trio.sleep(0.5)
