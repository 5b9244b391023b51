"""The document is what the routes are: valid, complete, and true of real requests and answers."""

import json
from collections.abc import AsyncIterator, Hashable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from grpclib.const import Status
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from tests.server.asgi import Reply, opened, request
from tests.server.house import ALICE, LOCKED, Inside, config, new, open_app
from tests.server.test_commands import WideService
from tests.server.test_doors import http, town
from tests.service.toys import EchoService

from impervious.server.api.table import operations
from impervious.server.openapi import OPENAPI
from impervious.server.openapi.document import example
from impervious.wire.json import Encoding, decode

Json = dict[str, Any]


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path), services=[EchoService, WideService]) as opened_app:
        yield opened_app


async def document(inside: Inside, *, text: bool = False) -> Json:
    reply = await request(inside.app, "GET", OPENAPI, server=inside.text if text else inside.http)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    found: Json = reply.json
    return found


def fits(document: Json, schema: Json, value: object) -> list[str]:
    """What is wrong with a value, by the document's own words."""
    registry: Registry[Any] = Registry().with_resource("", DRAFT202012.create_resource(document))
    rooted = {"$ref": f"#{schema['$ref'][1:]}"} if "$ref" in schema else schema
    resolved = json.loads(json.dumps(rooted).replace('"#/', '"urn:doc#/'))
    registry = registry.with_resource("urn:doc", DRAFT202012.create_resource(document))
    return [error.message for error in Draft202012Validator(resolved, registry=registry).iter_errors(value)]


def schema_of_answer(document: Json, method: str, path: str, status: int = 200) -> Json:
    responses = document["paths"][path][method.lower()]["responses"]
    response = responses.get(str(status), responses["default"])
    if "$ref" in response:
        response = document["components"]["responses"]["Problem"]
    found: Json = response["content"]["application/json"]["schema"]
    return found


def routes(inside: Inside) -> Iterator[tuple[str, str]]:
    """What the application answers to."""
    for row in inside.doors.table:
        yield row.method, row.route


@pytest.mark.parametrize("text", [False, True])
async def test_it_is_valid(inside: Inside, text: bool) -> None:
    found: dict[Hashable, Any] = dict((await document(inside, text=text)).items())
    OpenAPIV31SpecValidator(found).validate()


