"""What one payment costs after many others of strangers: milliseconds in the database, which everything waits for.

python benchmarks/strangers.py [10 1000 100000]
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import trio

from impervious.errors import Malformed
from impervious.inbound import assembly, turns
from impervious.inbound.arrival import Local, PartArrived
from impervious.model import NodePubkey, PaymentHash, RecordType, ServiceType, SettledInvoice
from impervious.store import Store, Tx, inbox, open_store
from impervious.store.inbox import Complete
from impervious.units import Msat
from impervious.wire.envelope import Envelope

SIZES = (10, 1_000, 100_000)
BATCH = 64
"""Payments of one transaction, as the reader does it."""
MEASURED = 512
MESSAGE, SERVICE = RecordType(400_000), ServiceType("message")
ME = NodePubkey(b"\x02" + bytes(32))
LOCAL = Local(pubkey=ME, network="regtest", services={MESSAGE: SERVICE}, max_bytes=480_000)


def sender(number: int) -> NodePubkey:
    return NodePubkey(b"\x03" + number.to_bytes(32, "big"))


def whole(number: int, order: int) -> Complete:
    return Complete(
        sender=sender(number),
        order=order,
        id=uuid4(),
        reply_to=None,
        service_type=SERVICE,
        data=b"x",
        amount=Msat(1000),
        sent_at_ms=0,
    )


def voids(tx: Tx, number: int) -> None:
    """One sender that names 64 orders after the others in each message."""
    turns.skip(tx, sender(0), range(2 + number * 64, 66 + number * 64))


def scattered_voids(tx: Tx, number: int) -> None:
    """The same, but every other order."""
    turns.skip(tx, sender(0), range(3 + number * 128, 3 + (number + 1) * 128, 2))


def held_of_many(tx: Tx, number: int) -> None:
    """Each sender has one early message; the clock comes round with each batch."""
    turns.take_turn(tx, whole(number, 2))
    if number % BATCH == 0:
        turns.release(tx, tx.now_ms)


def held_of_one(tx: Tx, number: int) -> None:
    """One sender never sends the first."""
    turns.take_turn(tx, whole(0, 2 + number))
    if number % BATCH == 0:
        turns.release(tx, tx.now_ms)


ORPHAN = uuid4()


def part(tx: Tx, identifier: object, offset: int) -> None:
    invoice = SettledInvoice(
        payment_hash=PaymentHash(bytes(32)),
        amount=Msat(1000),
        records={},
        is_keysend=True,
        add_index=1,
        settle_index=1,
        created_s=0,
        settled_s=0,
    )
    arrived = PartArrived(
        record_type=MESSAGE,
        service_type=SERVICE,
        envelope=Envelope(message_id=identifier, offset=offset, payload=b"x"),  # type: ignore[arg-type]
    )
    try:
        with tx.attempt():
            assembly.add_part(tx, invoice, arrived, active=True)
            assembly.enforce_limits(tx, LOCAL, None)
    except Malformed:
        pass


def parts_of_many(tx: Tx, _number: int) -> None:
    """Parts of one byte without a header, each of another message."""
    part(tx, uuid4(), 1)


def parts_of_one(tx: Tx, number: int) -> None:
    """Parts of one byte without a header, all of one message."""
    part(tx, ORPHAN, 2 * number % 480_000)


def quarantine(tx: Tx, number: int) -> None:
    """Payments of ordinary wallets."""
    payment_hash = PaymentHash(hashlib.sha256(number.to_bytes(8)).digest())
    inbox.quarantine(tx, payment_hash, "why", record_type=MESSAGE, value=b"x", amount=Msat(1000))


WAYS: tuple[Callable[[Tx, int], None], ...] = (
    voids,
    scattered_voids,
    held_of_many,
    held_of_one,
    parts_of_many,
    parts_of_one,
    quarantine,
)


def batches(begin: int, end: int) -> Iterator[range]:
    for at in range(begin, end, BATCH):
        yield range(at, min(at + BATCH, end))


async def pay(store: Store, way: Callable[[Tx, int], None], begin: int, end: int) -> tuple[float, float]:
    """Return milliseconds for each payment, and those of the slowest batch."""
    slowest = total = 0.0
    for numbers in batches(begin, end):

        def work(tx: Tx, numbers: range = numbers) -> float:
            began = time.perf_counter()
            for number in numbers:
                way(tx, number)
            return (time.perf_counter() - began) * 1000

        took_ms = await store.write(work)
        total, slowest = total + took_ms, max(slowest, took_ms)
    return total / (end - begin), slowest


async def main(sizes: tuple[int, ...]) -> None:
    print(f"{'ms for each payment after':28}" + "".join(f"{size:>12,}" for size in sizes) + f"{'slowest 64':>14}")
    for way in WAYS:
        with TemporaryDirectory() as folder:
            async with open_store(Path(folder) / "imp.db") as store:
                paid, line, slowest = 0, f"{way.__name__:28}", 0.0
                for size in sizes:
                    await pay(store, way, paid, size)
                    each_ms, slowest = await pay(store, way, size, size + MEASURED)
                    paid = size + MEASURED
                    line += f"{each_ms:12.3f}"
                print(line + f"{slowest:11.1f} ms")


if __name__ == "__main__":
    trio.run(main, tuple(map(int, sys.argv[1:])) or SIZES)
