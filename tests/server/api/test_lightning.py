"""Invoices and payments through both doors: the published calls as they were, what was added, and every refusal.

Alice and carol are daemons on one simulated network, in virtual time; alice's doors are the ones that are tried.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bolt11
import pytest
import trio
from bolt11 import Bolt11, MilliSatoshi, TagChar, Tags
from grpclib.exceptions import GRPCError
from tests.conftest import Wall
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, request
from tests.server.house import ANY_PORT
from tests.walks import Stage, stage
from trio.testing import MockClock

from impervious.config import ServerConfig
from impervious.pb import lightning as pb
from impervious.rpc import Channel, open_channel_over
from impervious.server.doors import Doors
from impervious.server.http.front import Front
from impervious.server.listeners import open_listeners
from impervious.services.lightning import LightningService
from impervious.supervisor import Node
from impervious.units import Sat

STRANGER = "e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734"
"""A private key that no node has."""


@dataclass
class Shop:
    where: Stage
    alice: Node
    carol: Node
    doors: Doors
    app: Front
    http: tuple[str, int]
    text: tuple[str, int]

    async def call(
        self, path: str, body: object = b"", *, method: str = "POST", text: bool = False, key: str = ""
    ) -> Reply:
        raw = body if isinstance(body, str | bytes) else json.dumps(body)
        server, headers = self.text if text else self.http, {"idempotency-key": key} if key else {}
        return await request(self.app, method, f"/v1/lightning/{path}", body=raw, server=server, headers=headers)

    async def sold(self, amount: int = 5, memo: str = "") -> str:
        """An invoice of carol's."""
        return (await self.carol.service(LightningService).generate(Sat(amount), memo)).payment_request

    async def is_paid(self, invoice: str) -> bool:
        return await self.carol.service(LightningService).check(invoice)


@pytest.fixture
async def shop(tmp_path: Path, wall: Wall) -> AsyncIterator[Shop]:
    async with stage(tmp_path, wall) as where:
        server = ServerConfig(grpc_addr=ANY_PORT, http_addr=ANY_PORT, http_text_addr=ANY_PORT)
        where.config = replace(where.config, server=server)
        async with where.node("alice") as alice, where.node("carol") as carol, open_listeners(server) as listeners:
            await alice.wait_ready()
            await carol.wait_ready()
            doors, found = Doors(alice, alice.config, listeners), listeners.addresses
            assert found.http_text
            http, text = ((each.host, each.port) for each in (found.http, found.http_text))
            yield Shop(where, alice, carol, doors, doors.http_app(), http, text)


@pytest.fixture
async def stub(shop: Shop) -> AsyncIterator[pb.LightningStub]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(shop.doors.grpc_server().serve_listeners, [listener])
        channel: Channel
        async with open_channel_over(listener.connect, authority="test") as channel:
            yield pb.LightningStub(channel)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


# --- As published -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("amount", [5, "5"])
async def test_an_invoice_is_made_paid_and_checked(
    amount: object, text: bool, shop: Shop, autojump_clock: MockClock
) -> None:
    body = {"amount": amount, "memo": "tea", "pubkey": "unknown fields are ignored"}
    made = await shop.call("generateinvoice", body, text=text)
    assert (made.status, set(made.json)) == (200, {"invoice"})
    read = bolt11.decode(made.json["invoice"])
    assert (read.amount_msat, read.description) == (5000, "tea")
    checked = await shop.call("checkinvoice", made.json, text=text)
    assert (checked.status, checked.body) == (200, b'{"paid":false}')
    await shop.carol.service(LightningService).pay(made.json["invoice"])
    assert (await shop.call("checkinvoice", made.json, text=text)).body == b'{"paid":true}'

    invoice = await shop.sold()
    paid = await shop.call("payinvoice", {"invoice": invoice}, text=text)
    assert (paid.status, set(paid.json)) == (200, {"preimage"})
    assert len(bytes.fromhex(paid.json["preimage"])) == 32
    assert (await shop.call("payinvoice", {"invoice": invoice}, text=text)).json == paid.json
    assert (await shop.call("checkinvoice", {"invoice": invoice}, text=text)).json == {"paid": True}
    assert await shop.is_paid(invoice)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"amount":0}', b'{"amount":null,"memo":""}'])
