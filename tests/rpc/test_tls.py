"""TLS on loopback sockets, with the certificate that LND makes for itself. Real time, so no clock is asserted."""

import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.pb.grpc.health.v1 import HealthCheckRequest as Text
from impervious.rpc import CallInfo, Server, client_context, open_channel, server_context
from impervious.rpc.tls import require_http2

from .certificates import Files, make_certificate
from .pair import UNARY, Play


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("lnd"))


@asynccontextmanager
async def serving_tls(context: ssl.SSLContext | None, seen: list[CallInfo] | None = None) -> AsyncIterator[int]:
    """A Play service on a free port."""
    server = Server([Play()], on_call=None if seen is None else seen.append)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:  # noqa: ASYNC128 - serve tells it
            await server.serve("127.0.0.1", 0, ssl_context=context, grace_s=0, task_status=task_status)

        [(host, port)] = await nursery.start(serve)
        assert host == "127.0.0.1"
        yield port
        nursery.cancel_scope.cancel()


async def ask(host: str, port: int, context: ssl.SSLContext | None, name: str | None = None) -> str:
    """One call; what came back, or why not."""
    with trio.fail_after(10):
        async with open_channel(host, port, ssl_context=context, server_hostname=name) as channel:
            try:
                return (await channel.unary_unary(UNARY, Text(service="secret"), Text)).service
            except GRPCError as error:
                return str(error.message) if error.status is Status.UNAVAILABLE else repr(error)


async def test_a_self_signed_certificate_as_the_only_root(files: Files) -> None:
    seen: list[CallInfo] = []
    async with serving_tls(server_context(files.certificate, files.key), seen) as port:
        assert await ask("127.0.0.1", port, client_context(files.pem)) == "secret"
        assert await ask("localhost", port, client_context(files.pem)) == "secret"
        assert await ask("127.0.0.1", port, client_context(files.pem), "localhost") == "secret"
    address = seen[0].peer.addr()
    assert address is not None
    assert address[0] == "127.0.0.1"


async def test_certificates_that_do_not_fit(files: Files, tmp_path: Path) -> None:
    other = make_certificate(tmp_path)
    async with serving_tls(server_context(files.certificate, files.key)) as port:
        assert "self-signed certificate" in await ask("127.0.0.1", port, client_context(other.pem))
        assert "self-signed certificate" in await ask("127.0.0.1", port, client_context())
        message = await ask("127.0.0.1", port, client_context(files.pem), "lnd.example")
        assert message.startswith(f"cannot connect to lnd.example:{port}: ")
        assert "ostname mismatch" in message
        assert await ask("127.0.0.1", port, client_context(files.pem)) == "secret"


async def test_tls_on_one_side_only(files: Files) -> None:
    async with serving_tls(server_context(files.certificate, files.key)) as port:
        message = await ask("127.0.0.1", port, None)
        assert "wrong port, or TLS on one side only" in message
    async with serving_tls(None) as port:
        message = await ask("127.0.0.1", port, client_context(files.pem))
        assert message.startswith(f"cannot connect to 127.0.0.1:{port}: ")


async def test_a_server_without_http2(files: Files) -> None:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.load_cert_chain(files.certificate, files.key)

    async def handshake(stream: "trio.SSLStream[trio.SocketStream]") -> None:
        await stream.do_handshake()
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()

    listeners = await trio.open_ssl_over_tcp_listeners(0, plain, host="127.0.0.1")
    transport = listeners[0].transport_listener
    assert isinstance(transport, trio.SocketListener)
    port = transport.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handshake, listeners)
        assert "does not offer HTTP/2" in await ask("127.0.0.1", port, client_context(files.pem))
        nursery.cancel_scope.cancel()


async def test_a_client_that_breaks_off_the_handshake_disturbs_nobody(files: Files) -> None:
    async with serving_tls(server_context(files.certificate, files.key)) as port:
        with socket.create_connection(("127.0.0.1", port)) as rude:
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert await ask("127.0.0.1", port, client_context(files.pem)) == "secret"


def test_contexts_demand_tls_1_2_and_http2(files: Files) -> None:
    for context in (client_context(files.pem), client_context(), server_context(files.certificate, files.key)):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client_context(files.pem).check_hostname
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings(action="ignore"):  # Python deprecates it as well
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    assert require_http2(old).minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError):
        client_context("no certificate")
    with pytest.raises(FileNotFoundError):
        server_context(tmp_path / "no.cert", tmp_path / "no.key")
