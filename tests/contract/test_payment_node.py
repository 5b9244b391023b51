from dataclasses import replace

import pytest
import trio
from tests.contract.stage import Stage
from tests.sim.reader import preimage_of, until

from impervious.errors import (
    AlreadyPaying,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.model import (
    InvoiceTerms,
    KeysendSupport,
    NodeInfo,
    NodePubkey,
    NodeState,
    Payment,
    PaymentStatus,
    Verdict,
)
from impervious.sim.engine.answers import WalletState
from impervious.units import Msat
from impervious.wire import lnd_signature

STRANGER = NodePubkey.parse("02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5")


# --- readiness ---


async def test_a_ready_node_says_who_it_is(stage: Stage) -> None:
    info = await stage.alice.wait_ready()
    assert stage.alice.status.ready
    assert (info.pubkey, info.alias, info.network) == (stage.lnd("alice").pubkey, "alice", "regtest")
    assert (info.synced_to_chain, info.block_height) == (True, 850_000)
    assert 55 in info.features


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (WalletState.LOCKED, NodeState.LOCKED),
        (WalletState.UNLOCKED, NodeState.STARTING),
        (WalletState.RPC_ACTIVE, NodeState.STARTING),
    ],
)
async def test_a_node_that_is_not_ready_says_why_and_refuses_until_it_is(
    state: WalletState, seen: NodeState, stage: Stage
) -> None:
    await stage.alice.wait_ready()
    stage.lnd("alice").stop()
    stage.lnd("alice").start(state)
    await until(lambda: stage.alice.status.state is seen)
    assert stage.alice.status.reason
    with pytest.raises(NodeUnavailable):
        await stage.pay()
    ready: list[NodeInfo] = []

    async def wait() -> None:
        ready.append(await stage.alice.wait_ready())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not ready
        stage.lnd("alice").unlock()
    assert ready
    assert (await stage.pay()).status is PaymentStatus.SUCCEEDED


