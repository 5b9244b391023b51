"""A third party's service on two nodes of the simulated network: facts, effects, restarts, switched off."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.service.toys import EchoService
from tests.walks import Stage, detail, everything, stage, take
from trio.testing import MockClock

from impervious.config import Config, ServiceConfig
from impervious.errors import (
    ConfigError,
    Malformed,
    NodeUnavailable,
    NotFound,
    StoreError,
    StoreFull,
    StoreUnusable,
)
from impervious.model import Preimage, ServiceType
from impervious.service import (
    Effect,
    Fact,
    Outcome,
    Service,
    ServiceContext,
    ServiceTx,
    SettledInvoice,
    Shown,
    VerifiedMessage,
    faults,
    host,
)
from impervious.service.faults import tell_set_aside
from impervious.service.projection import Projector
from impervious.services.message import MessageService
from impervious.store import upkeep
from impervious.supervisor import Node
from impervious.units import Msat

ECHO = ServiceType("echo")


class Patient(EchoService):
    """Runs into what may be over later, twice each time."""

    async def run(self) -> None:
        self.ran += 1
        if self.ran <= 2:
            raise (NodeUnavailable, StoreFull)[self.ran - 1]("not now")

    async def handle(self, fact: Fact) -> Effect | None:
        effect = await super().handle(fact)
        if len(self.facts) <= 2:
            raise NodeUnavailable("not now")
        return effect


class Cashier(EchoService):
    """Wants to know of payments."""

    handles_payments = True


class Discreet(EchoService):
    """Shows messages in different ways, and some that it should not have been asked about."""

    def project(self, message: VerifiedMessage) -> Shown | None:
        assert message.seq == 0
        match message.data:
            case b"drop":
                return None
            case b"malformed":
                raise Malformed("no such thing")
            case b"bug":
                raise ZeroDivisionError
            case b"exit":
                raise SystemExit(3)
            case b"control-C":
                raise KeyboardInterrupt
            case b"store":
                raise StoreFull("as it says")
            case b"text":
                return Shown(data="text")  # type: ignore[arg-type]
            case b"nonsense":
                return message  # type: ignore[return-value]
            case b"secret":
                return Shown(data=b"***", secret=message.data)
            case b"private":
                return Shown(data=message.data, public=False)
        return super().project(message)


class OldFashioned(EchoService):
    """Written for the first interface: it decides and writes in one."""

    migrations = ("CREATE TABLE echo_seen (data BLOB)",)

    def show(self, tx: ServiceTx, message: VerifiedMessage) -> Shown | None:
        tx.run("INSERT INTO echo_seen VALUES (?)", message.data)
        errors = {b"malformed": Malformed("no"), b"bug": ZeroDivisionError(), b"exit": SystemExit(3)}
        if error := {**errors, b"control-C": KeyboardInterrupt(), b"store": StoreFull("so it says")}.get(message.data):
            raise error
        return None if message.data == b"drop" else Shown(data=message.data)


class SlowToStart(EchoService):
    """Is ready after a while; a node's doors wait for it."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC114
        self.ran += 1
        await trio.sleep(5)
        if self.ran == 1:
            raise NodeUnavailable("not now")
        self.ran = 100
        task_status.started()


class Broken(EchoService):
    """Breaks in every way, but for a while only."""

    errors: ClassVar[list[BaseException]] = []

    async def run(self) -> None:
        self.ran += 1
        if self.ran <= len(self.errors):
            raise self.errors[self.ran - 1]
        await trio.sleep_forever()


class Weary(EchoService):
    """Runs for so long each time, and then breaks."""

    lasts_s: ClassVar[list[float]] = []

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self.pauses_s: list[float] = []
        """From each end to the next start."""
        self._ended = trio.current_time()

    async def run(self) -> None:
        self.pauses_s.append(trio.current_time() - self._ended)
        if len(self.pauses_s) > len(self.lasts_s):
            await trio.sleep_forever()
        await trio.sleep(self.lasts_s[len(self.pauses_s) - 1])
        self._ended = trio.current_time()
        raise NodeUnavailable("not now")


class Clumsy(EchoService):
    """Breaks at what it is shown: before, in the transaction, or the first times only."""

    async def handle(self, fact: Fact) -> Effect | None:
        effect = await super().handle(fact)
        if isinstance(fact, Outcome):
            return None
        times = sum(each == fact for each in self.facts)
        match getattr(fact, "data", b""):
            case b"bug":
                raise ZeroDivisionError
            case b"exit":
                sys.exit(3)
            case b"store":
                raise StoreError("no")
            case b"group":
                raise ExceptionGroup("both", [NodeUnavailable("not now"), ZeroDivisionError()])
            case b"effect":
                return self.break_in_the_middle
            case b"twice" if times <= 2:
                raise ZeroDivisionError
            case b"later" if times <= 8:
                raise ExceptionGroup("as a nursery does", [NodeUnavailable("not now")])
        return effect

    @staticmethod
    def break_in_the_middle(tx: ServiceTx) -> None:
        tx.emit(b"half done", identifier=uuid4())
        raise StoreError("a service should not, but may")


