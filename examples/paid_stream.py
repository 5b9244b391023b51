"""Data for money, second by second: 2 sat by keysend for each second in which data flows through the seller's relay.

    python paid_stream.py buy CONFIG SELLER     writes to its output what arrives, and pays for it
    python paid_stream.py sell CONFIG BUYER     prints a port: send it datagrams, and they go to the buyer

Each end stops by itself, whatever happens to the other: the seller closes the session when data or money stops, the
buyer pays no more when data stops or a budget is spent. At most GRACE_S seconds are unpaid, one is paid in advance.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import trio

import impervious
from impervious.errors import NodeRefused, NodeUnavailable, NotFound, PaymentFailed, ResourceExhausted
from impervious.model import Event, EventKind, NodePubkey, PaymentHash, ServiceType
from impervious.service import Effect, Fact, Service, ServiceContext, SettledInvoice
from impervious.services.lightning import LightningService
from impervious.services.socket import SocketService
from impervious.units import Msat, Sat, msat

PRICE, MAX_FEE = Sat(2), Sat(2)
STREAM_RECORD = 5_550_123  # in each payment: the id of the message that offered the stream
QUIET_S, GRACE_S = 15, 5
Sink = Callable[[bytes], object]


class Till(Service):
    """Counts what comes in for each open stream."""

    service_type = ServiceType("stream")
    handles_facts = handles_payments = True

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self.streams: dict[bytes, dict[PaymentHash, Msat]] = {}

    async def handle(self, fact: Fact) -> Effect | None:
        """Note a payment; told twice, it counts once."""
        if isinstance(fact, SettledInvoice) and (stream := fact.records.get(STREAM_RECORD, b"")) in self.streams:
            self.streams[stream][fact.payment_hash] = fact.amount
        return None


def flowed_s(came: list[float]) -> float:
    return came[-1] - came[1] if came[1:] else 0  # when the session was opened, when data came first, and last


async def sell(node: impervious.Node, buyer: NodePubkey) -> str:
    """Offer a stream, and close it when data or money stops; return what stopped, and what was earned."""
    sockets, name, packets, unpaid = node.service(SocketService), f"for {buyer}"[:20], 0, False
    print("send to port", (await sockets.start(name)).ports[0], flush=True)
    try:
        stream, came = (await sockets.send(buyer, name)).bytes, [trio.current_time()]
        paid = node.service(Till).streams.setdefault(stream, {})
        while not unpaid and trio.current_time() - came[-1] <= QUIET_S:
            await trio.sleep(1)
            before, packets = packets, sum(side.forwarded_packets for side in sockets.statistics(name).sides)
            if packets > before:
                came[2:] = [trio.current_time()]
            unpaid = msat(PRICE) * (flowed_s(came) - GRACE_S) > sum(paid.values())
        return f"{'payment' if unpaid else 'data'} stopped after {sum(paid.values()) // 1000} sat"
    finally:
        with trio.move_on_after(5, shield=True), suppress(NotFound):
            await sockets.stop(name)


async def buy(node: impervious.Node, seller: NodePubkey, offer: Event, budget: Sat, sink: Sink) -> str:
    """Take what comes and pay for it by the second, until it stops or the budget is spent; return what it cost."""
    told, came, paid, lightning = json.loads(offer.data), [trio.current_time()], 0, node.service(LightningService)
    where = await trio.socket.getaddrinfo(told["ip"], told["port2"].strip(":"), type=trio.socket.SOCK_DGRAM)
    with trio.socket.socket(where[0][0], trio.socket.SOCK_DGRAM) as relay:
        await relay.connect(where[0][4])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, relay, came, sink, nursery.cancel_scope)
            while trio.current_time() - came[-1] <= QUIET_S and paid < budget:
                with suppress(OSError):
                    await relay.send(b"")  # tells the relay where we are, and keeps the way open
                due = Sat(min(int(PRICE * (flowed_s(came) + 1)), budget) - paid if came[1:] else 0)
                if due:
                    paid += due  # unless it is known to have failed: it may be under way for long
                    try:
                        with trio.move_on_after(GRACE_S), suppress(NodeUnavailable):
                            await lightning.keysend(seller, due, [(STREAM_RECORD, offer.id.bytes)], max_fee=MAX_FEE)
                    except (PaymentFailed, NodeRefused, ResourceExhausted):
                        paid -= due
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
    return f"stopped after {paid} sat"


async def receive(relay: trio.socket.SocketType, came: list[float], sink: Sink, end: trio.CancelScope) -> None:
    """Pass data on until the seller closes the session."""
    with suppress(OSError):
        while True:
            if datagram := await relay.recv(65_535):
                came[2:] = [trio.current_time()]
                sink(datagram)
    end.cancel()


async def main(role: str, path: str, other: str) -> None:
    async with impervious.open_node(impervious.read_config(path).config, services=[Till]) as node:
        far = await node.resolve(other)
        await node.wait_ready()
        if role == "sell":
            return print(await sell(node, far))
        async with node.events() as events:
            async for event in events:
                if event.kind is EventKind.MESSAGE and (event.service_type, event.sender) == ("socket", far):
                    print(await buy(node, far, event, Sat(1000), lambda data: os.write(1, data)), file=sys.stderr)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
