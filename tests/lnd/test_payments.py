from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.lnd.fake import FakeLnd, opened, refuses, says
from tests.lnd.updates import DOOMED, FAILED, IN_FLIGHT, PREIMAGE, SUCCEEDED, UNKNOWN, keysend, pay_invoice

from impervious.errors import (
    AlreadyPaying,
    NodeRefused,
    NodeUnavailable,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.lnd import LndNode, LndRefused, rpcs
from impervious.model import Payment as Paid
from impervious.model import PaymentStatus
from impervious.pb.lnrpc import (
    ListPaymentsRequest,
    ListPaymentsResponse,
    Payment,
)
from impervious.pb.routerrpc import TrackPaymentRequest
from impervious.rpc.message import Message

Send = Callable[[LndNode], Awaitable[Paid]]


@pytest.fixture(params=[keysend, pay_invoice])
def send(request: pytest.FixtureRequest) -> Send:
    """Every way to pay."""
    way: Send = request.param
    return way


async def test_only_the_final_state_ends_the_wait(autojump_clock: object, send: Send) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(IN_FLIGHT, DOOMED, FAILED)
    fake.answers[rpcs.QUERY_ROUTES] = refuses("unable to find a path to destination")
    async with opened(fake) as node:
        await node.wait_ready()
        paid = await send(node)
    assert (paid.status, paid.failure) == (PaymentStatus.FAILED, PaymentFailure.NO_ROUTE)


@pytest.mark.parametrize("updates", [(), (IN_FLIGHT,), (DOOMED,)])
async def test_a_stream_that_ends_before_the_payment_leaves_its_outcome_unknown(
    autojump_clock: object, send: Send, updates: tuple[Payment, ...]
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(*updates)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="before it told how the payment ended"):
            await send(node)


async def test_a_broken_connection_leaves_the_outcome_unknown(autojump_clock: object, send: Send) -> None:
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


@pytest.mark.parametrize("words", ["payment already exists", "payment is in transition", "invoice is already paid"])
async def test_a_payment_that_lnd_has_is_not_sent_again(autojump_clock: object, send: Send, words: str) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses(words, Status.ALREADY_EXISTS)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(AlreadyPaying, match=words):
            await send(node)


@pytest.mark.parametrize("state", [UNKNOWN, FAILED])
async def test_a_refusal_is_believed_once_nothing_is_in_flight(
    autojump_clock: object, send: Send, state: Payment | GRPCError
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
    autojump_clock: object, send: Send, state: Payment
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
    autojump_clock: object, send: Send, answer: object
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses("unheard of")
    fake.answers[rpcs.TRACK_PAYMENT] = answer  # type: ignore[assignment]
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="unheard of"):
            await send(node)


async def test_shutting_down_is_no_refusal(autojump_clock: object, send: Send) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = refuses("routerrpc server shutting down")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="shutting down"):
            await send(node)
    assert not fake.asked(TrackPaymentRequest)


async def test_cancelling_hangs_up(autojump_clock: object, send: Send) -> None:
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


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (IN_FLIGHT, PaymentStatus.IN_FLIGHT),
        (DOOMED, PaymentStatus.IN_FLIGHT),
        (SUCCEEDED, PaymentStatus.SUCCEEDED),
        (FAILED, PaymentStatus.FAILED),
    ],
)
async def test_what_has_become_of_a_payment_is_told_at_once(
    autojump_clock: object, state: Payment, status: PaymentStatus
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.TRACK_PAYMENT] = says(state, then_hang=True)
    async with opened(fake) as node:
        await node.wait_ready()
        assert (await node.lookup_payment(PREIMAGE.payment_hash)).status is status
    assert fake.asked(TrackPaymentRequest) == [TrackPaymentRequest(payment_hash=PREIMAGE.payment_hash)]
    assert not fake.asked(ListPaymentsRequest)


async def test_a_payment_that_cannot_be_looked_up(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.TRACK_PAYMENT] = says(UNKNOWN)
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(PaymentNotFound):
            await node.lookup_payment(PREIMAGE.payment_hash)
        fake.answers[rpcs.TRACK_PAYMENT] = refuses("unheard of")
        with pytest.raises(LndRefused, match="unheard of"):
            await node.lookup_payment(PREIMAGE.payment_hash)
        fake.answers[rpcs.TRACK_PAYMENT] = says()
        with pytest.raises(NodeUnavailable):
            await node.lookup_payment(PREIMAGE.payment_hash)


async def test_a_page_of_payments(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.LIST_PAYMENTS] = says(
        ListPaymentsResponse(payments=[FAILED, SUCCEEDED], first_index_offset=4, last_index_offset=9)
    )
    async with opened(fake) as node:
        await node.wait_ready()
        page = await node.list_payments(index_offset=3, limit=2, backwards=True)
    assert [payment.status for payment in page.payments] == [PaymentStatus.FAILED, PaymentStatus.SUCCEEDED]
    assert (page.first_index, page.last_index) == (4, 9)
    assert fake.asked(ListPaymentsRequest) == [
        ListPaymentsRequest(include_incomplete=True, index_offset=3, max_payments=2, reversed=True, omit_hops=True)
    ]
