"""Commands of a service over REST: arguments from JSON, answers to JSON, and every body that is no good."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from uuid import UUID

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, request
from tests.server.house import ALICE, ME, Inside, config, open_app, without_service
from tests.service.toys import EchoService

from impervious.errors import FailedPrecondition
from impervious.model import NodePubkey, ServiceType
from impervious.pb.signing import SignRequest, SignResponse
from impervious.rpc import open_channel_over
from impervious.server.commands import routes
from impervious.server.operations import CallContext
from impervious.service import Service, ServiceContext, command
from impervious.units import Sat
from impervious.wire.json import Encoding


class Colour(Enum):
    RED = "red"


@dataclass
class Answer:
    some_text: str
    raw: bytes
    nothing: None = None


class WideService(Service):
    service_type = ServiceType("wide")

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self.seen: dict[str, object] = {}

    @command("take")
    async def take(
        self,
        a_text: str = "",
        data: bytes = b"",
        flag: bool = False,
        number: int = 0,
        price: Sat = Sat(0),
        share: float = 0.0,
        pubkey: NodePubkey | None = None,
        reply_to: UUID | None = None,
        names: Sequence[str] = (),
        more: Mapping[str, object] | None = None,
        whatever: object = None,
    ) -> None:
        self.seen = {key: value for key, value in locals().items() if key != "self"}

    @command("need")
    async def need(self, a_text: str, number: int | None) -> Answer:
        return Answer(some_text=f"{a_text} {number}", raw=b"\xfb\xff")

    @command("give")
    async def give(self) -> dict[str, object]:
        return {"key": ALICE, "id": UUID(int=1), "list": (Colour.RED, 1, 1.5, None, True), "set": {Sat(5)}}

    @command("blunder")
    async def blunder(self) -> object:
        return {"object": object()}


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path), services=[WideService, EchoService]) as opened:
        yield opened


async def post(inside: Inside, path: str, body: object = b"", *, query: str = "", key: str | None = None) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body)
    headers = {} if key is None else {"idempotency-key": key}
    return await request(inside.app, "POST", f"/v1/x/{path}{query}", body=raw, server=inside.http, headers=headers)


async def taken(inside: Inside, body: object, *, query: str = "") -> dict[str, object]:
    service = inside.house.services.get(WideService)
    service.seen = {}
    reply = await post(inside, "wide/take", body, query=query)
    assert (reply.status, reply.json) == (200, {})
    return service.seen


async def test_every_type_is_read(inside: Inside) -> None:
    everything = {
        "aText": "ö",
        "data": "-_8",
        "flag": True,
        "number": "-7",
        "price": 9,
        "share": 1,
        "pubkey": ALICE.hex,
        "reply_to": str(UUID(int=5)),
        "names": ["a", "b"],
        "more": {"x": [1]},
        "whatever": [None],
        "unknown": 1,
    }
    assert await taken(inside, everything) == {
        "a_text": "ö",
        "data": b"\xfb\xff",
        "flag": True,
        "number": -7,
        "price": 9,
        "share": 1.0,
        "pubkey": ALICE,
        "reply_to": UUID(int=5),
        "names": ["a", "b"],
        "more": {"x": [1]},
        "whatever": [None],
    }
    nothing = await taken(inside, b"")
    assert nothing == await taken(inside, b" null ") == await taken(inside, {"aText": None})
    assert nothing["a_text"] == ""
    assert (await taken(inside, {"data": "plain"}, query="?encoding=text"))["data"] == b"plain"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'{"number": NaN}', "NaN is no number"),
        (b"[" * 100_000, "too large"),
        (b'{"number": ' + b"9" * 5000 + b"}", "too large"),
        ({"aText": 1}, "aText must be text"),
        (b'{"aText": "\\ud800"}', "a lone surrogate"),
        ({"data": "a*b"}, "data is not base64"),
        ({"data": "abcde"}, "data is not base64"),
        ({"flag": "true"}, "flag must be true or false"),
        ({"number": 1.5}, "number must be a whole number"),
        ({"number": True}, "number must be a whole number"),
        ({"number": "1e3"}, "number must be a whole number"),
        ({"number": 2**63}, "number is out of range"),
        ({"number": str(2**70)}, "number is out of range"),
        ({"price": "x"}, "price must be a whole number"),
        ({"share": "1"}, "share must be a number"),
        ({"pubkey": "02"}, "66 hex digits"),
        ({"replyTo": "x"}, "replyTo is not the id"),
        ({"names": "a"}, "names must be a list"),
        ({"names": ["a", 1]}, r"names[1] must be text"),
        ({"more": []}, "more must be an object"),
    ],
)
async def test_every_bad_body_says_what_is_wrong(inside: Inside, body: object, says: str) -> None:
    reply = await post(inside, "wide/take", body)
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert says in reply.json["message"]
    assert inside.house.services.get(WideService).seen == {}


async def test_what_must_be_given_is_asked_for(inside: Inside) -> None:
    reply = await post(inside, "wide/need")
    assert (reply.status, reply.json["message"]) == (400, "aText is missing")
    reply = await post(inside, "wide/need", {"a_text": "x"})
    assert reply.json == {"someText": "x None", "raw": "+/8=", "nothing": None}
    reply = await post(inside, "wide/need", {"a_text": "x"}, query="?encoding=text")
    assert reply.json["raw"] == "\ufffd\ufffd"


async def test_answers_become_json(inside: Inside) -> None:
    reply = await post(inside, "wide/give")
    expected = {"key": ALICE.hex, "id": str(UUID(int=1)), "list": ["red", 1, 1.5, None, True], "set": [5]}
    assert reply.json == expected
    assert (await post(inside, "wide/blunder")).status == 500


async def test_a_command_does_what_it_says(inside: Inside) -> None:
    reply = await post(inside, "echo/say", {"pubkey": ALICE.hex, "text": "hello"})
    assert reply.status == 200
    assert UUID(reply.json["id"]).version == 4
    assert await inside.house.stored_messages() == 1
    refused = await post(inside, "echo/say", {"pubkey": ALICE.hex, "text": "hello", "times": 2})
    assert (refused.status, refused.json["message"]) == (400, "times must be 1")
    own = await post(inside, "echo/say", {"pubkey": ME.hex, "text": "hello"})
    assert "this node's own" in own.json["message"]
    assert await inside.house.stored_messages() == 1


async def test_a_command_takes_a_key_or_refuses_it(inside: Inside) -> None:
    said = [await post(inside, "echo/say", {"pubkey": ALICE.hex, "text": "hello"}, key="k") for _ in range(2)]
    assert said[0].status == 200
    assert said[0].json == said[1].json
    other = await post(inside, "echo/say", {"pubkey": ALICE.hex, "text": "other"}, key="k")
    assert (other.status, other.json["code"]) == (409, 6)
    assert await inside.house.stored_messages() == 1
    refused = await post(inside, "echo/heard", key="k")
    assert (refused.status, refused.json["code"]) == (400, 3)
    assert "heard takes no Idempotency-Key" in refused.json["message"]


def test_a_key_is_a_text() -> None:
    class Odd(WideService):
        @command("odd")
        async def odd(self, idempotency_key: int = 0) -> None: ...

    with pytest.raises(TypeError, match=r"idempotency_key comes from a header: its type is str \| None"):
        routes([Odd.__new__(Odd)])


async def test_a_service_without_a_number_cannot_send(inside: Inside) -> None:
    with pytest.raises(FailedPrecondition, match=r"wide has no record number.*custom_record_number"):
        await inside.house.services.get(WideService).context.send(ALICE, b"x")


async def test_paths_that_are_not_there(inside: Inside) -> None:
    assert (await post(inside, "echo/sing")).status == 404
    assert (await post(inside, "nobody/say")).status == 404
    wrong = await request(inside.app, "GET", "/v1/x/echo/say", server=inside.http)
    assert (wrong.status, wrong.json["code"]) == (501, 12)


async def test_switched_off_it_says_which_key(tmp_path: Path) -> None:
    off = without_service(config(tmp_path), "echo")
    async with open_app(off, services=[EchoService]) as inside:
        reply = await post(inside, "echo/say", {"pubkey": ALICE.hex, "text": "hello"})
        assert (reply.status, reply.json["code"]) == (501, 12)
        assert "echo" in reply.json["message"]
        assert "service_list has active: false" in reply.json["message"]
        assert await inside.house.stored_messages() == 0
        assert (await repeat(inside, "x")).status is Status.UNIMPLEMENTED


async def repeat(inside: Inside, text: str) -> GRPCError:
    """Call the service's own gRPC; return the error, or one that is OK with the answer as its message."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            try:
                answer = await channel.unary_unary("/echo.Echo/Repeat", SignRequest(msg=text), SignResponse)
                ended = GRPCError(Status.OK, answer.signature)
            except GRPCError as error:
                ended = error
        nursery.cancel_scope.cancel()
    return ended


async def test_its_own_grpc_service_is_served_with_our_errors(inside: Inside) -> None:
    answer = await repeat(inside, "hello")
    assert (answer.status, answer.message) == (Status.OK, "hello")
    error = await repeat(inside, "")
    assert (error.status, error.message) == (Status.INVALID_ARGUMENT, "there is nothing to repeat")


@pytest.mark.parametrize("hint", [complex, list[complex], EchoService])
def test_a_parameter_that_json_cannot_give_is_refused(hint: object) -> None:
    async def take(self: object, what: object) -> None: ...

    take.__annotations__["what"] = hint

    class Odd(WideService):
        pass

    setattr(Odd, "take", command("take")(take))  # noqa: B010 - with another signature, which mypy would mind
    with pytest.raises(TypeError, match="does not come from JSON"):
        routes([Odd.__new__(Odd)])


async def test_encoding_is_the_calls(inside: Inside) -> None:
    [route] = [each for each in routes([inside.house.services.get(WideService)]) if each.path.endswith("/need")]
    answer = await route.call(b'{"aText":"x"}', CallContext(encoding=Encoding.TEXT))
    assert json.loads(answer)["someText"] == "x None"
