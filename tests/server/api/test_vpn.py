"""The vpn calls through both doors."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import trio
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, request
from tests.server.house import ALICE, BOB, LOCKED, ME, Inside, config, open_app, without_service
from tests.services.vpn.shop import SERVER_KEY, private_key

from impervious.pb.vpn import AcceptContractRequest, GetConfigRequest, ListContractsRequest, VpnStub
from impervious.rpc import open_channel_over
from impervious.services.vpn.buyer_books import SqlBuyerBooks
from impervious.services.vpn.contract import Phase, Sold, Term
from impervious.services.vpn.purchase import Bought, Seen, Stage
from impervious.services.vpn.seller_books import SqlSellerBooks
from impervious.services.vpn.service import VpnService
from impervious.store import outbox
from impervious.units import Msat
from impervious.wireguard import ClientConfig, PresharedKey, interface_name

NOW_MS = 1_760_000_000_000
END_MS = NOW_MS + 3_600_000
KEY = private_key(7)
CONFIG = ClientConfig.received(
    KEY,
    address="10.0.0.2",
    dns="10.0.0.1",
    server_key=SERVER_KEY.public.text,
    preshared_key=PresharedKey(b"\x09" * 32).text,
    allowed_ips="0.0.0.0/0, ::/0",
    endpoint="[2001:db8::1]:51820",
)
BOUGHT = Bought(
    seller=ALICE,
    nonce="mine",
    request=UUID(int=1),
    private_key=KEY,
    price=Msat(100_000),
    hours=1,
    stage=Stage.ACTIVE,
    term=Term(expires_ms=END_MS, span_ms=3_600_000),
    config=CONFIG,
    budget=Msat(500_000),
)
SOLD = Sold(
    nonce="theirs",
    buyer=BOB,
    request=UUID(int=2),
    key=private_key(8).public,
    preshared_key=PresharedKey(b"\x08" * 32),
    address=CONFIG.address,
    hours=2,
    price=Msat(200_000),
    paid_ms=NOW_MS,
    term=Term(expires_ms=END_MS, span_ms=7_200_000),
    phase=Phase.GONE,
    reason="its time is over",
)
QUOTE = Seen(seller=ALICE, nonce="offered", price=Msat(100_000), hours=1, expires_ms=NOW_MS + 600_000)


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened_app:
        context = opened_app.house.services.get(VpnService).context
        await context.transaction(lambda tx: SqlBuyerBooks(tx).keep_bought(BOUGHT))
        await context.transaction(lambda tx: SqlBuyerBooks(tx).keep_seen(QUOTE))
        await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(SOLD))
        yield opened_app


async def post(inside: Inside, path: str, body: object, **headers: str) -> Reply:
    return await request(
        inside.app,
        "POST",
        f"/v1/vpn/{path}",
        body=json.dumps(body).encode(),
        server=inside.http,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def sent(inside: Inside, identifier: str) -> tuple[int, object]:
    stored, _ = await inside.house.store.read(lambda tx: outbox.load(tx, UUID(identifier)))
    assert stored.message.recipient == ALICE
    return stored.message.amount, json.loads(stored.message.payload)


async def test_the_published_calls(inside: Inside) -> None:
    asked = await post(inside, "quote", {"pubkey": ALICE.hex})
    assert (asked.status, set(asked.json)) == (200, {"id"})
    assert await sent(inside, asked.json["id"]) == (2000, {"recordId": "QUOTE_REQUEST", "hours": 1})
    asked = await post(inside, "quote", {"pubkey": ALICE.hex, "hours": 24})
    assert (await sent(inside, asked.json["id"]))[1] == {"recordId": "QUOTE_REQUEST", "hours": 24}
    accepted = await post(inside, "contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "120"})
    amount, payload = await sent(inside, accepted.json["id"])
    assert amount == 100_000
    assert isinstance(payload, dict)
    assert (payload["recordId"], payload["nonce"], len(payload["public_key"])) == ("CONTRACT_REQUEST", "offered", 44)
    again = await post(inside, "contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "120"})
    assert again.json == accepted.json
    more = {"pubkey": ALICE.hex, "nonce": "mine", "price": "100"}
    renewed = await post(inside, "refresh", more, idempotency_key="once")
    assert await sent(inside, renewed.json["id"]) == (100_000, {"recordId": "REFRESH_REQUEST", "nonce": "mine"})
    assert (await post(inside, "refresh", more, idempotency_key="once")).json == renewed.json
    assert await inside.house.stored_messages() == 4


async def test_keys_are_honoured(inside: Inside) -> None:
    quote = {"pubkey": ALICE.hex, "hours": 2}
    accept = {"pubkey": ALICE.hex, "nonce": "offered", "price": "120"}
    for path, body, other in (("quote", quote, {"hours": 3}), ("contract", accept, {"price": "121"})):
        first = await post(inside, path, body, idempotency_key=path)
        assert first.status == 200
        assert (await post(inside, path, body, idempotency_key=path)).json == first.json
        clash = await post(inside, path, body | other, idempotency_key=path)
        assert (clash.status, clash.json["code"]) == (409, 6)
    assert await inside.house.stored_messages() == 2


async def test_contracts_are_shown_from_both_ends(inside: Inside) -> None:
    listed = await request(inside.app, "GET", "/v1/vpn/contracts", server=inside.http)
    theirs, mine = listed.json["contracts"]
    assert (theirs["role"], theirs["pubkey"], theirs["state"], theirs["price"]) == ("seller", BOB.hex, "gone", "200")
    assert theirs["reason"] == "its time is over"
    assert mine == {
        "role": "buyer",
        "pubkey": ALICE.hex,
        "nonce": "mine",
        "state": "active",
        "price": "100",
        "hours": 1,
        "expiresAt": str(END_MS // 1000),
        "address": "10.0.0.2",
        "endpoint": "[2001:db8::1]:51820",
        "reason": "",
        "receivedBytes": "0",
        "sentBytes": "0",
        "renewals": "500",
        "renewed": "0",
        "returned": "0",
    }
    assert (await post(inside, "get", {"nonce": "mine"})).json == mine
    assert (await post(inside, "get", {"nonce": "theirs", "pubkey": BOB.hex})).json == theirs
    assert KEY.text not in repr(listed.body)


async def test_the_file_and_the_budget(inside: Inside) -> None:
    found = (await post(inside, "config", {"nonce": "mine"})).json
    assert found == {"config": CONFIG.text(), "interface": interface_name(f"{ALICE.hex} mine")}
    assert (await post(inside, "renew", {"pubkey": ALICE.hex, "nonce": "mine", "budget": "70"})).json == {}
    assert (await post(inside, "get", {"nonce": "mine"})).json["renewals"] == "70"


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("quote", {}, 3, "pubkey is missing"),
        ("quote", {"pubkey": ME.hex}, 3, "this node's own"),
        ("quote", {"pubkey": ALICE.hex, "hours": -1}, 3, "hours must be at least 1"),
        ("contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "99"}, 9, "nothing was paid"),
        ("contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "1e3"}, 3, "whole satoshis in digits"),
        ("contract", {"pubkey": ALICE.hex, "nonce": "offered"}, 3, "whole satoshis in digits"),
        ("contract", {"pubkey": BOB.hex, "nonce": "offered", "price": "100"}, 5, "no such quote came"),
        ("contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "100", "renewals": "-1"}, 3, "negative"),
        ("contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "9" * 16}, 3, "more than there are"),
        ("contract", {"pubkey": ALICE.hex, "nonce": "offered", "price": "9" * 17}, 3, "whole satoshis in digits"),
        ("renew", {"pubkey": ALICE.hex, "nonce": "mine", "budget": str(2**63 - 1)}, 3, "more than there are"),
        ("refresh", {"pubkey": ALICE.hex, "nonce": "none", "price": "100"}, 5, "no such contract"),
        ("refresh", {"pubkey": ALICE.hex, "nonce": "mine", "price": "0"}, 3, "the contract's own: 100 sat"),
        ("get", {"nonce": "none"}, 5, "there is no contract"),
        ("config", {"nonce": "theirs"}, 5, "only its buyer"),
        ("cancel", {"nonce": "mine"}, 5, "no contract mine was sold here"),
        ("cancel", {"nonce": "theirs"}, 9, "is gone"),
        ("renew", {"pubkey": ALICE.hex, "nonce": "mine", "budget": "-1"}, 3, "negative"),
    ],
)
async def test_every_bad_input_says_what_to_do(inside: Inside, path: str, body: object, code: int, says: str) -> None:
    reply = await post(inside, path, body)
    assert (reply.json["code"], says in reply.json["message"]) == (code, True), reply.json
    assert await inside.house.stored_messages() == 0


async def test_locked_or_off_nothing_is_sent(tmp_path: Path) -> None:
    async with open_app(config(tmp_path)) as inside:
        inside.house.lightning.status = LOCKED
        assert (await post(inside, "quote", {"pubkey": ALICE.hex})).status == 503
    async with open_app(without_service(config(tmp_path), "vpn")) as inside:
        for path in ("quote", "contract", "refresh", "get", "config", "cancel", "renew"):
            assert (await post(inside, path, {"pubkey": ALICE.hex})).status == 501
        assert await inside.house.stored_messages() == 0


async def test_the_same_over_grpc(inside: Inside) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            stub = VpnStub(channel)  # type: ignore[arg-type]
            wanted = AcceptContractRequest(pubkey=ALICE.hex, nonce="offered", price="100")
            assert UUID((await stub.accept_contract(wanted)).id)
            listed = await stub.list_contracts(ListContractsRequest(role="buyer"))
            assert [(each.nonce, each.state) for each in listed.contracts] == [
                ("mine", "active"),
                ("offered", "paying"),
            ]
            assert (await stub.get_config(GetConfigRequest(nonce="mine"))).config == CONFIG.text()
        nursery.cancel_scope.cancel()
