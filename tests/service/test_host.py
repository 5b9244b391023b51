"""A third party's service on two nodes of the simulated network: facts, effects, restarts, switched off."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.service.toys import EchoService
from tests.walks import Stage, everything, stage, take
from trio.testing import MockClock

from impervious.config import Config, ServiceConfig
from impervious.errors import NodeUnavailable, NotFound, StoreFull
from impervious.model import ServiceType
from impervious.service import Effect, Fact, Outcome, VerifiedMessage
from impervious.services.message import MessageService
from impervious.supervisor import Node

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


class Broken(EchoService):
    async def run(self) -> None:
        raise ZeroDivisionError


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


async def test_what_may_be_over_later_is_waited_for(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Patient) as carol:
            await say(alice, carol, "one")
            await take(carol, 1, service="echo", starting=b"heard one")
            await trio.sleep(10)
            assert len(carol.service(Patient).facts) == 3
            assert carol.service(Patient).ran == 3


async def test_a_bug_ends_the_node(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with where.node("carol", Broken):
                await trio.sleep(10)


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
            [event] = await take(carol, 1, seconds=2)  # the ignored one leaves no gap to wait for
            assert event.data == b"shown"
            await trio.sleep(10)
            assert (carol.service(EchoService).facts, carol.service(EchoService).ran) == ([], 0)
            context = carol.service(EchoService).context
            count = "SELECT value FROM counter WHERE name = 'ignored_messages'"
            assert await context.transaction(lambda tx: tx.one(count)) == (1,)
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