async def test_a_stopped_node_is_away_and_comes_back(stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("alice").stop()
    await until(lambda: stage.alice.status.state is NodeState.AWAY)
    with pytest.raises(NodeUnavailable):
        await stage.alice.sign(b"text")
    stage.lnd("alice").start()
    with trio.fail_after(10):
        await stage.alice.wait_ready()
    assert len(await stage.alice.sign(b"text")) == 65


async def test_a_node_without_keysend_cannot_serve_and_says_why(stage: Stage) -> None:
    dave = stage.node("dave")
    await until(lambda: dave.status.state is NodeState.REFUSING)
    assert "accept-keysend" in dave.status.reason
    with trio.move_on_after(1) as scope:
        await dave.wait_ready()
    assert scope.cancelled_caught


# --- channels ---


async def test_its_channels_say_what_can_be_sent(stage: Stage) -> None:
    await stage.alice.wait_ready()
    [channel] = await stage.alice.list_channels()
    assert (channel.peer, channel.active, channel.private) == (stage.lnd("bob").pubkey, True, False)
    assert channel.spendable == channel.receivable == 490_000_000  # half of it each, and 1 % in reserve
    bobs = await stage.node("bob").list_channels()
    assert [each.private for each in bobs if each.peer == stage.lnd("erin").pubkey] == [True]
    stage.lnd("bob").disconnect(stage.lnd("alice"))
    assert [each.active for each in await stage.alice.list_channels()] == [False]


async def test_a_channel_that_becomes_active_is_news(stage: Stage) -> None:
    await stage.alice.wait_ready()
    bob = stage.lnd("bob")
    with trio.fail_after(10):
        async with stage.alice.channel_news() as news:
            await until(lambda: stage.lnd("alice").rpcs.channel_subscribers > 0)
            for _ in range(2):
                bob.disconnect(stage.lnd("alice"))
                bob.connect(stage.lnd("alice"))
                await anext(news)


async def test_a_way_that_failed_a_moment_ago_is_tried_again(stage: Stage) -> None:
    await stage.alice.wait_ready()
    bob, carol = stage.lnd("bob"), stage.lnd("carol")
    bob.disconnect(carol)
    assert (await stage.pay(1)).status is PaymentStatus.FAILED
    failed = await stage.pay(2)  # mission control would not even try; the way is tried once, and fails
    assert (failed.status, failed.failure, failed.attempts) == (PaymentStatus.FAILED, PaymentFailure.ERROR, 1)
    bob.connect(carol)
    for number in (2, 3):  # the same payment, and another one
        paid = await stage.pay(number)
        assert (paid.status, paid.fee, paid.preimage) == (PaymentStatus.SUCCEEDED, 1000, preimage_of(number))
    assert (await stage.alice.lookup_payment(preimage_of(2).payment_hash)).status is PaymentStatus.SUCCEEDED
    with pytest.raises(AlreadyPaying):
        await stage.pay(2)


async def test_a_way_that_is_tried_again_keeps_to_the_limits(stage: Stage) -> None:
    await stage.alice.wait_ready()
    bob, carol = stage.lnd("bob"), stage.lnd("carol")
    bob.disconnect(carol)
    assert (await stage.pay(1)).status is PaymentStatus.FAILED
    bob.connect(carol)
    for change in ({"fee_limit": 999}, {"records": {400000: bytes(1155)}}):
        failed = await stage.pay(2, **change)
        assert (failed.failure, failed.attempts) == (PaymentFailure.NO_ROUTE, 0)
    stage.lnd("carol").set_accepts_keysend(False)
    refused = await stage.pay(3)
    assert refused.failure is PaymentFailure.INCORRECT_PAYMENT_DETAILS


async def test_a_node_with_private_channels_only_is_reached_by_what_it_says_of_them(stage: Stage) -> None:
    await stage.alice.wait_ready()
    erin = stage.node("erin")
    await erin.wait_ready()
    assert (await stage.pay(1, to="erin")).failure is PaymentFailure.NO_ROUTE
    [[hop]] = hints = await erin.route_hints()
    assert hop.pubkey == stage.lnd("bob").pubkey
    assert (await erin.list_channels())[0].chan_id == hop.chan_id
    paid = await stage.alice.send_keysend(
        stage.lnd("erin").pubkey,
        Msat(1000),
        preimage_of(1),
        {400000: b"hello"},
        fee_limit=Msat(5000),
        timeout_s=60,
        hints=hints,
    )
    assert (paid.status, paid.fee) == (PaymentStatus.SUCCEEDED, 1000)
    route = await stage.alice.find_route(
        stage.lnd("erin").pubkey, Msat(1000), {400000: b"hello"}, fee_limit=Msat(5000), hints=hints
    )
    assert (route.hops, route.fee) == (2, 1000)
    assert await stage.alice.route_hints() == await stage.node("bob").route_hints() == ()


async def test_an_invoice_of_a_node_with_private_channels_only_names_them(stage: Stage) -> None:
    await stage.alice.wait_ready()
    erin = stage.node("erin")
    await erin.wait_ready()
    for private in (False, True):
        made = await erin.add_invoice(InvoiceTerms(amount=Msat(1000), private=private))
        read = await stage.alice.decode_invoice(made.payment_request)
        payment = await stage.alice.pay_invoice(read, fee_limit=Msat(5000), timeout_s=60)
        assert (payment.status is PaymentStatus.SUCCEEDED) == private


# --- signatures ---


async def test_a_signature_names_its_node(stage: Stage) -> None:
    await stage.alice.wait_ready()
    signature = await stage.alice.sign(b"text")
    assert 31 <= signature[0] <= 34
    assert lnd_signature.recover(b"text", signature) == stage.lnd("alice").pubkey
    assert await stage.alice.verify(b"text", signature) == Verdict(valid=True, pubkey=stage.lnd("alice").pubkey)


async def test_valid_means_known_not_right(stage: Stage) -> None:
    await stage.alice.wait_ready()
    hidden = stage.lnd("erin").node.identity.sign(b"text")
    assert await stage.alice.verify(b"text", hidden) == Verdict(valid=False, pubkey=stage.lnd("erin").pubkey)
    changed = await stage.alice.verify(b"other text", await stage.alice.sign(b"text"))
    assert changed.pubkey not in (None, stage.lnd("alice").pubkey)
    assert not changed.valid


async def test_what_nobody_signed_has_no_signer(stage: Stage) -> None:
    await stage.alice.wait_ready()
    assert await stage.alice.verify(b"text", b"\x1f" + bytes(64)) == Verdict(valid=False, pubkey=None)


async def test_an_empty_text_cannot_be_signed(stage: Stage) -> None:
    await stage.alice.wait_ready()
    with pytest.raises(NodeRefused, match="need a message to sign"):
        await stage.alice.sign(b"")


# --- payments ---


async def test_a_direct_peer_is_paid_without_a_fee(stage: Stage) -> None:
    await stage.alice.wait_ready()
    payment = await stage.pay(to="bob", amount=5000, fee_limit=0)
    assert replace(payment, dest=None, records={}) == Payment(  # these two are for `list_payments`
        payment_hash=preimage_of(1).payment_hash,
        status=PaymentStatus.SUCCEEDED,
        amount=Msat(5000),
        fee=Msat(0),
        attempts=1,
        preimage=preimage_of(1),
        created_s=payment.created_s,
    )
    assert payment.created_s > 1_700_000_000


async def test_a_fee_comes_on_top(stage: Stage) -> None:
    await stage.alice.wait_ready()
    payment = await stage.pay(amount=5000)
    assert (payment.status, payment.amount, payment.fee) == (PaymentStatus.SUCCEEDED, 5000, 1000)


@pytest.mark.parametrize(
    ("to", "change", "reason"),
    [
        ("carol", {"fee_limit": 0}, PaymentFailure.NO_ROUTE),
        ("carol", {"fee_limit": 999}, PaymentFailure.NO_ROUTE),
        ("carol", {"amount": 999}, PaymentFailure.NO_ROUTE),
        ("carol", {"records": {400000: bytes(1155)}}, PaymentFailure.NO_ROUTE),
        ("erin", {}, PaymentFailure.NO_ROUTE),
        ("carol", {"amount": 600_000_000}, PaymentFailure.INSUFFICIENT_BALANCE),
    ],
)
async def test_without_a_way_nothing_is_tried(
    to: str, change: dict[str, object], reason: PaymentFailure, stage: Stage
) -> None:
    await stage.alice.wait_ready()
    payment = await stage.pay(to=to, **change)  # type: ignore[arg-type]  # a table of one argument each
    assert (payment.status, payment.failure, payment.attempts) == (PaymentStatus.FAILED, reason, 0)
    assert (payment.fee, payment.preimage) == (0, None)


async def test_the_largest_record_goes_through(stage: Stage) -> None:
    await stage.alice.wait_ready()
    assert (await stage.pay(records={400000: bytes(1154)})).status is PaymentStatus.SUCCEEDED


async def test_a_receiver_without_keysend_refuses_the_details(stage: Stage) -> None:
    await stage.alice.wait_ready()
    payment = await stage.pay(to="dave")
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, PaymentFailure.INCORRECT_PAYMENT_DETAILS)
    assert payment.attempts == 1


