from collections.abc import AsyncGenerator

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.lnd.fake import Answer, FakeLnd, opened, refuses, says
from tests.lnd.updates import IN_FLIGHT, SUCCEEDED, keysend

from impervious.errors import (
    NodeRefused,
    NodeUnavailable,
)
from impervious.lnd import LndRefused, rpcs
from impervious.lnd.rpcs import Rpc
from impervious.model import NodeState
from impervious.pb.lnrpc import (
    SignMessageRequest,
    SignMessageResponse,
)
from impervious.pb.lnrpc import WalletState as Wallet
from impervious.pb.routerrpc import TrackPaymentRequest
from impervious.rpc.message import Message


@pytest.mark.parametrize("answer", [says(IN_FLIGHT), refuses("routerrpc server shutting down")])
async def test_who_has_met_an_lnd_on_its_way_out_is_not_told_that_it_is_ready(
    autojump_clock: object, answer: Answer
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = answer
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable):
            await keysend(node)
        assert node.status.state is NodeState.AWAY
        fake.wallet = Wallet.LOCKED  # LND will say so in a moment
        fake.leave()
        with trio.move_on_after(60) as scope:
            await node.wait_ready()
        assert scope.cancelled_caught
        fake.become(Wallet.SERVER_ACTIVE)
        await node.wait_ready()


async def test_an_lnd_that_is_there_all_the_same_is_ready_again_soon(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(IN_FLIGHT)
    async with opened(fake) as node:
        await node.wait_ready()
        connections = len(fake.listener.client_ends)
        start = trio.current_time()
        with pytest.raises(NodeUnavailable):
            await keysend(node)
        await node.wait_ready()
        assert trio.current_time() - start < 1
        assert len(fake.listener.client_ends) == connections


async def test_a_doubt_while_lnd_is_being_judged_outlives_the_verdict(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(IN_FLIGHT)
    asked, go_on = trio.Event(), trio.Event()

    async def slowly(_request: Message) -> AsyncGenerator[Message, None]:
        asked.set()
        await go_on.wait()
        yield fake.info

    async with opened(fake) as node:
        await node.wait_ready()
        fake.answers[rpcs.GET_INFO] = slowly
        await asked.wait()  # the next look at a ready node
        with pytest.raises(NodeUnavailable):
            await keysend(node)
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert node.status.state is NodeState.AWAY
        await node.wait_ready()


@pytest.mark.parametrize(
    "answer", [refuses("too late", Status.DEADLINE_EXCEEDED), refuses("permission denied"), refuses("amount")]
)
async def test_what_says_nothing_of_lnd_leaves_it_ready(autojump_clock: object, answer: Answer) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SIGN_MESSAGE] = answer
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises((NodeUnavailable, NodeRefused)):
            await node.sign(b"text")
        assert node.status.ready


async def test_what_waits_for_a_session_that_ends_is_told(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(then_hang=True)
    async with opened(fake) as node:
        await node.wait_ready()

        async def interrupted() -> None:
            with pytest.raises(NodeUnavailable):
                await keysend(node)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted)
            await trio.testing.wait_all_tasks_blocked()
            fake.leave()
        assert not node.status.ready
        fake.become(Wallet.SERVER_ACTIVE)
        await node.wait_ready()


async def test_any_rpc_can_be_called_and_streamed(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SIGN_MESSAGE] = says(SignMessageResponse(signature="y"))
    fake.answers[rpcs.TRACK_PAYMENT] = says(IN_FLIGHT, SUCCEEDED)
    async with opened(fake) as node:
        await node.wait_ready()
        own = Rpc("/lnrpc.Lightning/SignMessage", SignMessageResponse)
        assert (await node.call(own, SignMessageRequest(msg=b"x"))).signature == "y"
        async with node.stream(rpcs.TRACK_PAYMENT, TrackPaymentRequest()) as stream:
            assert [payment.status async for payment in stream] == [IN_FLIGHT.status, SUCCEEDED.status]
        async with node.stream(rpcs.TRACK_PAYMENT, TrackPaymentRequest()) as stream:
            await stream.aclose()
            with pytest.raises(NodeUnavailable):
                await stream.receive()
        with pytest.raises(LndRefused) as caught:
            await node.call(Rpc("/lnrpc.Lightning/NoSuch", SignMessageResponse), SignMessageRequest())
        assert caught.value.status is Status.UNIMPLEMENTED


async def test_a_streams_own_errors_are_translated_and_the_bodys_are_not(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.TRACK_PAYMENT] = refuses("wallet locked, unlock it to enable full RPC access")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="wallet locked"):
            async with node.stream(rpcs.TRACK_PAYMENT, TrackPaymentRequest()) as stream:
                await stream.receive()
        with pytest.raises(GRPCError):
            async with node.stream(rpcs.TRACK_PAYMENT, TrackPaymentRequest()):
                raise GRPCError(Status.ABORTED, "somebody else's")
