"""The health service, under the generated stub; with it the mix-in that closes generators of streaming methods."""

import gc
from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.pb.grpc.health.v1 import HealthBase, HealthCheckRequest, HealthCheckResponse, HealthStub
from impervious.rpc import Health, StreamsClosed
from impervious.rpc.health import ServingStatus

from .pair import connected

WATCH = "/grpc.health.v1.Health/Watch"


async def test_check(autojump_clock: trio.testing.MockClock) -> None:
    health = Health({"lnrpc.Lightning": True})
    with trio.fail_after(5):
        async with connected(health) as pair:
            stub = HealthStub(pair.channel)  # type: ignore[arg-type]  # quacks like grpclib's

            async def status(service: str) -> ServingStatus:
                return (await stub.check(HealthCheckRequest(service=service))).status

            assert await status("") == ServingStatus.SERVING
            assert await status("lnrpc.Lightning") == ServingStatus.SERVING
            health.set("lnrpc.Lightning", serving=False)
            assert await status("lnrpc.Lightning") == ServingStatus.NOT_SERVING
            with pytest.raises(GRPCError, match="no service 'x' here") as caught:
                await status("x")
            assert caught.value.status is Status.NOT_FOUND


async def test_watch(autojump_clock: trio.testing.MockClock) -> None:
    health = Health()
    with trio.fail_after(5):
        async with connected(health) as pair:
            request = HealthCheckRequest(service="x")
            async with pair.channel.unary_stream(WATCH, request, HealthCheckResponse) as changes:
                assert (await anext(changes)).status == ServingStatus.SERVICE_UNKNOWN
                health.set("x", serving=True)
                assert (await anext(changes)).status == ServingStatus.SERVING
                health.set("x", serving=True)  # no change, no message
                health.set("other", serving=True)
                health.set("x", serving=False)
                health.set("x", serving=True)
                health.set("x", serving=False)  # only the last of several at once is told
                assert (await anext(changes)).status == ServingStatus.NOT_SERVING
                await trio.testing.wait_all_tasks_blocked()
                assert pair.server.statistics().calls == 1
            await trio.testing.wait_all_tasks_blocked()
            assert pair.server.statistics().calls == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_leaving_a_stream_of_a_generated_stub(autojump_clock: trio.testing.MockClock) -> None:
    """The stub's inner generator is left to the garbage collector (hence the warning); the call still ends at once."""
    with trio.fail_after(5):
        async with connected(Health()) as pair:
            stub = HealthStub(pair.channel)  # type: ignore[arg-type]  # quacks like grpclib's
            async for change in stub.watch(HealthCheckRequest()):
                assert change.status == ServingStatus.SERVING
                break
            gc.collect()
            await trio.testing.wait_all_tasks_blocked()
            assert pair.server.statistics().calls == 0
            assert await pair.unary() == "hello"


async def test_a_stream_that_is_left_is_closed_on_the_spot(autojump_clock: trio.testing.MockClock) -> None:
    closed: list[str] = []

    class Endless(StreamsClosed, HealthBase):
        async def watch(self, message: HealthCheckRequest) -> AsyncGenerator[HealthCheckResponse, None]:
            try:
                while True:
                    yield HealthCheckResponse()
                    await trio.sleep(1)
            finally:
                closed.append("closed")

    with trio.fail_after(30):
        async with connected(Endless()) as pair:
            async with pair.channel.unary_stream(WATCH, HealthCheckRequest(), HealthCheckResponse) as changes:
                await changes.recv_message()
            await trio.testing.wait_all_tasks_blocked()
            assert closed == ["closed"]
            gc.collect()  # nothing is left that could complain