async def test_an_empty_request_makes_an_invoice_for_any_amount(
    body: bytes, shop: Shop, autojump_clock: MockClock
) -> None:
    made = await shop.call("generateinvoice", body)
    assert made.status == 200
    assert bolt11.decode(made.json["invoice"]).amount_msat is None


# --- Added ------------------------------------------------------------------------------------------------------------


async def test_what_was_added_to_the_published_calls(shop: Shop, autojump_clock: MockClock) -> None:
    body = {"amount": "7", "memo": "mine", "expiry_s": 600, "descriptionHash": "AAAA" * 10 + "AAA="}
    made = await shop.call("generateinvoice", body)
    decoded = (await shop.call("decodeinvoice", made.json)).json
    assert decoded == {
        "pubkey": (await shop.alice.wait_ready()).pubkey.hex,
        "paymentHash": decoded["paymentHash"],
        "amountMsat": "7000",
        "description": "",
        "descriptionHash": "00" * 32,
        "createdS": decoded["createdS"],
        "expiresS": str(int(decoded["createdS"]) + 600),
        "own": True,
    }
    anything = await shop.sold(0)
    paid = await shop.call("payinvoice", {"invoice": anything, "amount": 9, "maxFeeSat": 1})
    assert paid.status == 200
    assert await shop.is_paid(anything)


async def test_a_keysend_with_records_in_hex_and_text(shop: Shop, autojump_clock: MockClock) -> None:
    you = (await shop.carol.wait_ready()).pubkey.hex
    records = [{"type": "34349334", "text": "hi"}, {"type": 70000, "value": "00FF"}]
    sent = await shop.call("keysend", {"pubkey": you, "amount": 3, "records": records})
    assert (sent.status, set(sent.json), sent.json["feeMsat"]) == (200, {"paymentHash", "preimage", "feeMsat"}, "1000")
    [invoice] = (await shop.carol.service(LightningService).invoices()).invoices
    assert (invoice.htlcs[0].records[34349334], invoice.htlcs[0].records[70000]) == (b"hi", b"\x00\xff")
    [paid] = (await shop.call("listpayments", {"limit": 1, "backwards": True})).json["payments"]
    assert (paid["paymentHash"], paid["preimage"]) == (sent.json["paymentHash"], sent.json["preimage"])
    assert (paid["status"], paid["amountMsat"], paid["invoice"]) == ("succeeded", "3000", "")


async def test_a_keysend_with_an_idempotency_key_is_paid_once(shop: Shop, autojump_clock: MockClock) -> None:
    body = {"pubkey": (await shop.carol.wait_ready()).pubkey.hex, "amount": 3}
    replies = [await shop.call("keysend", body, key="k") for _ in range(2)]
    assert replies[0].status == 200
    assert replies[0].json == replies[1].json
    changed = await shop.call("keysend", {**body, "amount": 4}, key="k")
    assert (changed.status, changed.json["code"]) == (409, 6)
    assert len((await shop.carol.service(LightningService).invoices()).invoices) == 1


async def test_a_key_belongs_to_one_invoice(shop: Shop, autojump_clock: MockClock) -> None:
    first, second = await shop.sold(5), await shop.sold(6)
    replies = [await shop.call("payinvoice", {"invoice": first}, key="k") for _ in range(2)]
    assert replies[0].status == 200
    assert replies[0].json == replies[1].json
    clash = await shop.call("payinvoice", {"invoice": second}, key="k")
    assert (clash.status, clash.json["code"]) == (409, 6)
    assert not await shop.is_paid(second)
    refuses(await shop.call("generateinvoice", {"amount": 5}, key="k"), 6, "used for another request")
    assert (await shop.call("generateinvoice", {"amount": 5}, key="other")).status == 200
    refuses(await shop.call("payinvoice", {"invoice": second}, key="other"), 6, "used for another request")
    assert not await shop.is_paid(second)


