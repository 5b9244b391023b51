"""A database that is restored from a backup: noticed, brought up to date, and nothing is paid twice."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.conftest import Wall, inline
from tests.test_timekeeping import key_of, spent
from tests.walks import Stage, detail, everything, stage, take
from trio.testing import MockClock

from impervious import payment_books
from impervious.adoption import Adoption
from impervious.cli.adopting import adopt_into
from impervious.errors import FailedPrecondition, NodeRefused, NodeUnavailable, ResourceExhausted
from impervious.model import NodePubkey, NodeState, PaymentPage, PaymentStatus, Preimage, RecordType, ServiceType
from impervious.service import Effect, Fact, Service, VerifiedMessage
from impervious.service.discovery import with_entries
from impervious.services.built_in import BUILT_IN
from impervious.services.lightning import LightningService
from impervious.store import Tx, open_store
from impervious.store.history import SEQ_STEP
from impervious.supervisor import TIDY_EVERY_S, Node
from impervious.units import Msat, Sat
from impervious.wire import envelope
from impervious.wire.keysend import PREIMAGE_RECORD


class Echo(Service):
    """Answers by itself, for what the request brings."""

    service_type = ServiceType("echo")
    record_type = RecordType(770_000)
    handles_facts = True

    async def handle(self, fact: Fact) -> Effect | None:
        if not isinstance(fact, VerifiedMessage) or fact.reply_to is not None:
            return None
        return lambda tx: tx.answer(fact, b"yes")

    async def ask(self, node: NodePubkey) -> None:
        await self.context.transaction(lambda tx: tx.ask(node, b"?"))


def files(where: Stage, name: str) -> list[Path]:
    return list(where.folder.glob(f"{name}.db*"))


def back_up(where: Stage, name: str = "alice") -> None:
    """Copy the database of a daemon that has stopped."""
    shutil.copyfile(where.folder / f"{name}.db", where.folder / "backup")


def restore(where: Stage, name: str = "alice") -> None:
    for each in files(where, name):
        each.unlink()
    shutil.copyfile(where.folder / "backup", where.folder / f"{name}.db")


async def adopted(where: Stage, name: str = "alice", *, dry_run: bool = False, count_others: bool = False) -> Adoption:
    path = where.folder / f"{name}.db"
    async with open_store(path, now_ms=where.wall, run_sync=inline) as store:
        config = with_entries(where.config_of(name), [*BUILT_IN, Echo])
        return await adopt_into(store, where.network.node(name), config, dry_run=dry_run, count_others=count_others)


async def payments(where: Stage, name: str = "alice") -> int:
    """How many payments have cost something."""
    page = await where.network.node(name).list_payments(limit=10_000)
    return len([each for each in page.payments if each.status is PaymentStatus.SUCCEEDED])


def other_preimages(tx: Tx) -> None:
    """Make every part another payment."""
    for number, (payment_hash,) in enumerate(tx.all("SELECT payment_hash FROM part")):
        other = Preimage(bytes([number]) * 32)
        tx.run(
            "UPDATE part SET payment_hash = ?, preimage = ? WHERE payment_hash = ?",
            other.payment_hash,
            other.raw,
            payment_hash,
        )


async def some_paid(where: Stage) -> None:
    """Wait until a few parts are paid."""
    for _ in range(1000):
        if await payments(where) >= 4:
            return
        await trio.sleep(0.05)
    raise AssertionError


async def received(where: Stage) -> list[str]:
    """What carol's daemon shows."""
    async with where.node("carol") as carol:
        await trio.sleep(60)
        return [each.data.decode() for each in await everything(carol) if each.service_type == "message"]


@asynccontextmanager
async def restored(folder: Path, wall: Wall, *, sent: int = 24) -> AsyncIterator[Stage]:
    """Alice's database as it was before she sent her last messages."""
    async with stage(folder, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "before", wait=True)
        back_up(where)
        async with where.node("alice") as alice:
            for number in range(sent):
                await alice.messages.send(
                    key_of(where, "carol"), f"letter {number}", idempotency_key=f"k{number}", wait=True
                )
        restore(where)
        yield where