async def test_a_first_peer_that_is_away_looks_like_a_lack_of_money(stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("bob").stop()
    assert (await stage.pay()).failure is PaymentFailure.INSUFFICIENT_BALANCE


@pytest.mark.parametrize("reason", PaymentFailure)
@pytest.mark.parametrize("after_attempt", [False, True])
async def test_every_failure_is_told_as_it_is(reason: PaymentFailure, after_attempt: bool, stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("alice").fail_next_payment(reason, after_attempt=after_attempt)
    payment = await stage.pay()
    if reason is PaymentFailure.NO_ROUTE and not after_attempt:
        assert payment.status is PaymentStatus.SUCCEEDED  # there is one, and it was tried
    else:
        assert (payment.status, payment.failure, payment.attempts) == (PaymentStatus.FAILED, reason, int(after_attempt))


async def test_a_failed_payment_can_be_sent_again_and_a_settled_one_cannot(stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("alice").fail_next_payment(PaymentFailure.TIMEOUT)
    assert (await stage.pay()).status is PaymentStatus.FAILED
    assert (await stage.pay()).status is PaymentStatus.SUCCEEDED
    with pytest.raises(AlreadyPaying):
        await stage.pay()


@pytest.mark.parametrize("change", [{"amount": 0}, {"amount": -1}, {"records": {65535: b""}}, {"to": "alice"}])
async def test_what_cannot_be_paid_is_refused_and_leaves_nothing(change: dict[str, object], stage: Stage) -> None:
    await stage.alice.wait_ready()
    with pytest.raises(NodeRefused):
        await stage.pay(**change)  # type: ignore[arg-type]  # a table of one argument each
    with pytest.raises(PaymentNotFound):
        await stage.alice.track(preimage_of(1).payment_hash)


# --- what is in flight ---


async def test_leaving_stops_waiting_and_not_paying(stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("carol").hold_keysends(3600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.pay)
        await stage.hold("carol", 1)
        nursery.cancel_scope.cancel()
    with pytest.raises(AlreadyPaying):
        await stage.pay()
    tracked: list[Payment] = []

    async def track() -> None:
        tracked.append(await stage.alice.track(preimage_of(1).payment_hash))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(track)
        await trio.testing.wait_all_tasks_blocked()
        assert not tracked
        stage.release("carol", preimage_of(1))
    assert tracked[0].status is PaymentStatus.SUCCEEDED
    assert tracked[0].preimage == preimage_of(1)


async def test_a_deadline_ends_the_wait(stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("carol").hold_keysends(3600)
    with trio.move_on_after(0.05) as scope:
        await stage.pay()
    assert scope.cancelled_caught


async def test_what_was_never_sent_is_not_found(stage: Stage) -> None:
    await stage.alice.wait_ready()
    with pytest.raises(PaymentNotFound):
        await stage.alice.track(preimage_of(9).payment_hash)


@pytest.mark.parametrize("fails", [False, True])
async def test_an_ended_payment_is_tracked_at_once(fails: bool, stage: Stage) -> None:
    await stage.alice.wait_ready()
    if fails:
        stage.lnd("alice").fail_next_payment(PaymentFailure.ERROR, after_attempt=True)
    sent = await stage.pay()
    tracked = await stage.alice.track(sent.payment_hash)
    assert (tracked.status, tracked.failure, tracked.fee) == (sent.status, sent.failure, sent.fee)
    assert tracked.attempts == (0 if fails else 1)  # LND forgets the attempts that failed


async def test_an_answer_that_is_lost_is_found_by_tracking(stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("alice").lose_next_answer()
    with pytest.raises(NodeUnavailable):
        await stage.pay()
    with trio.fail_after(10):
        await stage.alice.wait_ready()
    assert (await stage.alice.track(preimage_of(1).payment_hash)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize("cleanly", [False, True])
async def test_a_node_that_goes_away_leaves_the_outcome_open(cleanly: bool, stage: Stage) -> None:
    await stage.alice.wait_ready()
    stage.lnd("carol").hold_keysends(3600)

    async def interrupted() -> None:
        with pytest.raises(NodeUnavailable):
            await stage.pay()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupted)
        await stage.hold("carol", 1)
        if cleanly:
            stage.lnd("alice").stop()
        else:
            stage.lnd("alice").kill()
    await until(lambda: stage.alice.status.state is NodeState.AWAY)
    stage.release("carol", preimage_of(1))
    stage.lnd("alice").start()
    with trio.fail_after(10):
        await stage.alice.wait_ready()
    assert (await stage.alice.track(preimage_of(1).payment_hash)).status is PaymentStatus.SUCCEEDED


async def test_many_payments_overlap(stage: Stage) -> None:
    await stage.alice.wait_ready()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(stage.pay, number)
    tracked = [await stage.alice.track(preimage_of(number).payment_hash) for number in range(50)]
    assert {payment.status for payment in tracked} == {PaymentStatus.SUCCEEDED}


# --- the graph ---


async def test_a_route_says_its_size_and_its_cost(stage: Stage) -> None:
    await stage.alice.wait_ready()
    route = await stage.alice.find_route(
        stage.lnd("carol").pubkey, Msat(5000), {400000: bytes(900)}, fee_limit=Msat(1000)
    )
    assert (route.hops, route.fee, route.total_amount) == (2, 1000, 6000)
    assert route.height > 850_000


@pytest.mark.parametrize(
    ("to", "record_bytes", "fee_limit"),
    [("carol", 900, 999), ("carol", 1155, 1000), ("erin", 1, 1000), (None, 1, 1000)],
)
async def test_where_there_is_no_route_it_says_so(
    to: str | None, record_bytes: int, fee_limit: int, stage: Stage
) -> None:
    await stage.alice.wait_ready()
    dest = STRANGER if to is None else stage.lnd(to).pubkey
    with pytest.raises(NoRoute):
        await stage.alice.find_route(dest, Msat(5000), {400000: bytes(record_bytes)}, fee_limit=Msat(fee_limit))


async def test_the_graph_says_who_accepts_keysend(stage: Stage) -> None:
    await stage.alice.wait_ready()
    assert await stage.alice.keysend_support(stage.lnd("carol").pubkey) is KeysendSupport.YES
    assert await stage.alice.keysend_support(stage.lnd("dave").pubkey) is KeysendSupport.NO
    assert await stage.alice.keysend_support(stage.lnd("erin").pubkey) is KeysendSupport.UNKNOWN
    assert await stage.node("bob").keysend_support(stage.lnd("erin").pubkey) is KeysendSupport.UNKNOWN
    assert await stage.alice.keysend_support(STRANGER) is KeysendSupport.UNKNOWN