async def test_lists_and_balance(shop: Shop, autojump_clock: MockClock) -> None:
    made = await shop.call("generateinvoice", {"amount": 5, "memo": "tea"})
    await shop.carol.service(LightningService).pay(made.json["invoice"])
    page = (await shop.call("listinvoices")).json
    [invoice] = page["invoices"]
    assert (page["firstIndex"], page["lastIndex"], invoice["index"]) == ("1", "1", "1")
    assert (invoice["state"], invoice["memo"], invoice["invoice"]) == ("settled", "tea", made.json["invoice"])
    assert (invoice["amountMsat"], invoice["amountPaidMsat"], invoice["keysend"]) == ("5000", "5000", False)
    assert int(invoice["expiresS"]) - int(invoice["createdS"]) == 86_400
    refused = await shop.call("payinvoice", {"invoice": strangers_invoice()})
    assert refused.status == 409
    [failed] = (await shop.call("listpayments")).json["payments"]
    assert (failed["status"], failed["failure"], failed["preimage"]) == ("failed", "no_route", "")
    balance = (await shop.call("balance", method="GET")).json
    assert (balance["localMsat"], balance["remoteMsat"]) == ("500005000", "499995000")
    assert (balance["spendableMsat"], balance["receivableMsat"]) == ("490005000", "489995000")


# --- Bad input: a clear error, and no effect --------------------------------------------------------------------------


def strangers_invoice(*, currency: str = "bcrt", created_s: int = 1_760_000_000) -> str:
    """A payment request by another program, of a node nobody knows."""
    tags = Tags()
    tags.add(TagChar.payment_hash, "11" * 32)
    tags.add(TagChar.payment_secret, bytes(32).hex())
    tags.add(TagChar.description, "a stranger's")
    tags.add(TagChar.min_final_cltv_expiry, 40)
    return bolt11.encode(Bolt11(currency=currency, date=created_s, tags=tags, amount_msat=MilliSatoshi(2000)), STRANGER)


def refuses(reply: Reply, code: int, words: str) -> None:
    assert reply.json["code"] == code, reply.body
    assert words in reply.json["message"]
    assert reply.status == {3: 400, 5: 404, 6: 409, 8: 429, 9: 400, 10: 409, 14: 503}[code]


BAD_TERMS: Mapping[str, tuple[Mapping[str, object], str]] = {
    "negative amount": ({"amount": -1}, "amount is not between 0"),
    "too large amount": ({"amount": "10000000000001"}, "amount is not between 0"),
    "largest number": ({"amount": "9223372036854775807"}, "amount is not between 0"),
    "amount is text": ({"amount": "five"}, "amount"),
    "amount is half": ({"amount": 1.5}, "amount"),
    "amount beyond int64": ({"amount": "9223372036854775808"}, "amount"),
    "memo too long": ({"memo": "m" * 1025}, "memo has 1025 bytes; LND keeps up to 1024: shorten it"),
    "memo too long in bytes": ({"memo": "ö" * 513}, "memo has 1026 bytes"),
    "memo is a number": ({"memo": 5}, "memo"),
    "negative expiry": ({"expiryS": -1}, "expiry_s is not between 1 second and a year"),
    "expiry of years": ({"expiryS": 31536001}, "expiry_s is not between"),
    "short hash": ({"descriptionHash": "AAAA"}, "description_hash has 3 bytes; a SHA-256 has 32"),
    "hash is not base64": ({"descriptionHash": "&&&&"}, "descriptionHash"),
}


async def test_a_key_makes_one_invoice(shop: Shop, autojump_clock: MockClock) -> None:
    made = [await shop.call("generateinvoice", {"amount": 5, "memo": "tea"}, key="k") for _ in range(2)]
    assert made[0].status == 200
    assert made[0].json == made[1].json
    assert len((await shop.call("listinvoices", key="k")).json["invoices"]) == 1  # a key that changes nothing
    refuses(await shop.call("generateinvoice", {"amount": 6, "memo": "tea"}, key="k"), 6, "used for another request")
    other = await shop.call("generateinvoice", {"amount": 5, "memo": "tea"}, key="other")
    plain = await shop.call("generateinvoice", {"amount": 5, "memo": "tea"})
    assert len({each.json["invoice"] for each in (made[0], other, plain)}) == 3


@pytest.mark.parametrize("name", BAD_TERMS)
async def test_an_invoice_that_cannot_be_made(name: str, shop: Shop, autojump_clock: MockClock) -> None:
    body, words = BAD_TERMS[name]
    refuses(await shop.call("generateinvoice", body), 3, words)
    assert (await shop.call("listinvoices")).json["invoices"] == []