async def say(frm: Node, to: Node, *texts: str) -> None:
    for text in texts:
        await frm.service(EchoService).say((await to.wait_ready()).pubkey, text)


async def test_a_message_is_a_fact_and_an_effect_an_event(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", EchoService) as carol:
            await say(alice, carol, "one", "two")
            shown = await take(carol, 4, service="echo")
            assert sorted(event.data for event in shown) == [b"heard one", b"heard two", b"one", b"two"]
            own = [event for event in shown if event.data.startswith(b"heard")]
            assert {event.sender for event in own} == {(await carol.wait_ready()).pubkey}
            facts = carol.service(EchoService).facts
            assert [fact.data for fact in facts if isinstance(fact, VerifiedMessage)] == [b"one", b"two"]
            await take(alice, 2, service="status")
            await trio.sleep(1)
            outcomes = [fact for fact in alice.service(EchoService).facts if isinstance(fact, Outcome)]
            assert [outcome.delivered for outcome in outcomes] == [True, True]
            assert (alice.service(EchoService).ran, carol.service(EchoService).ran) == (1, 1)


async def test_facts_come_once_over_restarts(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    heard: list[bytes] = []
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        for number in range(3):
            async with where.node("carol", EchoService) as carol:
                await say(alice, carol, f"{number}")
                await take(carol, number + 1, service="echo", starting=b"heard")
                facts = carol.service(EchoService).facts
                heard += [fact.data for fact in facts if isinstance(fact, VerifiedMessage)]
        assert heard == [b"0", b"1", b"2"]
        async with where.node("carol", EchoService) as carol:
            await trio.sleep(10)
            assert carol.service(EchoService).facts == []
            assert len([each for each in await everything(carol) if each.data.startswith(b"heard")]) == 3


async def test_a_service_that_is_sent_nothing_does_not_keep_the_log(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        for number in range(2):
            async with where.node("carol", EchoService) as carol:
                read = (await carol.services._store.read(upkeep.summary)).readers
                assert set(read.values()) == {number}
                await alice.messages.send((await carol.wait_ready()).pubkey, b"not an echo")
                await take(carol, number + 1)


async def test_what_may_be_over_later_is_waited_for(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Patient) as carol:
            await say(alice, carol, "one")
            await take(carol, 1, service="echo", starting=b"heard one")
            await trio.sleep(10)
            assert len(carol.service(Patient).facts) == 3
            assert carol.service(Patient).ran == 3


async def test_a_service_that_breaks_by_itself_is_started_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = ExceptionGroup("as a nursery does", [NodeUnavailable("not now")])
    monkeypatch.setattr(Broken, "errors", [group, ZeroDivisionError("secret"), SystemExit(3), StoreError("no")])
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Broken) as carol:
            await trio.sleep(60)
            assert carol.service(Broken).ran == 5
            await say(alice, carol, "still here")
            await take(carol, 1, service="echo", starting=b"heard still here")
            told = await take(carol, 1, service="echo")
            assert [detail(event) for event in told] == [{"recordId": "BROKEN", "error": "ZeroDivisionError"}]
            assert await counter(carol, "broken_services") == 1


async def test_after_a_long_run_a_service_is_started_again_soon(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Weary, "lasts_s", [0, 0, 0, 0, 0, 59, 61, 0])
    async with stage(tmp_path, wall) as where, where.node("carol", Weary) as carol:
        await trio.sleep(600)
        first, *pauses_s = carol.service(Weary).pauses_s
    assert first == 0
    steps_s = [1, 2, 4, 8, 16, 32, 1, 2]
    assert len(pauses_s) == len(steps_s)
    for pause_s, step_s in zip(pauses_s, steps_s, strict=True):
        assert step_s / 2 <= pause_s <= step_s  # jitter


async def test_only_what_the_operator_must_mend_ends_the_node(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, wall) as where:
        for error in (ConfigError("echo: put a price"), StoreUnusable("the database cannot be used")):
            monkeypatch.setattr(Broken, "errors", [error])
            with pytest.raises(type(error)):
                async with where.node("carol", Broken):
                    await trio.sleep(10)


async def test_a_fact_at_which_a_service_breaks_is_set_aside(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ["bug", "exit", "store", "group", "effect"]
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Clumsy) as carol:
            await say(alice, carol, *broken, "twice", "later", "plain")
            shown = await take(carol, 8 + 5 + 3, service="echo")
            messages = {event.data: event for event in shown[:] if event.sender == (await alice.wait_ready()).pubkey}
            notices = [event for event in shown if event.sender == (await carol.wait_ready()).pubkey]
            aside = [event for event in notices if not event.data.startswith(b"heard")]
            assert [event.data for event in notices[5:]] == [b"heard twice", b"heard later", b"heard plain"]
            assert [event.reply_to for event in aside] == [messages[text.encode()].id for text in broken]
            assert detail(aside[0]) == {
                "recordId": "SET_ASIDE",
                "seq": messages[b"bug"].seq,
                "kind": "message",
                "error": "ZeroDivisionError",
            }
            names = ["ZeroDivisionError", "SystemExit", "StoreError", "ExceptionGroup", "StoreError"]
            assert [detail(event)["error"] for event in aside] == names
            facts = [fact.data for fact in carol.service(Clumsy).facts if isinstance(fact, VerifiedMessage)]
            assert [facts.count(text.encode()) for text in (*broken, "twice", "later", "plain")] == [4] * 5 + [3, 9, 1]
            assert await counter(carol, "set_aside_facts") == 5
        said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert sum("is set aside: message" in each for each in said) == 5
        async with where.node("carol", Clumsy) as carol:
            await trio.sleep(60)
            assert carol.service(Clumsy).facts == []  # also after a restart


async def test_while_the_disk_is_full_nothing_is_set_aside(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = iter([True, True, False])

    def tell(tx: ServiceTx, *arguments: Any) -> None:
        if next(full):
            raise StoreFull("the disk is full")
        tell_set_aside(tx, *arguments)

    monkeypatch.setattr(faults, "tell_set_aside", tell)
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Clumsy) as carol:
            await say(alice, carol, "bug", "plain")
            await take(carol, 1, service="echo", starting=b"heard plain")
            facts = [fact.data for fact in carol.service(Clumsy).facts if isinstance(fact, VerifiedMessage)]
            assert facts == [b"bug"] * 6 + [b"plain"]


def switched_off(where: Stage) -> None:
    off = ServiceConfig(service_type=ECHO, active=False)
    where.config = replace(where.config, services=(*Config().services, off))


async def test_switched_off_nothing_happens_and_messages_are_counted(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        switched_off(where)
        async with where.node("carol", EchoService) as carol:
            await say(alice, carol, "ignored")
            await alice.messages.send((await carol.wait_ready()).pubkey, b"shown", wait=True)
            # The ignored one leaves no gap to wait for.
            [event] = await take(carol, 1, seconds=2, service="message")
            assert event.data == b"shown"
            await trio.sleep(10)
            assert (carol.service(EchoService).facts, carol.service(EchoService).ran) == ([], 0)
            assert await counter(carol, "ignored_messages") == 1
        where.config = Config()
        async with where.node("carol", EchoService) as carol:
            await say(alice, carol, "again")
            await take(carol, 1, service="echo", starting=b"heard")
            assert [fact.data for fact in carol.service(EchoService).facts if isinstance(fact, VerifiedMessage)] == [
                b"again"
            ]


async def test_a_service_is_found_by_its_class(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("carol") as carol:
        assert carol.service(MessageService) is carol.messages
        with pytest.raises(NotFound, match="no service EchoService: pass it to open_node"):
            carol.service(EchoService)


async def test_a_service_decides_what_is_shown_of_a_message(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Discreet) as carol:
            bad = ["malformed", "bug", "exit", "control-C", "store", "text", "nonsense"]
            await say(alice, carol, "drop", *bad, "secret", "private", "plain")
            shown = [event for event in await take(carol, 5, service="echo") if not event.data.startswith(b"heard")]
            assert [(event.data, event.secret) for event in shown] == [(b"***", b"secret"), (b"plain", None)]
            assert "secret" not in repr(shown)
            facts = [fact for fact in carol.service(Discreet).facts if isinstance(fact, VerifiedMessage)]
            assert [fact.data for fact in facts] == [b"secret", b"private", b"plain"]
            assert await counter(carol, "dropped_messages") == 8
            assert await unshown_messages(carol) == 0
    dropped = [record for record in caplog.records if "is dropped" in record.message]
    assert [record.exc_info is not None for record in dropped] == [True] * 6


async def unshown_messages(node: Node) -> int:
    [(number,)] = await node.messages.context.read(lambda tx: tx.all("SELECT count(*) FROM unshown"))
    return int(number)


async def test_an_old_service_decides_and_writes_in_one(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", OldFashioned) as carol:
            await say(alice, carol, "drop", "malformed", "bug", "exit", "control-C", "store", "plain")
            assert [event.data for event in await take(carol, 2, service="echo")] == [b"plain", b"heard plain"]
            context = carol.service(OldFashioned).context
            seen = await context.read(lambda tx: [row[0].decode() for row in tx.all("SELECT data FROM echo_seen")])
            assert seen == ["drop", "plain"]  # what raised was undone
            assert await counter(carol, "dropped_messages") == 6
    assert "echo: it defines show(), which writes while everything else waits: define project() instead" in caplog.text


@pytest.mark.parametrize("later", [Discreet, EchoService], ids=["as it was", "without a projection"])
async def test_a_projection_that_takes_long_holds_up_its_own_service_only(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, later: type[EchoService]
) -> None:
    """Also the database and the other services wait for none, and what waits is there after a restart."""
    where_it_waits = trio.Event()

    async def slow(function: Callable[[], Any], /, *, limiter: trio.CapacityLimiter) -> Any:
        async with limiter:
            await where_it_waits.wait()
            return function()

    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        patch = pytest.MonkeyPatch()
        patch.setattr(host, "Projector", partial(slow_projector, slow))
        async with where.node("carol", Discreet) as carol:
            await say(alice, carol, "one", "two")
            await alice.messages.send(where.network.node("carol").pubkey, b"hello", wait=True)
            [event] = await take(carol, 1, service="message")
            assert event.data == b"hello"
            await trio.sleep(60)
            assert await unshown_messages(carol) == 2
            assert [each.data for each in await everything(carol) if each.service_type == "echo"] == []
        patch.undo()
        async with where.node("carol", later) as carol:
            shown = await take(carol, 4, service="echo")
            assert [each.data for each in shown if not each.data.startswith(b"heard")] == [b"one", b"two"]
            assert await unshown_messages(carol) == 0


def slow_projector(run_sync: Any, service: Service, store: Any, hub: Any, _run_sync: Any, delays: Any) -> Projector:
    return Projector(service, store, hub, run_sync, delays)


async def counter(node: Node, name: str) -> int:
    context = node.messages.context
    row = await context.read(lambda tx: tx.one("SELECT value FROM counter WHERE name = ?", name))
    return row[0] if row else 0


async def pay(where: Stage, number: int, records: dict[int, bytes]) -> None:
    await where.network.node("alice").send_keysend(
        where.network.node("carol").pubkey,
        Msat(5000),
        Preimage(bytes([number]) * 32),
        records,
        fee_limit=Msat(10_000),
        timeout_s=60,
    )


async def test_payments_are_facts_for_those_who_want_them(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        await pay(where, 1, {7629169: b"{}"})
        await trio.sleep(10)
        async with where.node("carol", EchoService) as carol:
            await trio.sleep(10)
            assert carol.service(EchoService).facts == []
        async with where.node("carol", Cashier) as carol:
            await trio.sleep(10)
            assert carol.service(Cashier).facts == []  # what the node got before its daemon first ran is not told
        await trio.sleep(10)
        await pay(where, 3, {7629169: b"{}", 34349334: b"hello"})
        await trio.sleep(10)
        async with where.node("carol", Cashier) as carol:
            await pay(where, 30, {7629169: b"{}", 34349334: b"hello"})
            await say(alice, carol, "between")
            await take(carol, 1, service="echo", starting=b"heard")
        await pay(where, 4, {})
        async with where.node("carol", Cashier) as later:
            await trio.sleep(10)
            facts = carol.service(Cashier).facts + later.service(Cashier).facts
            payments = [fact for fact in facts if isinstance(fact, SettledInvoice)]
            assert [each.payment_hash for each in payments] == [
                Preimage(bytes([number]) * 32).payment_hash for number in (3, 30, 4)
            ]
            assert (payments[0].records[34349334], payments[0].amount, payments[0].is_keysend) == (b"hello", 5000, True)
            assert [type(fact) for fact in facts] == [
                SettledInvoice,
                SettledInvoice,
                VerifiedMessage,
                SettledInvoice,
            ]
            assert {event.service_type for event in await everything(later)} == {"echo", "lightning"}


async def test_a_service_that_has_to_get_ready_is_waited_for(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        begun = trio.current_time()
        async with where.node("carol", SlowToStart) as carol:
            assert trio.current_time() - begun < 6  # what is away is not waited for
            assert carol.service(SlowToStart).ran == 1
            await trio.sleep(10)
            assert carol.service(SlowToStart).ran == 100
