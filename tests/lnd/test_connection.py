"""Over TCP and TLS, as LND is reached."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.lnd.fake import CREDENTIALS, MACAROON, FakeLnd
from tests.rpc.certificates import Files, make_certificate

from impervious.config import LndConfig
from impervious.lnd import LndNode, open_lnd, rpcs
from impervious.lnd.connection import LndStream, open_connection
from impervious.model import NodeState
from impervious.pb.lnrpc import SubscribeStateRequest, WalletState
from impervious.rpc import Server, server_context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_certificate(tmp_path)


@asynccontextmanager
async def listening(fake: FakeLnd, files: Files) -> AsyncIterator[int]:
    """The fake behind TLS on a loopback port."""
    server = Server([fake], on_call=fake.calls.append)
    async with trio.open_nursery() as nursery:
        context = server_context(files.certificate, files.key)
        addresses = await nursery.start(lambda **up: server.serve("127.0.0.1", 0, ssl_context=context, grace_s=0, **up))
        yield addresses[0][1]
        nursery.cancel_scope.cancel()


async def first_reason(config: LndConfig) -> str:
    """What the client says of its first attempt."""
    async with open_lnd(config) as node:
        with trio.fail_after(5):
            return (await node.status_after(node.status)).reason


def config(port: int, files: Files, **changes: object) -> LndConfig:
    fields = {"host": "127.0.0.1", "port": port, "tls_cert": files.certificate, "macaroon_hex": MACAROON.hex()}
    return LndConfig(**{**fields, **changes})  # type: ignore[arg-type]


async def wait_ready(node: LndNode) -> None:
    with trio.fail_after(5):
        await node.wait_ready()


async def test_nothing_is_dialled_before_the_first_call() -> None:
    async with open_connection(CREDENTIALS) as connection:
        for channel in (connection.calls, connection.invoices):
            assert channel.statistics().connections_made == 0
        assert connection.credentials is CREDENTIALS


async def test_a_client_with_lnds_own_certificate_gets_through(files: Files) -> None:
    fake = FakeLnd()
    async with listening(fake, files) as port:
        for host in ("127.0.0.1", "localhost"):
            async with open_lnd(config(port, files, host=host)) as node:
                await wait_ready(node)
    assert {call.metadata["macaroon"] for call in fake.calls} == {MACAROON.hex()}


async def test_a_host_that_the_certificate_does_not_name(files: Files, tmp_path: Path) -> None:
    strange = make_certificate(tmp_path, names=("elsewhere",), addresses=("10.1.2.3",))
    async with listening(FakeLnd(), strange) as port:
        reason = await first_reason(config(port, strange))
        assert "does not name 127.0.0.1" in reason
        assert "--tlsextraip=127.0.0.1" in reason
        assert "--tlsextradomain=localhost" in await first_reason(config(port, strange, host="localhost"))


async def test_another_certificate_is_not_trusted(files: Files, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    async with listening(FakeLnd(), files) as port:
        assert "set lightning.lnd_node.tls_cert to LND's present tls.cert" in await first_reason(config(port, other))
        assert "not one that we trust" in await first_reason(config(port, files, tls_cert=None))


async def test_a_port_without_tls_is_told_apart(files: Files) -> None:
    server = Server([FakeLnd()])
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(lambda **up: server.serve("127.0.0.1", 0, grace_s=0, **up))
        assert "LND's gRPC port" in await first_reason(config(addresses[0][1], files))
        nursery.cancel_scope.cancel()


async def test_a_new_certificate_is_picked_up(files: Files) -> None:
    fake = FakeLnd()
    async with listening(fake, files) as port:
        async with open_lnd(config(port, files), random=lambda: 1.0) as node:
            await wait_ready(node)
            stale = files.pem
            fresh = make_certificate(files.certificate.parent)  # LND restarts with a new one
            assert fresh.pem != stale
            fake.leave()
            with trio.fail_after(5):
                while node.status.state is not NodeState.AWAY:
                    await node.status_after(node.status)
            await wait_until_reason(node, "not one that we trust")
            files.certificate.write_text(stale)
            await wait_ready(node)


async def wait_until_reason(node: LndNode, part: str) -> None:
    with trio.fail_after(5):
        while part not in node.status.reason:
            await node.status_after(node.status)


async def test_a_stream_ends_and_is_hung_up(autojump_clock: object) -> None:
    fake = FakeLnd()
    async with fake.serve(), fake.connect(CREDENTIALS) as connection:
        stream = LndStream(
            connection.calls, rpcs.SUBSCRIBE_STATE, SubscribeStateRequest(), lambda told: told.state, host="h"
        )
        async with stream:
            assert await stream.receive() is WalletState.SERVER_ACTIVE
            assert connection.calls.statistics().calls_open == 1
        assert connection.calls.statistics().calls_open == 0
