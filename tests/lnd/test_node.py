import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from inspect import Parameter, getmembers, isfunction, signature

import pytest
import trio
from grpclib.const import Status
from tests.lnd.fake import ALICE, BOB, CREDENTIALS, FakeLnd, opened, refuses, says
from tests.lnd.updates import (
    INVOICE,
    PREIMAGE,
    RECORDS,
    SUCCEEDED,
    keysend,
)

from impervious.errors import (
    ConfigError,
    InvalidArgument,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
)
from impervious.lnd import LndNode, open_lnd, rpcs
from impervious.model import (
    Balance,
    DecodedInvoice,
    InvoiceCursor,
    InvoiceTerms,
    KeysendSupport,
    NodeState,
    NodeStatus,
    PaymentStatus,
)
from impervious.node import LightningNode as LightningPort
from impervious.pb.lnrpc import (
    AddInvoiceResponse,
    Amount,
    ChannelBalanceResponse,
    Feature,
    FeeLimit,
    GetInfoRequest,
    Hop,
    Invoice,
    LightningNode,
    NodeInfo,
    NodeInfoRequest,
    PayReq,
    PayReqString,
    QueryRoutesRequest,
    QueryRoutesResponse,
    Route,
    SignMessageRequest,
    SignMessageResponse,
    VerifyMessageRequest,
    VerifyMessageResponse,
    WalletBalanceResponse,
    WalletState,
)
from impervious.pb.routerrpc import SendPaymentRequest
from impervious.units import Msat
from impervious.wire import zbase32
from impervious.wire.keysend import PREIMAGE_RECORD


async def test_it_is_a_lightning_node(autojump_clock: object) -> None:
    async with opened(FakeLnd()) as node:
        port: LightningPort = node
        await port.wait_ready()


async def test_a_keysend_sets_every_field_that_bites(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(SUCCEEDED)
    async with opened(fake) as node:
        await node.wait_ready()
        paid = await keysend(node)
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
            use_mission_control=False,
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


# --- Invoices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0, 1234])
async def test_paying_an_invoice_sets_every_field_that_bites(autojump_clock: object, amount: int) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SEND_PAYMENT] = says(SUCCEEDED)
    async with opened(fake) as node:
        await node.wait_ready()
        paid = await node.pay_invoice(INVOICE, fee_limit=Msat(3000), timeout_s=60, amount=Msat(amount))
    assert (paid.status, paid.preimage) == (PaymentStatus.SUCCEEDED, PREIMAGE)
    assert fake.asked(SendPaymentRequest) == [
        SendPaymentRequest(
            payment_request="lnbcrt1",
            amt_msat=amount,
            fee_limit_msat=3000,
            timeout_seconds=60,
            no_inflight_updates=True,
            max_parts=16,
        )
    ]


async def test_an_invoice_is_asked_for_in_millisatoshis(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.ADD_INVOICE] = says(AddInvoiceResponse(r_hash=b"\x05" * 32, payment_request="ln", add_index=7))
    terms = InvoiceTerms(amount=Msat(1234), memo="coffee", description_hash=b"\x06" * 32, expiry_s=60)
    async with opened(fake) as node:
        await node.wait_ready()
        added = await node.add_invoice(terms)
    assert (added.payment_hash, added.payment_request, added.add_index) == (b"\x05" * 32, "ln", 7)
    assert fake.asked(Invoice) == [Invoice(value_msat=1234, memo="coffee", description_hash=b"\x06" * 32, expiry=60)]


async def test_a_text_that_lnd_cannot_read_is_the_callers_mistake_and_its_absence_is_not(
    autojump_clock: object,
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.DECODE_PAY_REQ] = refuses("checksum failed")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(InvalidArgument, match=r"cannot read this invoice \(LND: checksum failed\)"):
            await node.decode_invoice("lnbcrt1")
        assert fake.asked(PayReqString) == [PayReqString(pay_req="lnbcrt1")]
        fake.answers[rpcs.DECODE_PAY_REQ] = refuses("wallet locked, unlock it to enable full RPC access")
        with pytest.raises(NodeUnavailable):
            await node.decode_invoice("lnbcrt1")


async def test_an_answer_that_makes_no_sense_is_none(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.DECODE_PAY_REQ] = says(PayReq(destination="02", payment_hash="00" * 32))
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable, match="makes no sense"):
            await node.decode_invoice("lnbcrt1")


async def test_an_lnd_that_leaves_is_doubted_by_who_looks_at_invoices(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.LOOKUP_INVOICE] = refuses("the server is shutting down")
    async with opened(fake) as node:
        await node.wait_ready()
        with pytest.raises(NodeUnavailable):
            await node.lookup_invoice(PREIMAGE.payment_hash)
        assert not node.status.ready


