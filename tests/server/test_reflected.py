"""What a client learns that knows nothing of us."""

import importlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.const import Cardinality, Handler
from grpclib.reflection.v1.reflection_pb2 import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse
from tests.rpc.pair import MemoryListener
from tests.server.house import Inside, config, open_app
from tests.service.toys import EchoService

from impervious.pb.signing import SignRequest, SignResponse
from impervious.rpc import Health, Servable, Server, open_channel_over
from impervious.server.reflected import with_reflection

PUBLISHED = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "messaging.Messaging",
    "signing.Signing",
    "socket.Socket",
    "websocket.Websocket",
]
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

KV = """
syntax = "proto3";
package kv;
// Remembers.
service KeyValue { rpc Get(Key) returns (Value); }
message Key { string key = 1; }
message Value { bytes value = 1; }
"""

SHARED = 'syntax = "proto3"; package shared; message Shared {}'
USING = """
syntax = "proto3";
package reflected;
import "reflected_shared.proto";
service Clock { rpc Now(Empty) returns (Empty); }
message Empty { shared.Shared shared = 1; }
"""


def compiled(folder: Path, name: str, text: str) -> bytes:
    """A descriptor set as protoc writes it."""
    (folder / name).write_text(text)
    out = [f"--descriptor_set_out={folder / 'set.bin'}", "--include_imports", "--include_source_info"]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}", *out, name]
    subprocess.run(command, check=True, timeout=60)
    return (folder / "set.bin").read_bytes()


class Foreign:
    """A service object whose classes are anything."""

    def __init__(self, path: str, request: type, response: type) -> None:
        self._handler = Handler(self._answer, Cardinality.UNARY_UNARY, request, response)
        self._path = path

    def __mapping__(self) -> Mapping[str, Handler]:
        return {self._path: self._handler}

    async def _answer(self, stream: object) -> None:
        raise NotImplementedError


class Asker:
    """Asks one server many things."""

    def __init__(self, ask: Callable[[ServerReflectionRequest], Awaitable[ServerReflectionResponse]]) -> None:
        self._ask = ask

    async def names(self) -> list[str]:
        answer = await self._ask(ServerReflectionRequest(list_services=""))
        return sorted(each.name for each in answer.list_services_response.service)

    async def file(self, **what: Any) -> FileDescriptorProto:
        answer = await self._ask(ServerReflectionRequest(**what))
        [raw] = answer.file_descriptor_response.file_descriptor_proto
        return FileDescriptorProto.FromString(raw)

    async def code(self, **what: Any) -> int:
        return (await self._ask(ServerReflectionRequest(**what))).error_response.error_code


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Asker]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            types = (ServerReflectionRequest, ServerReflectionResponse)
            async with channel.request(REFLECT, Cardinality.STREAM_STREAM, *types) as stream:

                async def ask(request: ServerReflectionRequest) -> ServerReflectionResponse:
                    await stream.send_message(request)
                    answer = await stream.recv_message()
                    assert answer is not None
                    return answer

                with trio.fail_after(10):  # noqa: ASYNC100 - who asks waits inside
                    yield Asker(ask)
        nursery.cancel_scope.cancel()


def reflecting(*services: Servable, described: Sequence[tuple[str, bytes]] = ()) -> Server:
    return Server(with_reflection(services, described))


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path), services=[EchoService]) as opened_app:
        yield opened_app


async def test_every_service_is_listed_and_every_published_one_described(inside: Inside) -> None:
    async with asking(inside.doors.grpc_server()) as asker:
        names = await asker.names()
        assert set(PUBLISHED) <= set(names)
        assert "echo.Echo" in names
        for name in set(names) - {"echo.Echo"}:
            file = await asker.file(file_containing_symbol=name)
            assert name in [f"{file.package}.{each.name}" for each in file.service]
        for each in inside.doors.table:
            _, service, method = each.path.split("/")
            file = await asker.file(file_containing_symbol=f"{service}.{method}")
            assert method in [found.name for one in file.service for found in one.method]