async def test_every_route_is_in_it(inside: Inside) -> None:
    found = await document(inside)
    there = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert there == {
        *((row.method, row.route) for row in inside.doors.table),
        ("POST", "/v1/x/echo/say"),
        ("POST", "/v1/x/echo/heard"),
        *(("POST", f"/v1/x/wide/{name}") for name in WIDE),
        ("GET", "/v1/subscribe"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
    }
    identifiers = [each["operationId"] for methods in found["paths"].values() for each in methods.values()]
    assert len(set(identifiers)) == len(identifiers)
    tags = {each["name"] for each in found["tags"]}
    assert tags == {tag for methods in found["paths"].values() for each in methods.values() for tag in each["tags"]}


WIDE = ("blunder", "give", "need", "take")


@pytest.mark.slow
@pytest.mark.parametrize("text", [False, True])
async def test_every_example_is_accepted_and_answered_as_described(tmp_path: Path, text: bool) -> None:
    encoding = Encoding.TEXT if text else Encoding.BASE64
    async with town(tmp_path) as here:
        address = here.alice_at.http_text if text else here.alice_at.http
        _, found = await http(address, "GET", OPENAPI)
        for row in operations(here.alice.services):
            operation = found["paths"][row.route][row.method.lower()]
            assert ("requestBody" in operation) == row.has_body
            body: Json = {}
            if row.has_body:
                content = operation["requestBody"]["content"]["application/json"]
                body = content["example"]
                assert body == example(row, encoding)
                assert fits(found, content["schema"], body) == []
                assert decode(row.request_type, json.dumps(body).encode(), encoding=encoding) == row.example
            query = "" if row.has_body else "?" + urlencode(example(row, encoding))
            if "invoice" in body:  # that of the documentation is of another network
                _, made = await http(here.carol_at.http, "POST", "/v1/lightning/generateinvoice", {"amount": 5})
                body = {**body, **made}
            status, answer = await http(address, row.method, row.route + query, *([body] if row.has_body else []))
            # Where there is nothing to be found or stopped, or no way to a node, that is said; but no example is
            # refused for what it says.
            assert answer.get("code") in (None, *NOTHING_THERE), (row.route, answer)
            assert fits(found, schema_of_answer(found, row.method, row.route, status), answer) == []


NOTHING_THERE = (Status.NOT_FOUND.value, Status.FAILED_PRECONDITION.value, Status.ABORTED.value)


async def test_what_the_schemas_take_is_what_is_taken(inside: Inside) -> None:
    found = await document(inside)
    schema = found["components"]["schemas"]["messaging.SendMessageRequest"]
    for body, right in (
        ({"pubkey": ALICE.hex, "msg": "_-8"}, True),
        ({"pubkey": ALICE.hex, "msg": "aGk=", "amount": 7}, True),
        ({"pubkey": ALICE.hex, "msg": "aGk=", "amount": "7", "replyToId": None}, True),
        ({"pubkey": ALICE.hex, "msg": "aGk=", "else": [1]}, True),
        ({"pubkey": ALICE.hex, "msg": "aGk=="}, False),
        ({"pubkey": ALICE.hex, "msg": "a b"}, False),
        ({"pubkey": ALICE.hex, "msg": "aGk=", "amount": "x"}, False),
        ({"pubkey": ALICE.hex, "msg": "aGk=", "amount": 2**63}, False),
        ({"pubkey": ALICE.hex, "msg": "aGk=", "amount": True}, False),
        ({"pubkey": 7, "msg": "aGk="}, False),
        ({"msg": "aGk="}, False),
        ([], False),
    ):
        assert (fits(found, schema, body) == []) == right, body
        reply = await request(inside.app, "POST", "/v1/message/send", body=json.dumps(body), server=inside.http)
        assert (reply.status == 200) == right, (body, reply.json)


async def test_errors_events_and_checks_are_as_described(inside: Inside) -> None:
    found = await document(inside)
    missing: Reply = await request(inside.app, "POST", "/v1/nothing", server=inside.http)
    assert fits(found, schema_of_answer(found, "GET", "/v1/subscribe", 400), missing.json) == []
    assert "/openapi.json" in missing.json["message"]
    for path in ("/healthz", "/readyz", "/openapi.json"):
        reply = await request(inside.app, "GET", path, server=inside.http)
        assert fits(found, schema_of_answer(found, "GET", path), reply.json) == []
    inside.house.lightning.status = LOCKED
    reply = await request(inside.app, "GET", "/readyz", server=inside.http)
    assert fits(found, schema_of_answer(found, "GET", "/readyz", 503), reply.json) == []


@pytest.mark.parametrize("text", [False, True])
async def test_an_event_is_as_described(inside: Inside, text: bool) -> None:
    found = await document(inside, text=text)
    await inside.house.emit(new("hi"))
    line = await first_line(inside, text=text)
    assert fits(found, schema_of_answer(found, "GET", "/v1/subscribe"), line) == []
    assert ("seq" in line["result"]) != text
    assert fits(found, schema_of_answer(found, "GET", "/v1/subscribe"), {"result": {}}) != []


async def first_line(inside: Inside, *, text: bool) -> Json:
    server = inside.text if text else inside.http
    async with opened(inside.app, "/v1/subscribe?since=0", server=server) as line:
        await line.expect("http.response.start")
        found: Json = json.loads(await line.body())
        return found


async def test_fields_of_a_get_are_query_parameters(inside: Inside) -> None:
    found = await document(inside)
    role = found["paths"]["/v1/vpn/contracts"]["get"]["parameters"][0]
    assert (role["name"], role["in"], role["schema"]) == ("role", "query", {"type": "string"})
    for query, status in (("?role=buyer", 200), ("?role=", 200), ("?role=nobody", 400), ("?other=1", 200)):
        reply = await request(inside.app, "GET", f"/v1/vpn/contracts{query}", server=inside.http)
        assert reply.status == status, reply.json


async def test_commands_are_described_by_their_types(inside: Inside) -> None:
    found = await document(inside)
    say = found["paths"]["/v1/x/echo/say"]["post"]
    schema = say["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["pubkey", "text"]
    assert fits(found, schema, {"pubkey": ALICE.hex, "text": "hi", "times": "1"}) == []
    assert fits(found, schema, {"pubkey": "@bob", "text": "hi"}) == []
    assert fits(found, schema, {"pubkey": "02", "text": "hi"}) != []
    answer = await request(inside.app, "POST", "/v1/x/echo/heard", server=inside.http)
    assert fits(found, schema_of_answer(found, "POST", "/v1/x/echo/heard"), answer.json) == []
    assert answer.json["rawBytes"] == "/w=="
    assert fits(found, schema_of_answer(found, "POST", "/v1/x/echo/heard"), {"times": "1"}) != []


async def test_it_says_which_calls_take_a_key(inside: Inside) -> None:
    found = await document(inside)
    key = {"$ref": "#/components/parameters/idempotency-key"}
    takes = {path for path, methods in found["paths"].items() for each in methods.values() if key in each["parameters"]}
    assert {"/v1/message/send", "/v1/federate/leave", "/v1/lightning/keysend", "/v1/x/echo/say"} <= takes
    assert not {"/v1/federate/peers", "/v1/sign", "/v1/x/echo/heard"} & takes


async def test_the_encoding_can_be_chosen(inside: Inside) -> None:
    for query, server, looks in (
        ("", inside.http, "base64"),
        ("?encoding=text", inside.http, None),
        ("", inside.text, None),
        ("?encoding=base64", inside.text, "base64"),
    ):
        reply = await request(inside.app, "GET", OPENAPI + query, server=server)
        msg = reply.json["components"]["schemas"]["messaging.SendMessageRequest"]["properties"]["msg"]
        assert msg.get("contentEncoding") == looks
        assert msg["description"].startswith("What to send, at most message.max_bytes: in JSON base64")