async def test_a_balance_is_of_channels_and_of_the_chain(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.CHANNEL_BALANCE] = says(
        ChannelBalanceResponse(
            local_balance=Amount(sat=1, msat=1001),
            remote_balance=Amount(sat=2, msat=2002),
            unsettled_local_balance=Amount(msat=3),
            unsettled_remote_balance=Amount(msat=4),
            pending_open_local_balance=Amount(msat=5),
        )
    )
    fake.answers[rpcs.WALLET_BALANCE] = says(WalletBalanceResponse(confirmed_balance=6, unconfirmed_balance=7))
    async with opened(fake) as node:
        await node.wait_ready()
        assert await node.balance() == Balance(
            local=Msat(1001),
            remote=Msat(2002),
            unsettled_local=Msat(3),
            unsettled_remote=Msat(4),
            opening_local=Msat(5),
            confirmed=Msat(6000),
            unconfirmed=Msat(7000),
        )
        fake.answers[rpcs.CHANNEL_BALANCE] = says(ChannelBalanceResponse())
        assert (await node.balance()).local == 0


# --- The end ----------------------------------------------------------------------------------------------------------

ARGUMENTS: Mapping[str, object] = {
    "cursor": InvoiceCursor(),
    "dest": BOB,
    "invoice": DecodedInvoice(
        payment_request="lnbcrt1",
        payment_hash=PREIMAGE.payment_hash,
        payee=BOB,
        amount=Msat(1000),
        created_s=0,
        expiry_s=1,
    ),
    "payment_hash": PREIMAGE.payment_hash,
    "payment_request": "lnbcrt1",
    "preimage": PREIMAGE,
    "pubkey": BOB,
    "records": RECORDS,
    "request": GetInfoRequest(),
    "rpc": rpcs.GET_INFO,
    "seen": NodeStatus(state=NodeState.READY, reason=""),
    "signature": bytes(65),
    "terms": InvoiceTerms(amount=Msat(1000)),
    "text": b"text",
}


async def end_of(call: object) -> None:
    """Wait for what a method gives, or enter it."""
    if isinstance(call, AbstractAsyncContextManager):
        await call.__aenter__()
    else:
        assert isinstance(call, Awaitable)
        await call


async def test_whatever_is_called_after_its_end_says_so(autojump_clock: object) -> None:
    fake = FakeLnd()
    async with opened(fake) as node:
        await node.wait_ready()
    assert node.status == NodeStatus(state=NodeState.AWAY, reason="the client of LND at lnd:10009 is closed")
    methods = [name for name, _ in getmembers(LndNode, isfunction) if not name.startswith("_")]
    assert len(methods) > 15
    for name in methods:
        method = getattr(node, name)
        needed = [each for each in signature(method).parameters.values() if each.default is Parameter.empty]
        with trio.fail_after(5), pytest.raises(trio.ClosedResourceError, match="the client of LND is closed"):
            await end_of(method(**{each.name: ARGUMENTS.get(each.name, 1) for each in needed}))


async def test_who_waits_at_its_end_stops_waiting(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.become(WalletState.LOCKED)
    ended: list[str] = []

    async def wait(name: str, call: Callable[[], Awaitable[object]]) -> None:
        with trio.fail_after(60), pytest.raises(trio.ClosedResourceError):
            await call()
        ended.append(name)

    async with trio.open_nursery() as nursery:
        async with opened(fake) as node:
            await trio.sleep(5)
            nursery.start_soon(wait, "ready", node.wait_ready)  # noqa: ASYNC111 - that is the point
            nursery.start_soon(wait, "status", partial(node.status_after, node.status))  # noqa: ASYNC111 - that is the point
            await trio.sleep(5)
    assert sorted(ended) == ["ready", "status"]


async def test_cancelled_from_outside_the_block_can_still_call(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SIGN_MESSAGE] = says(SignMessageResponse(signature=zbase32.encode(bytes([31, *[1] * 64]))))
    signed = b""
    with trio.CancelScope() as scope:
        async with opened(fake) as node:
            await node.wait_ready()
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    signed = await node.sign(b"hello")
    assert scope.cancelled_caught
    assert len(signed) == 65


@pytest.mark.parametrize("error", [ValueError("body"), ExceptionGroup("its own", [KeyError()])])
async def test_what_the_block_raises_comes_out_as_it_went_in(error: Exception, autojump_clock: object) -> None:
    fake = FakeLnd()
    async with fake.serve():
        with pytest.raises(type(error)) as caught:
            async with open_lnd(CREDENTIALS, connect=fake.connect):
                raise error
        assert caught.value is error