BAD_INVOICES: Mapping[str, tuple[object, str]] = {
    "missing": ("", "invoice is missing: give the text that the payee made"),
    "blank": (" \n", "invoice is missing"),
    "only a scheme": ("lightning:", "invoice is missing"),
    "a number": (5, "invoice"),
    "no invoice": ("hello", "cannot read this invoice"),
    "an address": ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "cannot read this invoice"),
    "cut off": (strangers_invoice()[:-1], "cannot read this invoice"),
    "two": (strangers_invoice() * 2, "cannot read this invoice"),
    "too long": ("lnbcrt1" + "q" * 4096, "invoice has 4103 characters; LND reads up to 4096"),
    "for bitcoin": (strangers_invoice(currency="bc"), "cannot read this invoice"),
    "for testnet": (strangers_invoice(currency="tb"), "cannot read this invoice"),
    "with controls": ("ln\x00bcrt1", "cannot read this invoice"),
}


@pytest.mark.parametrize("path", ["payinvoice", "checkinvoice", "decodeinvoice"])
@pytest.mark.parametrize("name", BAD_INVOICES)
async def test_a_text_that_is_no_invoice_here(name: str, path: str, shop: Shop, autojump_clock: MockClock) -> None:
    invoice, words = BAD_INVOICES[name]
    refuses(await shop.call(path, {"invoice": invoice}), 3, words)


async def nothing_was_tried(shop: Shop) -> None:
    assert (await shop.call("listpayments")).json["payments"] == []


async def test_our_own_invoice(shop: Shop, autojump_clock: MockClock) -> None:
    made = await shop.call("generateinvoice", {"amount": 5})
    refuses(await shop.call("payinvoice", made.json), 3, "this node's own: a node cannot pay itself")
    await nothing_was_tried(shop)


async def test_an_expired_invoice(shop: Shop, autojump_clock: MockClock) -> None:
    invoice = strangers_invoice(created_s=1_760_000_000 - 3601)
    refuses(await shop.call("payinvoice", {"invoice": invoice}), 9, "expired 1 s ago: ask the payee for a new one")
    await nothing_was_tried(shop)


async def test_an_invoice_that_nobody_here_knows(shop: Shop, autojump_clock: MockClock) -> None:
    refuses(await shop.call("checkinvoice", {"invoice": strangers_invoice()}), 5, "ask the node that made it")
    refuses(await shop.call("payinvoice", {"invoice": strangers_invoice()}), 10, "not paid: no route to the recipient")
    assert (await shop.call("checkinvoice", {"invoice": strangers_invoice()})).json == {"paid": False}


@pytest.mark.parametrize(
    ("amount", "added", "code", "words"),
    [
        (0, {}, 3, "leaves the amount to the payer: give amount, in satoshis"),
        (0, {"amount": -1}, 3, "amount is negative"),
        (0, {"amount": "9223372036854775807"}, 3, "amount is more than 100000 bitcoin"),
        (0, {"amount": "x"}, 3, "amount"),
        (5, {"amount": 4}, 3, "asks for 5 sat, which amount cannot change: leave it out"),
        (5, {"amount": -5}, 3, "amount is negative"),
        (5, {"maxFeeSat": -1}, 3, "max_fee_sat is negative"),
        (5, {"maxFeeSat": "9223372036854775807"}, 3, "max_fee_sat is more than 100000 bitcoin"),
        (5, {"maxFeeSat": 99_996}, 8, "this may cost 100001 sat, and 0 of the 100000 sat allowed in 24 hours"),
        (1_000_000, {}, 8, "raise lightning.daily_limit_sat"),
    ],
)
async def test_a_payment_that_cannot_be_made_so(
    amount: int, added: Mapping[str, object], code: int, words: str, shop: Shop, autojump_clock: MockClock
) -> None:
    invoice = await shop.sold(amount)
    refuses(await shop.call("payinvoice", {"invoice": invoice, **added}), code, words)
    await nothing_was_tried(shop)
    assert not await shop.is_paid(invoice)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"pubkey": ""}, "pubkey is missing"),
        ({"pubkey": "02" * 32}, "pubkey has 64 characters"),
        ({"amount": 0}, "amount is missing: give at least 1 satoshi"),
        ({"amount": -3}, "amount is negative"),
        ({"amount": "x"}, "amount"),
        ({"maxFeeSat": -3}, "max_fee_sat is negative"),
        ({"records": [{"value": "00"}]}, "record type 0 is not between 65536"),
        ({"records": [{"type": 70000, "value": "0"}]}, "the value of record 70000 is not hexadecimal"),
        ({"records": [{"type": 70000, "value": "zz"}]}, "the value of record 70000 is not hexadecimal"),
        ({"records": [{"type": 70000, "value": "00", "text": "x"}]}, "record 70000 has a value and a text"),
        ({"records": [{"type": 70000, "hex": "00"}]}, "record 70000 is empty: give its value in hex"),
        (
            {"records": [{"type": 70000, "text": "a"}, {"type": 70000, "value": "00"}]},
            "record type 70000 is there twice",
        ),
        ({"records": [{"type": 5482373484, "value": "00"}]}, "has a meaning of its own"),
        ({"records": [{"type": 70000, "text": "x" * 1201}]}, "the records have 1201 bytes"),
        ({"records": "70000"}, "records"),
    ],
)
async def test_a_keysend_that_cannot_be_sent(
    body: Mapping[str, object], words: str, shop: Shop, autojump_clock: MockClock
) -> None:
    you = (await shop.carol.wait_ready()).pubkey.hex
    refuses(await shop.call("keysend", {"pubkey": you, "amount": 1, **body}), 3, words)
    await nothing_was_tried(shop)


