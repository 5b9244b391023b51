"""Deliveries on a bench: the real outbox and the real sender, with a Lightning node that does as it is told."""

import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio
from tests.conftest import Wall, inline
from tests.server.house import ALICE, BOB, LoneNode

from impervious.config import Config
from impervious.errors import NoRoute, PaymentFailure, PaymentNotFound
from impervious.hub import Hub
from impervious.model import (
    KeysendSupport,
    MessageId,
    NodePubkey,
    OutboundMessage,
    Part,
    Payment,
    PaymentHash,
    PaymentStatus,
    Preimage,
    Records,
    Route,
    RouteHint,
    ServiceType,
)
from impervious.outbound import Outbound, SendPolicy
from impervious.outbound.accept import accept
from impervious.store import Store, open_store, outbox, spending
from impervious.supervisor import send_policy
from impervious.units import Msat
from impervious.wire import envelope, onion
from impervious.wire.envelope import Envelope
from impervious.wire.keysend import PREIMAGE_RECORD

FEE = Msat(20)
HEIGHT = 800_000

Answer = PaymentStatus | PaymentFailure | Exception
"""What becomes of a payment, or of the question."""


@dataclass(frozen=True)
class Sent:
    """A payment as the node was asked for it."""

    payment_hash: PaymentHash
    recipient: NodePubkey
    amount: Msat
    fee_limit: Msat
    envelope: Envelope


@dataclass
class Payer(LoneNode):
    """Pays, unless it is told otherwise. Being asked to pay what is paid fails the test."""

    answers: deque[Answer] = field(default_factory=deque)
    """To the next payments."""
    fates: deque[Answer] = field(default_factory=deque)
    """To the next questions what became of one."""
    hops: int = 2
    support: KeysendSupport = KeysendSupport.YES
    reachable: bool = True
    signing: deque[Exception] = field(default_factory=deque)
    settlement_s: float = 0.3
    htlcs: int = 10**6
    """How many the route holds at a time."""
    ends: dict[PaymentHash, tuple[float, Answer]] = field(default_factory=dict)
    """Of each payment: when, in Trio's time, and how. Nobody needs to wait for it."""
    sent: list[Sent] = field(default_factory=list)
    tracked: list[PaymentHash] = field(default_factory=list)
    settled: dict[PaymentHash, Msat] = field(default_factory=dict)
    most_under_way: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    async def sign(self, text: bytes) -> bytes:
        if self.signing:
            await trio.lowlevel.checkpoint()
            raise self.signing.popleft()
        return await super().sign(text)

    async def send_keysend(
        self,
        dest: NodePubkey,
        amount: Msat,
        preimage: Preimage,
        records: Records,
        *,
        fee_limit: Msat,
        timeout_s: int,
        hints: Sequence[RouteHint] = (),
    ) -> Payment:
        found = preimage.payment_hash
        assert found not in self.settled, "this has been paid"
        [(_, record)] = records.items()
        self.sent.append(Sent(found, dest, amount, fee_limit, envelope.decode(record)))
        answer = self.answers.popleft() if self.answers else PaymentStatus.SUCCEEDED
        if not self._fits(amount, {**records, PREIMAGE_RECORD: preimage.raw}):
            answer = PaymentFailure.NO_ROUTE
        if self.under_way >= self.htlcs:
            answer = PaymentFailure.ERROR
        self.ends[found] = (trio.current_time() + self.settlement_s, answer)
        self.most_under_way = max(self.most_under_way, self.under_way)
        await trio.sleep(self.settlement_s)
        if not self._fits(amount, {**records, PREIMAGE_RECORD: preimage.raw}):
            return _failed(found, amount, PaymentFailure.NO_ROUTE)
        return self._end(found, amount, answer)

    @property
    def under_way(self) -> int:
        return sum(end > trio.current_time() for end, _ in self.ends.values())

    async def lookup_payment(self, payment_hash: PaymentHash) -> Payment:
        self.tracked.append(payment_hash)
        await trio.sleep(0.1)
        if self.fates:
            return self._end(payment_hash, self._amount(payment_hash), self.fates.popleft())
        if payment_hash in self.settled:
            return _paid(payment_hash, self.settled[payment_hash])
        if payment_hash not in self.ends:
            raise PaymentNotFound("never heard of it")
        end, answer = self.ends[payment_hash]
        amount = self._amount(payment_hash)
        if end > trio.current_time():
            return Payment(
                payment_hash=payment_hash, status=PaymentStatus.IN_FLIGHT, amount=amount, fee=Msat(0), attempts=1
            )
        if isinstance(answer, Exception):
            raise PaymentNotFound("never heard of it")
        return self._end(payment_hash, amount, answer)

    async def track(self, payment_hash: PaymentHash) -> Payment:
        end, answer = self.ends[payment_hash]
        await trio.sleep(end - trio.current_time())
        return self._end(payment_hash, self._amount(payment_hash), answer)

    async def find_route(
        self,
        dest: NodePubkey,
        amount: Msat,
        records: Records,
        *,
        fee_limit: Msat,
        hints: Sequence[RouteHint] = (),
    ) -> Route:
        await trio.lowlevel.checkpoint()
        if not (self.reachable and self._fits(amount, {**records, PREIMAGE_RECORD: bytes(32)})):
            raise NoRoute("unable to find a path to destination")
        return Route(hops=self.hops, fee=FEE, total_amount=Msat(amount + FEE), height=HEIGHT)

    async def keysend_support(self, pubkey: NodePubkey) -> KeysendSupport:
        await trio.lowlevel.checkpoint()
        return self.support

    def _fits(self, amount: Msat, records: Records) -> bool:
        forwarding = (self.hops - 1) * onion.forwarding_bytes(Msat(amount + FEE), HEIGHT)
        return forwarding + onion.final_bytes(amount, HEIGHT, records) <= onion.MAX_BYTES

    def _amount(self, payment_hash: PaymentHash) -> Msat:
        return next((each.amount for each in self.sent if each.payment_hash == payment_hash), Msat(1000))

    def _end(self, payment_hash: PaymentHash, amount: Msat, answer: Answer) -> Payment:
        match answer:
            case Exception():
                raise answer
            case PaymentStatus.SUCCEEDED:
                self.settled[payment_hash] = amount
                return _paid(payment_hash, amount)
            case PaymentStatus():
                raise AssertionError(f"no payment ends {answer}")
            case PaymentFailure():
                return _failed(payment_hash, amount, answer, attempts=1)