async def test_comments_come_along() -> None:
    async with asking(reflecting(Health())) as asker:
        file = await asker.file(file_containing_symbol="messaging.SendMessageRequest")
        assert file.name == "messaging.proto"
        assert any(" What to send" in each.leading_comments for each in file.source_code_info.location)
        assert await asker.file(file_by_filename="messaging.proto") == file


async def test_what_is_not_there_is_not_found() -> None:
    async with asking(reflecting(Health())) as asker:
        extension = ExtensionRequest(containing_type="messaging.SendMessageRequest", extension_number=7)
        unknown = ExtensionRequest(containing_type="no.Such", extension_number=7)
        for what in (
            {"file_containing_symbol": "no.Such"},
            {"file_by_filename": "no.proto"},
            {"file_containing_extension": extension},
            {"file_containing_extension": unknown},
            {"all_extension_numbers_of_type": "no.Such"},
        ):
            assert await asker.code(**what) == 5
        assert await asker.code(all_extension_numbers_of_type="messaging.SendMessageRequest") == 0
        assert await asker.code() == 3


async def test_a_service_of_a_third_party_that_brings_descriptors(tmp_path: Path) -> None:
    kv = Foreign("/kv.KeyValue/Get", SignRequest, SignResponse)
    async with asking(reflecting(kv, described=[("kv", compiled(tmp_path, "kv.proto", KV))])) as asker:
        file = await asker.file(file_containing_symbol="kv.KeyValue")
        assert [each.name for each in file.service[0].method] == ["Get"]


async def test_a_service_of_a_third_party_with_classes_of_google_protobuf(tmp_path: Path) -> None:
    """They are described by themselves, with the files that they import."""
    (tmp_path / "reflected_shared.proto").write_text(SHARED)
    module = python_of(tmp_path, "reflected.proto", USING)
    async with asking(reflecting(Foreign("/reflected.Clock/Now", module.Empty, module.Empty))) as asker:
        file = await asker.file(file_containing_symbol="reflected.Clock")
        assert list(file.dependency) == ["reflected_shared.proto"]
        assert (await asker.file(file_by_filename="reflected_shared.proto")).message_type[0].name == "Shared"
    async with asking(reflecting(Foreign("/by.Hand/Now", module.Empty, module.Empty))) as asker:
        assert "by.Hand" in await asker.names()
        assert (await asker.file(file_containing_symbol="reflected.Empty")).name == "reflected.proto"


async def test_descriptors_that_cannot_be_used_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    described = [
        ("broken", b"\xff"),
        ("another", compiled(tmp_path, "messaging.proto", KV)),
        (
            "clashing",
            compiled(tmp_path, "clashing.proto", 'syntax = "proto3"; package signing; message SignRequest {}'),
        ),
        ("same", compiled(tmp_path, "kv.proto", KV)),
        ("same again", compiled(tmp_path, "kv.proto", KV.replace("// Remembers.", ""))),
    ]
    async with asking(reflecting(Health(), described=described)) as asker:
        assert (await asker.file(file_by_filename="messaging.proto")).package == "messaging"
        assert (await asker.file(file_containing_symbol="kv.Key")).name == "kv.proto"
    first, second, third = [record.getMessage() for record in caplog.records]
    assert first.startswith("broken: its descriptors are no FileDescriptorSet")
    assert second.startswith("another: messaging.proto is another file here")
    assert third.startswith("clashing: gRPC reflection goes without clashing.proto")


def python_of(folder: Path, name: str, text: str) -> ModuleType:
    """The classes that protoc makes for google.protobuf."""
    (folder / name).write_text(text)
    names = [each.name for each in folder.glob("*.proto")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}", f"--python_out={folder}", *names]
    subprocess.run(command, check=True, timeout=60)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name.replace(".proto", "_pb2"))
    finally:
        sys.path.remove(str(folder))
