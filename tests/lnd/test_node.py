import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.lnd.fake import ALICE, BOB, CREDENTIALS, Answer, FakeLnd, opened, refuses, says

from impervious.errors import (
    AlreadyPaying,
    ConfigError,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.lnd import LndNode, LndRefused, open_lnd, rpcs
from impervious.lnd.rpcs import Rpc
from impervious.model import KeysendSupport, NodeState, PaymentStatus, Preimage
from impervious.model import Payment as Paid
from impervious.node import PaymentNode
from impervious.pb.lnrpc import (
    Feature,
    FeeLimit,
    Hop,
    LightningNode,
    NodeInfo,
    NodeInfoRequest,
    Payment,
    PaymentFailureReason,
    PaymentPaymentStatus,
    QueryRoutesRequest,
    QueryRoutesResponse,
    Route,
    SignMessageRequest,
    SignMessageResponse,
    VerifyMessageRequest,
    VerifyMessageResponse,
)
from impervious.pb.lnrpc import WalletState as Wallet
from impervious.pb.routerrpc import SendPaymentRequest, TrackPaymentRequest
from impervious.rpc.message import Message
from impervious.units import Msat
from impervious.wire import zbase32
from impervious.wire.keysend import PREIMAGE_RECORD

PREIMAGE = Preimage(b"\x07" * 32)
RECORDS = {400_000: b"hello"}


def update(status: PaymentPaymentStatus, reason: int = 0) -> Payment:
    succeeded = status is PaymentPaymentStatus.SUCCEEDED
    return Payment(
        payment_hash=PREIMAGE.payment_hash.hex(),
        payment_preimage=PREIMAGE.raw.hex() if succeeded else "00" * 32,
        value_msat=1000,
        status=status,
        failure_reason=PaymentFailureReason(reason),
    )


IN_FLIGHT = update(PaymentPaymentStatus.IN_FLIGHT)
DOOMED = update(PaymentPaymentStatus.IN_FLIGHT, reason=2)
"""It will fail, but an HTLC is still out."""
SUCCEEDED = update(PaymentPaymentStatus.SUCCEEDED)
FAILED = update(PaymentPaymentStatus.FAILED, reason=2)
UNKNOWN = GRPCError(Status.NOT_FOUND, "payment isn't initiated")


async def send(node: LndNode) -> Paid:
    return await node.send_keysend(BOB, Msat(1000), PREIMAGE, RECORDS, fee_limit=Msat(3000), timeout_s=60)


async def test_it_is_a_payment_node(autojump_clock: object) -> None:
    async with opened(FakeLnd()) as node:
        port: PaymentNode = node
        await port.wait_ready()


# --- Sending ----------------------------------------------------------------------------------------------------------


async def test_a_keysend_sets_every_field_that_bites(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(SUCCEEDED)
    async with opened(fake) as node:
        await node.wait_ready()
        paid = await send(node)
    assert (paid.status, paid.preimage) == (PaymentStatus.SUCCEEDED, PREIMAGE)
    assert fake.asked(SendPaymentRequest) == [
        SendPaymentRequest(
            dest=BOB.raw,
            amt_msat=1000,
            payment_hash=PREIMAGE.payment_hash,
            dest_custom_records={400_000: b"hello", PREIMAGE_RECORD: PREIMAGE.raw},
            fee_limit_msat=3000,
            timeout_seconds=60,
            no_inflight_updates=True,
            max_parts=1,
        )
    ]


async def test_only_the_final_state_ends_the_wait(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(IN_FLIGHT, DOOMED, FAILED)
    async with opened(fake) as node:
        await node.wait_ready()
        paid = await send(node)
    assert (paid.status, paid.failure) == (PaymentStatus.FAILED, PaymentFailure.NO_ROUTE)


@pytest.mark.parametrize("updates", [(), (IN_FLIGHT,), (DOOMED,)])
async def test_a_stream_that_ends_before_the_payment_leaves_its_outcome_unknown(
    autojump_clock: object, updates: tuple[Payment, ...]
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(*updates)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="before it told how the payment ended"):
            await send(node)


async def test_a_broken_connection_leaves_the_outcome_unknown(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(then_hang=True)
    async with opened(fake) as node:
        await node.wait_ready()

        async def interrupted() -> None:
            with pytest.raises(NodeUnavailable, match="LND is away"):
                await send(node)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted)
            await trio.testing.wait_all_tasks_blocked()
            await fake.break_connections()


@pytest.mark.parametrize("answer", [says(IN_FLIGHT), refuses("routerrpc server shutting down")])
async def test_who_has_met_an_lnd_on_its_way_out_is_not_told_that_it_is_ready(
    autojump_clock: object, answer: Answer
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = answer
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable):
            await send(node)
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
            await send(node)
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
            await send(node)
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


@pytest.mark.parametrize("words", ["payment already exists", "payment is in transition", "invoice is already paid"])
async def test_a_payment_that_lnd_has_is_not_sent_again(autojump_clock: object, words: str) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses(words, Status.ALREADY_EXISTS)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(AlreadyPaying, match=words):
            await send(node)


@pytest.mark.parametrize("state", [UNKNOWN, FAILED])
async def test_a_refusal_is_believed_once_nothing_is_in_flight(
    autojump_clock: object, state: Payment | GRPCError
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses("amount must be specified")
    fake.answers[rpcs.TRACK_PAYMENT] = says(state)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeRefused, match="amount must be specified"):
            await send(node)
    assert fake.asked(TrackPaymentRequest) == [TrackPaymentRequest(payment_hash=PREIMAGE.payment_hash)]


@pytest.mark.parametrize("state", [IN_FLIGHT, DOOMED, SUCCEEDED])
async def test_a_refusal_that_fell_after_the_payment_began_is_not_believed(
    autojump_clock: object, state: Payment
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses("internal server error", Status.INTERNAL)
    fake.answers[rpcs.TRACK_PAYMENT] = says(state, then_hang=True)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(AlreadyPaying, match="internal server error"):
            await send(node)


@pytest.mark.parametrize("answer", [refuses("internal server error", Status.INTERNAL), says()])
async def test_a_refusal_that_cannot_be_checked_leaves_the_outcome_unknown(
    autojump_clock: object, answer: object
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses("unheard of")
    fake.answers[rpcs.TRACK_PAYMENT] = answer  # type: ignore[assignment]
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="unheard of"):
            await send(node)


async def test_shutting_down_is_no_refusal(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses("routerrpc server shutting down")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="shutting down"):
            await send(node)
    assert not fake.asked(TrackPaymentRequest)


async def test_cancelling_hangs_up(autojump_clock: object) -> None:
    fake = FakeLnd()
    hung_up = trio.Event()

    async def hang(_request: Message) -> AsyncGenerator[Message, None]:
        try:
            while True:
                yield IN_FLIGHT
                await trio.sleep(1)
        finally:
            hung_up.set()

    fake.answers[rpcs.SEND_PAYMENT] = hang
    async with opened(fake) as node:
        await node.wait_ready()
        with trio.move_on_after(5) as scope:
            await send(node)
        assert scope.cancelled_caught
        with trio.fail_after(1):
            await hung_up.wait()


# --- Tracking ---------------------------------------------------------------------------------------------------------


async def test_a_payment_is_followed_to_its_end(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.TRACK_PAYMENT] = says(IN_FLIGHT, SUCCEEDED)
    async with opened(fake) as node:
        await node.wait_ready()
        assert (await node.track(PREIMAGE.payment_hash)).preimage == PREIMAGE
    assert fake.asked(TrackPaymentRequest) == [
        TrackPaymentRequest(payment_hash=PREIMAGE.payment_hash, no_inflight_updates=True)
    ]


async def test_a_payment_that_lnd_never_saw(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.TRACK_PAYMENT] = says(UNKNOWN)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(PaymentNotFound):
            await node.track(PREIMAGE.payment_hash)


async def test_other_errors_of_tracking_are_refusals(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.TRACK_PAYMENT] = refuses("invalid hash length of 3, want 32")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(LndRefused, match="invalid hash length"):
            await node.track(PREIMAGE.payment_hash)


# --- Routes and the graph ---------------------------------------------------------------------------------------------


async def test_the_first_route_is_returned(autojump_clock: object) -> None:
    fake = FakeLnd()
    best = Route(total_time_lock=500, hops=[Hop(), Hop()], total_fees_msat=7, total_amt_msat=1007)
    fake.answers[rpcs.QUERY_ROUTES] = says(QueryRoutesResponse(routes=[best, Route()]))
    async with opened(fake) as node:
        await node.wait_ready()
        found = await node.find_route(BOB, Msat(1000), RECORDS, fee_limit=Msat(10))
    assert (found.hops, found.fee, found.total_amount, found.height) == (2, 7, 1007, 500)
    assert fake.asked(QueryRoutesRequest) == [
        QueryRoutesRequest(
            pub_key=BOB.hex,
            amt_msat=1000,
            fee_limit=FeeLimit(fixed_msat=10),
            dest_custom_records={400_000: b"hello", PREIMAGE_RECORD: bytes(32)},
            use_mission_control=True,
        )
    ]


@pytest.mark.parametrize(
    "answer",
    [
        refuses("unable to find a path to destination"),
        refuses("insufficient local balance"),
        says(QueryRoutesResponse()),
    ],
)
async def test_no_route(autojump_clock: object, answer: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.QUERY_ROUTES] = answer  # type: ignore[assignment]
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NoRoute):
            await node.find_route(BOB, Msat(1000), RECORDS, fee_limit=Msat(0))


async def test_a_question_about_routes_that_makes_no_sense_is_refused(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.QUERY_ROUTES] = refuses("no custom records with types below 65536 allowed")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeRefused, match="65536"):
            await node.find_route(BOB, Msat(1000), {1: b""}, fee_limit=Msat(0))


KEYSEND = {55: Feature(name="keysend", is_known=True)}


@pytest.mark.parametrize(
    ("answer", "support"),
    [
        (says(NodeInfo(node=LightningNode(last_update=1, features=KEYSEND))), KeysendSupport.YES),
        (says(NodeInfo(node=LightningNode(last_update=1))), KeysendSupport.NO),
        (says(NodeInfo(node=LightningNode())), KeysendSupport.UNKNOWN),
        (says(NodeInfo()), KeysendSupport.UNKNOWN),
        (refuses("unable to find node", Status.NOT_FOUND), KeysendSupport.UNKNOWN),
    ],
)
async def test_keysend_is_looked_up_in_the_graph(
    autojump_clock: object, answer: object, support: KeysendSupport
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.GET_NODE_INFO] = answer  # type: ignore[assignment]
    async with opened(fake) as node:
        await node.wait_ready()
        assert await node.keysend_support(BOB) is support
    assert fake.asked(NodeInfoRequest) == [NodeInfoRequest(pub_key=BOB.hex)]


async def test_a_graph_that_cannot_be_asked(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.GET_NODE_INFO] = refuses("out of order")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeRefused):
            await node.keysend_support(BOB)


# --- Signatures -------------------------------------------------------------------------------------------------------


async def test_signatures_are_bytes_here_and_text_there(autojump_clock: object) -> None:
    signature = bytes([31]) + bytes(range(64))
    fake = FakeLnd()
    fake.answers[rpcs.SIGN_MESSAGE] = says(SignMessageResponse(signature=zbase32.encode(signature)))
    fake.answers[rpcs.VERIFY_MESSAGE] = says(VerifyMessageResponse(valid=True, pubkey=ALICE.hex))
    async with opened(fake) as node:
        await node.wait_ready()
        assert await node.sign(b"text") == signature
        verdict = await node.verify(b"text", signature)
    assert (verdict.valid, verdict.pubkey) == (True, ALICE)
    assert fake.asked(SignMessageRequest) == [SignMessageRequest(msg=b"text")]
    assert fake.asked(VerifyMessageRequest) == [VerifyMessageRequest(msg=b"text", signature=zbase32.encode(signature))]


# --- Anything else ----------------------------------------------------------------------------------------------------


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


async def test_what_waits_for_a_session_that_ends_is_told(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(then_hang=True)
    async with opened(fake) as node:
        await node.wait_ready()

        async def interrupted() -> None:
            with pytest.raises(NodeUnavailable):
                await send(node)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted)
            await trio.testing.wait_all_tasks_blocked()
            fake.leave()
        assert not node.status.ready
        fake.become(Wallet.SERVER_ACTIVE)
        await node.wait_ready()


async def test_errors_of_the_block_come_out_as_they_went_in(autojump_clock: object) -> None:
    with pytest.raises(KeyError):
        async with open_lnd(CREDENTIALS):
            raise KeyError("body")


async def test_a_configuration_that_cannot_work_is_told_at_once() -> None:
    from impervious.config import LndConfig

    with pytest.raises(ConfigError, match="admin_macaroon_hex"):
        async with open_lnd(LndConfig(macaroon_hex="zz")):
            pytest.fail("must not begin")


def test_importing_the_client_loads_no_front_door() -> None:
    program = "import impervious.lnd, sys; print(*(name for name in sys.modules if not name.startswith('impervious')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "trio" in loaded
    assert not loaded & {"quart", "quart_trio", "hypercorn", "sqlcipher3", "rich", "trio_websocket"}