def _paid(payment_hash: PaymentHash, amount: Msat) -> Payment:
    return Payment(payment_hash=payment_hash, status=PaymentStatus.SUCCEEDED, amount=amount, fee=FEE, attempts=1)


def _failed(payment_hash: PaymentHash, amount: Msat, reason: PaymentFailure, *, attempts: int = 0) -> Payment:
    return Payment(
        payment_hash=payment_hash,
        status=PaymentStatus.FAILED,
        amount=amount,
        fee=Msat(0),
        attempts=attempts,
        failure=reason,
    )


@dataclass
class Bench:
    """A node that pays, an outbox, and whoever delivers what is in it."""

    node: Payer
    store: Store
    policy: SendPolicy
    hub: Hub

    async def accept(
        self,
        payload: bytes = b"hello",
        *,
        amount: int = 0,
        to: NodePubkey = ALICE,
        service: str = "message",
        obligation: bool = False,
        received: int = 0,
    ) -> MessageId:
        """Put a message into the outbox."""
        message = OutboundMessage(
            id=uuid4(),
            recipient=to,
            service_type=ServiceType(service),
            payload=payload,
            amount=Msat(amount) if amount else self.policy.minimum_amount(len(payload)),
        )
        came = Msat(received)
        await self.store.write(lambda tx: accept(tx, message, self.policy, obligation=obligation, received=came))
        return message.id

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[Outbound]:
        """Deliver for as long as the block runs; leaving it is what a stop of the daemon does."""
        async with trio.open_nursery() as nursery:
            outbound = Outbound(self.node, self.store, self.hub, self.policy, random=lambda: 0.5)
            nursery.start_soon(outbound.run)
            yield outbound
            nursery.cancel_scope.cancel()

    async def outcome(self, message_id: MessageId) -> dict[str, Any]:
        """Wait for the end of a message; says what its event does."""
        with self.hub.waiting_for(f"outcome {message_id}") as wakes:
            while True:
                found = await self.store.read(lambda tx: outbox.state(tx, message_id))
                assert found is not None
                if found[1] is not None:
                    return dict(json.loads(found[1]))
                await wakes.receive()

    async def progress(self, message_id: MessageId) -> list[dict[str, Any]]:
        """What the log says of a message before its end."""
        events = await self.store.read(
            lambda tx: tx.all("SELECT data FROM event WHERE kind = 'progress' AND id = ?", message_id.bytes)
        )
        return [json.loads(data) for (data,) in events]

    async def deliver(self, message_id: MessageId) -> dict[str, Any]:
        """The same, delivering meanwhile."""
        async with self.delivering():
            with trio.fail_after(30 * 86_400):
                return await self.outcome(message_id)

    async def parts(self, message_id: MessageId) -> list[Part]:
        """Those that are not dead."""
        return (await self.store.read(lambda tx: outbox.load(tx, message_id)))[1]

    async def spent(self) -> Msat:
        """What the budget says."""
        return await self.store.read(spending.spent)


@asynccontextmanager
async def open_bench(folder: Path, wall: Wall, **policy: object) -> AsyncIterator[Bench]:
    """A bench with an empty outbox; `policy` is what differs from the defaults."""
    hub, node = Hub(), Payer()
    chosen = replace(send_policy(Config()), **policy)  # type: ignore[arg-type]
    async with open_store(folder / "imp.db", on_commit=hub.publish, now_ms=wall, run_sync=inline) as store:
        yield Bench(node, store, chosen, hub)


__all__ = ["ALICE", "BOB", "FEE", "Bench", "Payer", "Sent", "open_bench"]