async def test_a_restored_backup_is_noticed_and_nothing_is_paid_until_it_is_adopted(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with restored(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        for _ in range(2):  # a restart does not forget it
            async with where.node("alice") as alice:
                await trio.sleep(5)
                assert alice.status.state is NodeState.PAYING_NOTHING
                assert "run `impervious db adopt`" in alice.status.reason
                with pytest.raises(FailedPrecondition, match="run `impervious db adopt`"):
                    await alice.messages.send(carol, "letter 0", idempotency_key="k0")
                with pytest.raises(FailedPrecondition, match="run `impervious db adopt`"):
                    await alice.service(LightningService).keysend(carol, Sat(1))
                assert [detail(each)["state"] for each in await everything(alice) if each.service_type == "status"] == [
                    "delivered",
                    "epoch_changed",
                ]
        assert await payments(where) == 25
        looked = await adopted(where, dry_run=True)
        found = await adopted(where)
        assert replace(looked, epoch=found.epoch) == found
        assert (found.messages, found.payments, found.incomplete, found.queued_delivered) == (24, 24, 0, 0)
        async with where.node("alice") as alice:
            await trio.sleep(5)
            assert alice.status.ready
            assert await payments(where) == 25
            await alice.messages.send(carol, "after", wait=True)
        assert await received(where) == ["before", *(f"letter {number}" for number in range(24)), "after"]
        assert await payments(where) == 26


async def test_what_was_adopted_counts_in_the_budget_and_is_told(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with restored(tmp_path, wall) as where:
        found = await adopted(where)
        where.config = replace(where.config, lightning=replace(where.config.lightning, daily_limit_sat=Sat(50)))
        async with where.node("alice") as alice:
            assert found.spent_msat == 48_000
            assert await spent(alice) == 50_000
            with pytest.raises(ResourceExhausted):
                await alice.messages.send(key_of(where, "carol"), "more")
            told = [each for each in await everything(alice) if each.service_type == "status"]
            assert len(told) == 1 + 24 + 1
            assert {detail(each)["state"] for each in told} == {"delivered", "epoch_changed"}
            await trio.sleep(86_400)
            assert await spent(alice) == 0


async def test_numbers_of_lost_events_are_not_given_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "before", wait=True)
            async with alice.events() as stream:
                epoch = stream.epoch
        back_up(where)
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "lost", wait=True)
            [*_, lost] = await everything(alice)
            async with alice.events() as stream:
                assert stream.epoch == epoch
        restore(where)
        async with where.node("alice") as alice, where.node("bob") as bob:
            await bob.messages.send(key_of(where, "alice"), "hello")
            events = await take(alice, 2, since=lost.seq - 1, seconds=60)
            async with alice.events() as stream:
                assert stream.epoch != epoch
            assert [each.seq > lost.seq + SEQ_STEP / 2 for each in events] == [True, True]
            assert detail(events[0]) == {"state": "epoch_changed", "epoch": stream.epoch, "was": epoch}
            assert events[1].data == b"hello"


async def test_a_daemon_that_was_not_set_back_is_not_disturbed(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        carol, node = key_of(where, "carol"), where.network.node("alice")
        for start in range(3):
            async with where.node("alice") as alice:
                await alice.messages.send(carol, f"letter {start}", wait=True)
                # Other programs on the same node pay too, even with records that look like ours.
                for records in ({}, {400_000: b"text"}, {400_000: b"I\x01"}, {400_000: b"I\x01nonsense" * 20}):
                    preimage = Preimage(bytes([start, len(records)]) + bytes(str(records), "ascii")[:30].ljust(30))
                    await node.send_keysend(carol, Msat(1000), preimage, records, fee_limit=Msat(5000), timeout_s=60)
                assert alice.status.ready
                assert [detail(each)["state"] for each in await everything(alice) if each.service_type == "status"] == [
                    "delivered"
                ] * (start + 1)


async def test_a_new_database_on_an_old_node_begins_anew(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "before", wait=True)
        for each in files(where, "alice"):
            each.unlink()
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "after", wait=True)


async def test_what_was_queued_at_the_backup_is_not_paid_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            where.network.lnd("bob").stop()
            for number in range(5):
                await alice.messages.send(carol, f"letter {number}" * 400)
        back_up(where)
        where.network.lnd("bob").start()
        async with where.node("alice") as alice:
            await alice.messages.send(carol, "last", wait=True)
            await take(alice, 6, service="status", starting=b'{"state": "delivered"')
        before = await payments(where)
        restore(where)
        async with where.node("alice") as alice:
            await trio.sleep(300)
            assert await payments(where) == before
        found = await adopted(where)
        assert (found.queued_delivered, found.queued_shortened, found.messages) == (5, 0, 1)
        async with where.node("alice") as alice:
            await take(alice, 6, service="status", starting=b'{"state": "delivered"')
            await trio.sleep(300)
        assert await payments(where) == before
        assert await received(where) == [*(f"letter {number}" * 400 for number in range(5)), "last"]


async def test_a_message_that_was_sent_in_part_goes_on_from_there(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    text = "".join(f"{number:08}" for number in range(1500))
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            where.network.lnd("bob").stop()
            await alice.messages.send(carol, text)
        back_up(where)
        where.network.lnd("bob").start()
        async with where.node("alice"):
            await some_paid(where)
        await trio.sleep(60)
        done = await payments(where)
        restore(where)
        # As if the database had cut it otherwise: what it holds now was never paid under these hashes.
        async with open_store(where.folder / "alice.db", now_ms=where.wall, run_sync=inline) as store:
            await store.write(other_preimages)
        async with where.node("alice") as alice:
            await trio.sleep(5)
            assert alice.status.state is NodeState.PAYING_NOTHING
        found = await adopted(where)
        assert (found.payments, found.messages) == (done, 0)
        async with where.node("alice") as alice:
            await take(alice, 1, service="status", starting=b'{"state": "delivered"')
        assert await received(where) == [text]
        page = await where.network.node("alice").list_payments(limit=1000, records=True)
        parts = [each for each in page.payments if each.status is PaymentStatus.SUCCEEDED]
        assert sum(len(envelope.decode(each.records[400_000]).payload) for each in parts) == len(text)


async def test_a_message_of_which_a_part_is_lost_ends_as_failed(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "before", wait=True)
        back_up(where)
        async with where.node("alice") as alice:
            identifier = await alice.messages.send(key_of(where, "carol"), "x" * 40_000)
            await some_paid(where)
        await trio.sleep(60)
        restore(where)
        found = await adopted(where)
        assert (found.messages, found.incomplete) == (1, 1)
        async with where.node("alice") as alice:
            [event] = [each for each in await everything(alice) if each.id == identifier]
            assert detail(event)["state"] == "failed"
            assert "restored from a backup older than this message: of its 40000 bytes" in detail(event)["reason"]
            await alice.messages.send(key_of(where, "carol"), "after", wait=True)
        assert await received(where) == ["before", "after"]  # carol does not wait for the lost one


async def test_what_a_service_answered_before_is_not_paid_for_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    for adopt_first in (True, False):
        folder = tmp_path / str(adopt_first)
        folder.mkdir()
        async with stage(folder, wall) as where:
            async with where.node("alice", Echo):
                await trio.sleep(5)
            back_up(where)
            async with where.node("alice", Echo) as alice, where.node("carol", Echo) as carol:
                await carol.service(Echo).ask(key_of(where, "alice"))
                await take(alice, 1, service="status", starting=b'{"state": "delivered"')
                assert await payments(where) == 1
            restore(where)
            if adopt_first:
                await adopted(where)
            async with where.node("alice", Echo) as alice:
                await trio.sleep(60)
                assert await payments(where) == 1
            if not adopt_first:
                assert (await adopted(where)).answers == 1
            async with where.node("alice", Echo) as alice:
                await trio.sleep(60)
                assert await payments(where) == 1


async def test_only_what_is_newer_than_the_mark_is_read(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment_books, "PAGE", 10)
    async with stage(tmp_path, wall) as where:
        carol, node = key_of(where, "carol"), where.network.node("alice")
        async with where.node("alice") as alice:
            for number in range(30):
                await alice.messages.send(carol, f"{number}", wait=True)
            await trio.sleep(2 * payment_books.MARK_EVERY_S)
        asked: list[int] = []
        list_payments = node.list_payments

        async def counted(**how: Any) -> Any:
            asked.append(how.get("index_offset", 0))
            return await list_payments(**how)

        monkeypatch.setattr(node, "list_payments", counted)
        async with where.node("alice"):
            await trio.sleep(5)
        assert asked == [0, 0]  # at the start, and before anything is forgotten


async def test_an_lnd_with_another_time_is_told(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(tmp_path, wall) as where:
        node = where.network.node("alice")
        list_payments = node.list_payments

        async def stamped(**how: Any) -> PaymentPage:
            page = await list_payments(**how)
            late = [replace(each, created_s=each.created_s - 30 * 86_400) for each in page.payments]
            return replace(page, payments=tuple(late))

        async with where.node("alice") as alice:
            for late in (False, True, True):
                if late:
                    node.list_payments = stamped  # type: ignore[method-assign]
                await alice.messages.send(key_of(where, "carol"), "letter", wait=True)
                await trio.sleep(2 * payment_books.MARK_EVERY_S)
                told = [each.getMessage() for each in caplog.records if "LND's clock" in each.getMessage()]
                assert len(told) == late
                assert all("is 720 hours behind" in each for each in told)


@pytest.mark.parametrize("index", [0, 1, 10**6])
async def test_a_node_that_numbers_its_payments_anew_is_read_by_date(
    index: int, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with restored(tmp_path, wall, sent=3) as where:
        async with open_store(where.folder / "alice.db", now_ms=where.wall, run_sync=inline) as store:
            await store.write(lambda tx: tx.run("UPDATE history SET payment_index = ?", index))
        async with where.node("alice") as alice:
            await trio.sleep(5)
            assert alice.status.state is NodeState.PAYING_NOTHING
        assert (await adopted(where)).messages == 3


async def test_books_that_cannot_be_read_are_asked_for_again_and_nothing_is_paid_before(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with restored(tmp_path, wall, sent=3) as where:
        node = where.network.node("alice")

        async def refused(**_how: Any) -> PaymentPage:
            await trio.lowlevel.checkpoint()
            raise NodeRefused("LND: not now")

        with monkeypatch.context() as patched:
            patched.setattr(node, "list_payments", refused)
            async with where.node("alice") as alice:
                with pytest.raises(NodeUnavailable, match="first compares its clock with the chain"):
                    await alice.messages.send(key_of(where, "carol"), "letter 0")
                patched.undo()
                await trio.sleep(10)
                with pytest.raises(FailedPrecondition, match="run `impervious db adopt`"):
                    await alice.messages.send(key_of(where, "carol"), "letter 0")


async def test_a_backup_of_what_had_only_been_accepted_is_noticed(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            where.network.lnd("alice").stop()
            await alice.messages.context.transaction(lambda tx: tx.send(carol, b"letter"))
        back_up(where)
        where.network.lnd("alice").start()
        async with where.node("alice") as alice:
            await take(alice, 1, service="status", starting=b'{"state": "delivered"')
        restore(where)
        async with where.node("alice") as alice:
            await trio.sleep(60)
            assert alice.status.state is NodeState.PAYING_NOTHING
        assert (await adopted(where)).queued_delivered == 1
        async with where.node("alice") as alice:
            await take(alice, 1, service="status", starting=b'{"state": "delivered"')
        assert await payments(where) == 1
        assert await received(where) == ["letter"]


async def test_a_debt_that_was_paid_after_the_backup_is_not_tried_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            where.network.lnd("carol").set_accepts_keysend(False)
            await alice.messages.context.transaction(
                lambda tx: tx.settle(carol, b"refund", amount=Msat(5000), fee_limit=Msat(5000))
            )
            await take(alice, 1, service="status", starting=b'{"state": "failed"')
        back_up(where)
        where.network.lnd("carol").set_accepts_keysend(True)
        async with where.node("alice") as alice:
            await take(alice, 1, service="status", starting=b'{"state": "delivered"', seconds=90_000)
        restore(where)
        async with where.node("alice") as alice:
            await trio.sleep(60)
            assert alice.status.state is NodeState.PAYING_NOTHING
        found = await adopted(where)
        assert (found.queued_delivered, found.messages) == (1, 0)
        async with where.node("alice") as alice:
            await trio.sleep(86_400)
            assert alice.status.ready
        assert await payments(where) == 1


async def test_a_daemon_that_was_off_for_long_is_not_taken_for_a_restored_one(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "before the mark is noted", wait=True)
        wall.offset_ms += 30 * 86_400_000  # limits.idempotency_days is 7: what was sent is forgotten at the start
        for _ in range(2):
            async with where.node("alice") as alice:
                await trio.sleep(600)
                assert alice.status.ready
                assert not await spent(alice)


async def test_an_idle_database_of_an_earlier_version_is_not_taken_for_a_restored_one(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    """The event of the last message is kept longer than the message itself, and there was no mark."""
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "long ago", wait=True)
        async with open_store(where.folder / "alice.db", now_ms=wall, run_sync=inline) as store:
            await store.write(lambda tx: tx.run("DELETE FROM part"))
            await store.write(lambda tx: tx.run("DELETE FROM outbound"))
            await store.write(
                lambda tx: tx.run("UPDATE history SET clock_ms = 0, payment_index = 0, payment_created_s = 0")
            )
        wall.offset_ms += 30 * 86_400_000
        async with where.node("alice") as alice:
            await trio.sleep(60)
            assert alice.status.ready
            await alice.messages.send(key_of(where, "carol"), "and now", wait=True)


async def test_what_is_forgotten_between_two_marks_is_not_missed(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    """A message that was accepted long ago may be paid just before it is forgotten."""
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await trio.sleep(TIDY_EVERY_S - 5)
            message = await alice.messages.send(key_of(where, "carol"), "an old debt", wait=True)
            await alice.messages.context.transaction(
                lambda tx: tx._tx.run("UPDATE outbound SET accepted_at_ms = 1 WHERE id = ?", message.bytes)
            )
            await trio.sleep(20)
            assert not await alice.messages.context.read(lambda tx: tx._tx.all("SELECT 1 FROM outbound"))
        async with where.node("alice") as alice:
            await trio.sleep(60)
            assert alice.status.ready


async def settle_held(where: Stage) -> None:
    """Have carol's LND settle every keysend that it holds."""
    page = await where.network.node("alice").list_payments(limit=1000, records=True)
    for each in page.payments:
        if each.status is PaymentStatus.IN_FLIGHT:
            where.network.lnd("carol").settle_invoice(Preimage(each.records[PREIMAGE_RECORD]))


async def outcomes(node: Node) -> list[Any]:
    told = [detail(each) for each in await everything(node) if each.service_type == "status"]
    return [each for each in told if each["state"] in ("delivered", "failed")]


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("settles", [False, True])
async def test_what_is_in_flight_ends_as_its_payments_do(
    queued: bool, settles: bool, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    text = "0123456789" * 250
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        where.network.lnd("carol").hold_keysends(600)
        async with where.node("alice") as alice:
            await alice.wait_ready()
            if queued:
                where.network.lnd("alice").stop()
                await alice.messages.context.transaction(lambda tx: tx.send(carol, text.encode()))
        back_up(where)
        if queued:
            where.network.lnd("alice").start()
        async with where.node("alice") as alice:
            if not queued:
                await alice.messages.send(carol, text)
            await trio.sleep(10)
        restore(where)
        async with where.node("alice") as alice:
            await trio.sleep(5)
            assert alice.status.state is NodeState.PAYING_NOTHING
        found = await adopted(where)
        assert (found.messages, found.payments, found.queued_delivered) == (0 if queued else 1, 0 if queued else 3, 0)
        assert (found.under_way, found.incomplete, found.queued_shortened) == (1, 0, 0)
        async with where.node("alice") as alice:
            await trio.sleep(30)
            assert alice.status.ready
            assert await outcomes(alice) == []
            assert await spent(alice) > 3000  # what its payments may cost at most
            if settles:
                await settle_held(where)
            await trio.sleep(1200)
            [end] = await outcomes(alice)
            if settles:
                assert (end["state"], end["parts"], end["amount_sat"]) == ("delivered", 3, 3)
                assert await spent(alice) == 3000 + end["fee_msat"]
            else:
                assert (end["state"], end["parts_settled"], end["amount_spent_sat"]) == ("failed", 0, 0)
                assert "keysend-hold-time" in end["reason"]
                assert await spent(alice) == 0
        assert await payments(where) == (3 if settles else 0)
        assert await received(where) == ([text] if settles else [])


async def test_what_was_in_flight_and_did_not_reach_the_recipient_is_sent_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    text = "0123456789" * 250
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.wait_ready()
        back_up(where)
        where.network.lnd("carol").delay_arrivals(30)
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), text)
            await trio.sleep(5)
        restore(where)
        assert (await adopted(where)).under_way == 1
        where.network.lnd("carol").stop()
        async with where.node("alice") as alice:
            await trio.sleep(120)
            assert await outcomes(alice) == []
            assert await payments(where) == 0
            where.network.lnd("carol").start()
            where.network.lnd("carol").delay_arrivals(0)
            await trio.sleep(400)
            [end] = await outcomes(alice)
            assert (end["state"], end["parts"]) == ("delivered", 3)
        assert await payments(where) == 3
        assert await received(where) == [text]


async def test_of_a_message_that_is_lost_in_part_only_what_has_settled_was_sent(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.wait_ready()
        back_up(where)
        where.network.lnd("carol").hold_keysends(600)
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), "x" * 90_000)
            await trio.sleep(10)
        restore(where)
        found = await adopted(where)
        assert (found.messages, found.incomplete, found.under_way) == (1, 1, 0)
        async with where.node("alice") as alice:
            [end] = await outcomes(alice)
            assert (end["state"], end["parts_settled"], end["amount_spent_sat"]) == ("failed", 0, 0)
            assert "of its 90000 bytes 0 had been sent" in end["reason"]
            assert f"payments of it that had not ended: {found.payments}" in end["reason"]
            assert await spent(alice) == found.spent_msat > 1000 * found.payments


@pytest.mark.parametrize("settles", [False, True])
async def test_a_debt_whose_payment_is_in_flight_is_followed(
    settles: bool, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            where.network.lnd("carol").set_accepts_keysend(False)
            await alice.messages.context.transaction(
                lambda tx: tx.settle(carol, b"refund", amount=Msat(5000), fee_limit=Msat(5000))
            )
            await take(alice, 1, service="status", starting=b'{"state": "failed"')
        back_up(where)
        where.network.lnd("carol").set_accepts_keysend(True)
        where.network.lnd("carol").hold_keysends(600)
        async with where.node("alice"):
            await trio.sleep(10)
        restore(where)
        found = await adopted(where)
        assert (found.under_way, found.queued_delivered, found.messages) == (1, 0, 0)
        async with where.node("alice") as alice:
            await trio.sleep(30)
            assert [each["state"] for each in await outcomes(alice)] == ["failed"]
            if settles:
                await settle_held(where)
            else:
                where.network.lnd("carol").hold_keysends(0)
            [end] = await take(alice, 1, service="status", starting=b'{"state": "delivered"', seconds=90_000)
            assert detail(end)["amount_sat"] == 5
        assert await payments(where) == 1


@pytest.mark.parametrize("settles", [False, True])
async def test_an_answer_in_flight_is_not_given_again(
    settles: bool, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice", Echo):
            await trio.sleep(5)
        back_up(where)
        async with where.node("alice", Echo), where.node("carol", Echo) as carol:
            where.network.lnd("carol").hold_keysends(600)
            await carol.service(Echo).ask(key_of(where, "alice"))
            await trio.sleep(10)
        restore(where)
        found = await adopted(where)
        assert (found.messages, found.under_way) == (1, 1)
        async with where.node("alice", Echo) as alice:
            await trio.sleep(30)
            [again] = await outcomes(alice)
            assert (again["state"], again["retryable"]) == ("failed", False)
            assert "gave this answer before the database was restored from a backup" in again["reason"]
            if settles:
                await settle_held(where)
            await trio.sleep(1200)
            assert [each["state"] for each in await outcomes(alice)] == ["failed", "delivered" if settles else "failed"]
        assert await payments(where) == int(settles)


async def test_payments_that_do_not_say_yet_what_they_are_for_are_waited_for(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with restored(tmp_path, wall, sent=3) as where:
        node = where.network.node("alice")
        list_payments, started = node.list_payments, trio.current_time()
        told: list[str] = []

        async def routeless(**how: Any) -> PaymentPage:
            page = await list_payments(**how)
            if trio.current_time() - started > 20:
                return page
            searching = [
                replace(each, status=PaymentStatus.IN_FLIGHT, dest=None, records={}, attempts=0, fee=Msat(0))
                for each in page.payments
            ]
            return replace(page, payments=tuple(searching))

        monkeypatch.setattr(node, "list_payments", routeless)
        async with open_store(where.folder / "alice.db", now_ms=where.wall, run_sync=inline) as store:
            config = with_entries(where.config_of("alice"), [*BUILT_IN, Echo])
            found = await adopt_into(store, node, config, tell=told.append)
        assert (found.messages, found.under_way) == (3, 0)
        [line] = told
        assert "LND looks for routes for 4 payments" in line
