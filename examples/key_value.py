"""A paid key-value store: nodes keep values at another node, and pay it for each byte that it stores or returns.

docs/services.md explains it, and how it gets into a daemon (by an entry point) or into a program of yours.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final

import trio

from impervious.errors import ConfigError, FailedPrecondition, Malformed
from impervious.model import NodePubkey, RecordType, ServiceType, Shown
from impervious.service import Effect, Fact, Service, ServiceContext, ServiceTx, VerifiedMessage, command
from impervious.units import Msat, Sat, msat, sat_charged

TAKE_ANSWER: Final = "DELETE FROM kv_answer WHERE request = ? RETURNING data"


class KeyValueService(Service):
    """Keeps values for other nodes, and has them keep ours."""

    service_type = ServiceType("kv")
    record_type = RecordType(424_242)
    handles_facts = True
    migrations = (
        """
        CREATE TABLE kv_pair (owner BLOB, key TEXT, value BLOB NOT NULL, PRIMARY KEY (owner, key)) WITHOUT ROWID;
        CREATE TABLE kv_answer (request BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
        """,
    )

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        data = context.config.data or {}
        price = data.get("price_msat_per_byte", 10) if isinstance(data, Mapping) else None
        if type(price) is not int or price < 0:
            raise ConfigError("kv: additional_service_data.price_msat_per_byte must be a whole number from 0")
        self.price = price

    @command("put")
    async def put(self, pubkey: NodePubkey, key: str, value: bytes, amount: Sat = Sat(100)) -> Mapping[str, str]:
        """Have a node keep a value; of `amount` satoshis, what is too much comes back."""
        return await self.ask(pubkey, {"key": key, "value": b64encode(value).decode()}, amount)

    @command("get")
    async def get(self, pubkey: NodePubkey, key: str, amount: Sat = Sat(100)) -> Mapping[str, bytes]:
        """Fetch a value that a node keeps for us."""
        return {"value": b64decode((await self.ask(pubkey, {"key": key}, amount)).get("value", ""))}

    async def ask(self, node: NodePubkey, request: Mapping[str, str], amount: Sat) -> Mapping[str, str]:
        """Send a request and wait for its answer."""
        payload = json.dumps(request).encode()
        await self.context.check_recipient(node)
        sent = await self.context.transaction(lambda tx: tx.ask(node, payload, amount=msat(amount)))
        await self.context.wait(sent)
        with self.context.alarm() as alarm, trio.move_on_after(60):
            while (row := await self.context.transaction(lambda tx: tx.one(TAKE_ANSWER, sent.bytes))) is None:
                await alarm.sleep_until(None)
            answer = read(row[0])
            if "error" in answer:
                raise FailedPrecondition(f"{node} says: {answer['error']}")
            return answer
        raise FailedPrecondition(f"{node} was paid and is silent; its answer will be an event that replies to {sent}")

    def project(self, message: VerifiedMessage) -> Shown | None:
        """Drop what cannot be read; keep an answer back until it is known whether we asked."""
        read(message.data)
        return Shown(data=message.data, public=message.reply_to is None)

    async def handle(self, fact: Fact) -> Effect | None:
        """Serve a request or take an answer, exactly once: what is stored and what is sent is one transaction."""
        if not isinstance(fact, VerifiedMessage):
            return None
        return lambda tx: self.serve(tx, fact) if fact.reply_to is None else self.take(tx, fact)

    def serve(self, tx: ServiceTx, request: VerifiedMessage) -> None:
        """Store or find a value, if it was paid for."""
        fields = read(request.data)
        owner, key = request.sender.raw, fields.get("key", "")
        if "value" in fields:
            value = b64decode(fields["value"])
            if self.answer(tx, request, {"stored": str(len(value))}, charge=self.price * len(value)):
                tx.run("INSERT OR REPLACE INTO kv_pair VALUES (?, ?, ?)", owner, key, value)
        elif row := tx.one("SELECT value FROM kv_pair WHERE owner = ? AND key = ?", owner, key):
            self.answer(tx, request, {"value": b64encode(row[0]).decode()}, charge=self.price * len(row[0]))
        else:
            self.answer(tx, request, {"error": "there is no such key"}, charge=0)

    def take(self, tx: ServiceTx, answer: VerifiedMessage) -> None:
        """Keep and show an answer that we wait for; others are ignored."""
        if answer.reply_to is not None and tx.close_request(answer):
            tx.run("INSERT INTO kv_answer VALUES (?, ?)", answer.reply_to.bytes, answer.data)
            tx.show(answer, Shown(data=answer.data))
            tx.wake()

    def answer(self, tx: ServiceTx, request: VerifiedMessage, answer: Mapping[str, str], *, charge: int) -> bool:
        """Answer and give change, or refuse and give nearly all of it back; say whether it was paid for."""
        payload = json.dumps(answer).encode()
        least = self.context.minimum_amount(len(payload))
        costs = charge + 2 * least  # the answer carries something, and its way costs up to as much
        if request.amount < costs:
            if charge:
                self.answer(tx, request, {"error": f"that costs {sat_charged(Msat(costs))} sat"}, charge=0)
            return False
        tx.owe(request, payload, amount=Msat(request.amount - costs + least))
        return True


def read(data: bytes) -> dict[str, str]:
    """Read what another node sent: an object of texts, of which `value` is base64."""
    try:
        fields = dict(json.loads(data))
        "".join([*fields, *fields.values()]).encode()  # half a character cannot be encoded
        b64decode(fields.get("value", ""), validate=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"no request and no answer: {error!r}") from None
    return fields
