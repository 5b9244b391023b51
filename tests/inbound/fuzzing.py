"""Hostile payments through the whole pipeline, from the bytes of a record to the log.

By hand, for as long as one likes: `python -m tests.inbound.fuzzing 1800 [SEED]` (seconds). It prints how many inputs
went through, and fails at the first that ends the reader, loses a millisatoshi or keeps the next good message away.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

import trio
from coincurve import PrivateKey
from tests.conftest import Wall
from tests.inbound.letters import ALICE_KEY, BOB_KEY, CAROL_KEY, MESSAGE, NOW_S, header, invoice, node, sign, whole
from tests.inbound.test_reader import Reading, open_reading
from trio.testing import MockClock

from impervious.model import PaymentHash, RecordType, ServiceType, SettledInvoice, Shown
from impervious.store import Tx
from impervious.store.inbox import Complete
from impervious.units import Msat
from impervious.wire import envelope, lnd_signature, payloads
from impervious.wire.envelope import Envelope, SignedHeader

ROUND: Final = 64
"""Hostile payments before the next good message."""
ROUNDS: Final = 50
"""With one database."""
KEYS: Final = (ALICE_KEY, CAROL_KEY, PrivateKey(bytes([9]) * 32), BOB_KEY)
GOOD_KEY: Final = PrivateKey(bytes([77]) * 32)
NUMBERS: Final = (0, 1, 2, 63, 127, 128, 2**31, 2**32, 2**53, 2**62, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1)
OTHERS: Final = (7_629_169, 34_349_334, 65_536, 2**63, 2**64 - 1)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class Fuzzer:
    """Makes hostile payments, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.ids = [self.identifier() for _ in range(8)]
        self.kept: list[SettledInvoice] = []
        self.ways: tuple[Callable[[], Iterator[bytes]], ...] = (
            self.message,
            self.message,
            self.hostile_header,
            self.hostile_header,
            self.record,
            self.noise,
            self.service_payload,
        )

    def identifier(self) -> UUID:
        return UUID(bytes=self.random.randbytes(16), version=4)

    def number(self) -> int:
        pick = self.random.random()
        return self.random.choice(NUMBERS) if pick < 0.4 else self.random.randrange(1, 40)

    def payments(self) -> Iterator[SettledInvoice]:
        while True:
            values = list(self.random.choice(self.ways)())
            self.random.shuffle(values)
            for value in values:
                yield self.paid(self.mutated(value) if self.random.random() < 0.3 else value)

    def paid(self, value: bytes) -> SettledInvoice:
        """A payment that carries a record, mostly as LND tells it."""
        random = self.random
        if self.kept and random.random() < 0.02:
            return random.choice(self.kept)  # told twice
        paid = invoice(value, amount=random.choice((1000, 1000, 1000, 1000, 0, 1, 999, 5000, 2**40)))
        paid = replace(paid, payment_hash=PaymentHash(random.randbytes(32)))
        if random.random() < 0.1:
            paid = replace(paid, **random.choice(self.oddities(value)))  # type: ignore[arg-type]
        self.kept = [*self.kept[-20:], paid]
        return paid

    def oddities(self, value: bytes) -> list[dict[str, object]]:
        random = self.random
        return [
            {"is_keysend": False, "memo": "\ud800 half", "payment_request": "lnbcrt1\udfff"},
            {"settled_s": random.choice((0, -1, 2**31, 2**63 - 1, -(2**63)))},
            {"records": {}},
            {"records": dict.fromkeys((MESSAGE, OFF, *OTHERS), value)},
            {"records": {random.choice(OTHERS): random.randbytes(random.randrange(1300))}},
            {"records": {OFF: value}},
            {"unreadable": "LND's invoice cannot be read: \ud800"},
            {"created_s": -(2**63), "add_index": 2**63 - 1},
        ]

    # --- Values of records --------------------------------------------------------------------------------------------

    def message(self) -> Iterator[bytes]:
        """A message in parts, some of which are missing, doubled, overlapping or of another message."""
        random = self.random
        data = random.randbytes(random.choice((1, 5, 900, 1800, 5000)))
        key, identifier = random.choice(KEYS), self.some_id()
        signed = self.signed(data, key, identifier)
        size = random.choice((200, 900, 901, len(data)))
        for offset in range(0, len(data), size):
            if random.random() < 0.1:
                continue
            shifted = max(0, offset + random.choice((0, 0, 0, 0, -1, 1, -size // 2)))
            part = Envelope(
                message_id=identifier,
                offset=shifted,
                payload=data[offset : offset + size],
                signed_header=signed if offset == 0 and random.random() < 0.9 else None,
            )
            for _ in range(2 if random.random() < 0.05 else 1):
                yield envelope.encode(part)

    def some_id(self) -> UUID:
        return self.random.choice(self.ids) if self.random.random() < 0.1 else self.identifier()

    def signed(self, data: bytes, key: PrivateKey, identifier: UUID) -> SignedHeader:
        random = self.random
        changes: dict[str, object] = {}
        if random.random() < 0.3:
            changes["void_orders"] = tuple(min(self.number(), 2**64 - 1) for _ in range(random.choice((1, 3, 64, 65))))
        if random.random() < 0.1:
            changes["amount"] = Msat(self.number())
        if random.random() < 0.1:
            changes["sent_at_ms"] = random.choice((*NUMBERS, NOW_S * 1000 + 7 * 86_400_000))
        if random.random() < 0.1:
            changes["total_bytes"] = self.number()
        return sign(header(data, key=key, order=self.number(), **changes), identifier, key=key)  # type: ignore[arg-type]

    def hostile_header(self) -> Iterator[bytes]:
        """A header of bytes that no encoder of ours makes, validly signed."""
        random, key, identifier = self.random, self.random.choice(KEYS), self.some_id()
        data = random.randbytes(20)
        raw = envelope.encode_header(header(data, key=key, order=self.number()))
        for _ in range(random.randrange(1, 4)):
            raw += self.field()
        if random.random() < 0.3:
            raw = self.mutated(raw)
        text = envelope.signed_text(
            raw, network="regtest", record_type=MESSAGE, recipient=node(BOB_KEY), message_id=identifier
        )
        value = envelope.MAGIC + b"\x0a\x10" + identifier.bytes + b"\x1a" + varint(len(data)) + data
        value += b"\x22" + varint(len(raw)) + raw + b"\x2a\x41" + lnd_signature.sign(text, key)
        yield value

    def field(self) -> bytes:
        """A protobuf field, of any number and wire type, whole or not."""
        random = self.random
        number = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 2**29 - 1))
        wire_type = random.choice((0, 1, 2, 2, 2, 3, 4, 5, 7))
        tag = varint(number << 3 | wire_type)
        if wire_type == 0:
            return tag + random.choice((varint(self.number()), b"\xff" * 11, b"\x80"))
        inside = random.choice(
            (
                b"".join(varint(self.number()) for _ in range(random.randrange(70))),
                random.randbytes(random.randrange(60)),
                b"\x80",
                b"\xff" * 9 + b"\x7f",
                b"\x0b" * 200,
            )
        )
        length = random.choice((len(inside), len(inside), len(inside), len(inside) + 1, 2**31, 2**63, 2**64 - 1))
        return tag + varint(length) + inside if wire_type == 2 else tag + random.randbytes(random.randrange(9))

    def record(self) -> Iterator[bytes]:
        """An envelope without a header, of which each field may be anything."""
        random = self.random
        yield envelope.MAGIC + b"".join(self.field() for _ in range(random.randrange(1, 6)))

    def noise(self) -> Iterator[bytes]:
        random = self.random
        yield random.choice((b"", envelope.MAGIC, b"I", b"I\x02")) + random.randbytes(random.choice((0, 1, 30, 1200)))

    def service_payload(self) -> Iterator[bytes]:
        """A verified message whose payload a service has to read."""
        random = self.random
        texts = (
            b'{"recordId":"FEDERATE","impId":"a","pubkey":"02","ttl":' + b"9" * random.randrange(1, 5000) + b"}",
            b"[" * random.choice((10, 500)),
            b'{"a":' * random.choice((10, 100)),
            b'{"recordId":"LEAVE","\\ud800":1e999}',
            b'{"recordId":"FEDERATE","services":["' + random.randbytes(9) + b'"]}',
        )
        data = random.choice(texts)[:850]
        key, identifier = random.choice(KEYS), self.identifier()
        signed = self.signed(data, key, identifier)
        yield envelope.encode(Envelope(message_id=identifier, offset=0, payload=data, signed_header=signed))

    def mutated(self, value: bytes) -> bytes:
        random, changed = self.random, bytearray(value)
        for _ in range(random.choice((1, 1, 2, 8))):
            at = random.randrange(len(changed) + 1)
            match random.randrange(5):
                case 0 if at < len(changed):
                    changed[at] ^= 1 << random.randrange(8)
                case 1:
                    del changed[at:]
                case 2:
                    changed[at:at] = random.randbytes(random.randrange(1, 12))
                case 3:
                    changed[at:at] = varint(random.choice(NUMBERS))
                case _ if at < len(changed):
                    changed[at] = random.choice((0, 127, 128, 255))
                case _:
                    pass
        return bytes(changed)


OFF: Final = RecordType(500_000)
"""Record of a service that is switched off."""


def show(_tx: Tx, _service_type: ServiceType, message: Complete, /) -> Shown | None:
    """Read a message as the services do: some of it is dropped, some of it raises."""
    if message.data[:1] in (b"{", b"["):
        payloads.decode_federate(message.data)
    return None if message.data[:1] == b"\x00" else Shown(data=message.data)


# --- The run ----------------------------------------------------------------------------------------------------------


def kept_msat(tx: Tx) -> int:
    """All that came, wherever it is: in events, in messages that lack parts, in messages that wait."""
    return sum(
        tx.number(sql)
        for sql in (
            "SELECT sum(amount_msat) FROM event WHERE kind IN ('message', 'quarantined', 'payment', 'notice')",
            "SELECT sum(amount_msat) FROM assembly",
            "SELECT sum(amount_msat) FROM held WHERE service_type IS NOT NULL",
        )
    )


def shown(tx: Tx, data: bytes) -> int:
    """How often a good message was shown."""
    return tx.number("SELECT count(*) FROM event WHERE kind = 'message' AND verified AND data = ?", data)


async def one_database(here: Reading, fuzzer: Fuzzer, wall: Wall, rounds: int) -> int:
    """Pay hostile payments and good messages in turn; return how many hostile ones there were."""
    payments, paid, told = fuzzer.payments(), dict[PaymentHash, int](), 0
    async with here.running():
        for number in range(1, rounds + 1):
            batch = [next(payments) for _ in range(ROUND)]
            good = b"good %d" % number
            signed = whole(good, fuzzer.identifier(), key=GOOD_KEY, order=number)
            signed = replace(
                signed,
                signed_header=sign(signed.signed_header.header, signed.message_id, key=GOOD_KEY),  # type: ignore[union-attr]
            )
            batch.append(invoice(envelope.encode(signed)))
            here.node.pay(invoices=batch)
            told += ROUND
            for each in batch:
                paid.setdefault(each.payment_hash, each.amount)
            await trio.sleep(1)
            if fuzzer.random.random() < 0.2:
                wall.offset_ms += fuzzer.random.choice((3_000, 60_000, 25 * 3_600_000))
                await trio.sleep(700)
            await settle(here)
            count = await here.store.read(lambda tx, data=good: shown(tx, data))  # type: ignore[misc]
            assert count == 1, f"message {number} was shown {count} times"
            kept = await here.store.read(kept_msat)
            assert kept == sum(paid.values()), f"{sum(paid.values())} msat were paid, {kept} are kept"
    return told


async def settle(here: Reading) -> None:
    """Wait for the reader to be done."""
    with trio.fail_after(120):
        while await here.cursor() < len(here.node.invoices):  # noqa: ASYNC110
            await trio.sleep(0.1)


def tell_the_past(tx: Tx) -> None:
    """Have payments of any date shown: normally those from before the first start are not."""
    tx.run("INSERT INTO counter VALUES ('payments_from_s', ?)", -(2**63))


async def fuzz(seed: int, rounds: int = ROUNDS) -> int:
    wall = Wall()
    with TemporaryDirectory() as folder:
        async with open_reading(Path(folder), wall, show=show, raw=False, payments=True, off={OFF: "off"}) as here:
            await here.store.write(tell_the_past)
            return await one_database(here, Fuzzer(seed), wall, rounds)


def main(seconds: float, seed: int) -> None:
    end, total = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            total += trio.run(fuzz, seed, clock=MockClock(autojump_threshold=0))
        except BaseException:
            print(f"seed {seed}", flush=True)
            raise
        seed += 1
        print(f"{total:,} payments", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**9)