@pytest.mark.parametrize("path", ["listinvoices", "listpayments"])
@pytest.mark.parametrize("body", [{"limit": -1}, {"limit": 1001}, {"indexOffset": -1}, {"limit": "x"}])
async def test_a_page_that_is_not_there(
    body: Mapping[str, object], path: str, shop: Shop, autojump_clock: MockClock
) -> None:
    refuses(await shop.call(path, body), 3, "limit" if "limit" in body else "index_offset is negative")


async def test_while_the_node_is_away(shop: Shop, autojump_clock: MockClock) -> None:
    invoice = await shop.sold()
    shop.where.network.lnd("alice").lock()
    for path in ("generateinvoice", "payinvoice", "checkinvoice", "decodeinvoice", "listinvoices", "listpayments"):
        refuses(await shop.call(path, {"invoice": invoice}), 14, "lock")
    refuses(await shop.call("balance", method="GET"), 14, "lock")
    shop.where.network.lnd("alice").unlock()
    await nothing_was_tried(shop)


# --- The same over gRPC -----------------------------------------------------------------------------------------------


async def test_over_grpc(shop: Shop, stub: pb.LightningStub, autojump_clock: MockClock) -> None:
    made = await stub.generate_invoice(pb.GenerateInvoiceRequest(amount=5, memo="tea"))
    assert not (await stub.check_invoice(pb.CheckInvoiceRequest(invoice=made.invoice))).paid
    await shop.carol.service(LightningService).pay(made.invoice)
    assert (await stub.check_invoice(pb.CheckInvoiceRequest(invoice=made.invoice))).paid
    invoice = await shop.sold()
    paid = await stub.pay_invoice(pb.PayInvoiceRequest(invoice=invoice))
    assert len(bytes.fromhex(paid.preimage)) == 32
    assert await shop.is_paid(invoice)


@pytest.mark.parametrize(
    ("method", "message", "code", "words"),
    [
        ("generate_invoice", pb.GenerateInvoiceRequest(amount=-1), 3, "amount is not between 0"),
        ("generate_invoice", pb.GenerateInvoiceRequest(memo="m" * 1025), 3, "memo has 1025 bytes"),
        ("pay_invoice", pb.PayInvoiceRequest(), 3, "invoice is missing"),
        ("pay_invoice", pb.PayInvoiceRequest(invoice=strangers_invoice(currency="bc")), 3, "cannot read this invoice"),
        ("pay_invoice", pb.PayInvoiceRequest(invoice=strangers_invoice(created_s=1_700_000_000)), 9, "expired"),
        ("check_invoice", pb.CheckInvoiceRequest(invoice=strangers_invoice()), 5, "ask the node that made it"),
        ("decode_invoice", pb.DecodeInvoiceRequest(invoice="x"), 3, "cannot read this invoice"),
        ("list_invoices", pb.ListInvoicesRequest(limit=1001), 3, "limit is not between 1 and 1000"),
    ],
)
async def test_bad_input_over_grpc(
    method: str, message: Any, code: int, words: str, stub: pb.LightningStub, autojump_clock: MockClock
) -> None:
    with pytest.raises(GRPCError, match=words) as caught:
        await getattr(stub, method)(message)
    assert caught.value.status.value == code
