"""Our JSON beside that of Google's protobuf, for every message of the seven API packages and the LND ones."""

import importlib
import json
from pathlib import Path

import betterproto2
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

import impervious.pb
from impervious.pb.message_pool import default_message_pool
from impervious.wire.json import Encoding, decode, encode
from impervious.wire.json.fields import Field, fields_of

API = ("messaging", "federate", "vpn", "socket", "signing", "lightning", "websocket")
OTHERS = ("lnrpc", "routerrpc", "invoicesrpc")
for package in API + OTHERS:
    importlib.import_module(f"impervious.pb.{package}")

TYPES = {
    url.partition("/")[2]: message_type
    for url, message_type in default_message_pool.url_to_type.items()
    if url.partition("/")[2].partition(".")[0] in API + OTHERS
}
BOUNDS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
    "sint64": (-(2**63), 2**63 - 1),
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def descriptors() -> descriptor_pool.DescriptorPool:
    raw = (Path(impervious.pb.__file__).parent / "descriptors.bin").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
        pool.Add(file)
    return pool


POOL = descriptors()


def values(proto_type: str, field: Field, depth: int) -> st.SearchStrategy[object]:
    match proto_type:
        case "string":
            return TEXT
        case "bytes":
            return st.binary(max_size=12)
        case "bool":
            return st.booleans()
        case "double":
            return st.floats()
        case "enum":
            return st.sampled_from(list(field.enum_type))
        case "message":
            return messages(field.message_type, depth - 1)
        case _:
            return st.integers(*BOUNDS[proto_type])


def field_values(field: Field, depth: int) -> st.SearchStrategy[object]:
    one = values(field.proto_type, field, depth)
    if field.key_type is not None:
        return st.dictionaries(values(field.key_type, field, depth), one, max_size=2)
    return st.lists(one, max_size=2) if field.repeated else one


def messages(message_type: type[betterproto2.Message], depth: int = 3) -> st.SearchStrategy[betterproto2.Message]:
    """Messages of one type with any set of their fields, at most one of each oneof."""
    chosen = {
        field.attribute: field_values(field, depth)
        for field in fields_of(message_type)
        if field.group is None and (depth > 0 or field.proto_type != "message")
    }
    return st.fixed_dictionaries({}, optional=chosen).map(lambda fields: message_type(**fields))


ANY = st.sampled_from(sorted(TYPES)).flatmap(lambda name: st.tuples(st.just(name), messages(TYPES[name])))


def test_every_service_has_its_messages_here() -> None:
    assert {name.partition(".")[0] for name in TYPES} == {*API, *OTHERS}
    assert len(TYPES) > 80


@pytest.mark.slow
@settings(max_examples=300)
@given(ANY)
def test_round_trip(named: tuple[str, betterproto2.Message]) -> None:
    _, message = named
    again = decode(type(message), encode(message))
    assert again == message
    assert bytes(again) == bytes(message)


@pytest.mark.slow
@settings(max_examples=300)
@given(ANY)
def test_what_we_write_is_what_protobuf_writes_and_reads(named: tuple[str, betterproto2.Message]) -> None:
    name, message = named
    theirs = message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))
    same = theirs.FromString(bytes(message))
    assert json.loads(encode(message)) == json_format.MessageToDict(same, always_print_fields_with_no_presence=True)
    parsed = json_format.Parse(encode(message), theirs())
    assert parsed.SerializeToString(deterministic=True) == same.SerializeToString(deterministic=True)


@pytest.mark.slow
@settings(max_examples=300)
@given(ANY, st.booleans())
def test_we_read_what_protobuf_writes(named: tuple[str, betterproto2.Message], proto_names: bool) -> None:
    name, message = named
    theirs = message_factory.GetMessageClass(POOL.FindMessageTypeByName(name)).FromString(bytes(message))
    text = json_format.MessageToJson(theirs, preserving_proto_field_name=proto_names)
    assert decode(type(message), text.encode()) == message


@given(st.sampled_from(["msg", "data"]), TEXT)
def test_text_survives_in_text_mode(field: str, text: str) -> None:
    message_type = TYPES["messaging.SendMessageRequest" if field == "msg" else "websocket.SubscribeResponse"]
    message = message_type(**{field: text.encode()})
    line = encode(message, encoding=Encoding.TEXT)
    assert json.loads(line)[field] == text
    assert decode(message_type, line, encoding=Encoding.TEXT) == message


@pytest.mark.parametrize("name", [name for name in TYPES if name.partition(".")[0] in API])
def test_names_are_those_of_protoc(name: str) -> None:
    theirs = {field.name: field.json_name for field in POOL.FindMessageTypeByName(name).fields}
    assert {field.proto_name: field.json_name for field in fields_of(TYPES[name])} == theirs
