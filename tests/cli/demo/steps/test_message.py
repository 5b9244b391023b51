from pathlib import Path

import pytest
import trio

from impervious.cli.demo.facts import Arrived, Concluded, Fact, Progressed, Sent
from impervious.cli.demo.stage import DemoFailed, open_stage
from impervious.cli.demo.steps import message

pytestmark = pytest.mark.slow


async def test_what_is_sent_is_seen_to_arrive_and_what_cannot_be_is_told(tmp_path: Path) -> None:
    heard: list[Fact] = []
    with trio.fail_after(60):
        async with open_stage(tmp_path, heard.append, port_base=0, seconds=trio.current_time) as stage:
            with pytest.raises(DemoFailed, match="carol has seen no message"):
                await message.reply(stage)
            await message.short(stage)
            await message.reply(stage)
            first, second = (fact for fact in heard if isinstance(fact, Arrived))
            assert (first.at, first.text) == ("carol", message.QUESTION)
            assert (second.at, second.text, second.reply_to) == ("alice", message.ANSWER, first.id)
            heard.clear()
            await message.large(stage)
            moved = [fact.settled for fact in heard if isinstance(fact, Progressed)]
            assert moved[0] == 0
            assert len(moved) > 2
            assert moved == sorted(set(moved))
            (sent,) = (fact for fact in heard if isinstance(fact, Sent))
            assert sent.size == message.LARGE_BYTES
            (concluded,) = (fact for fact in heard if isinstance(fact, Concluded))
            assert concluded.parts > 100
            stage.network.lnd("carol").set_accepts_keysend(False)
            with pytest.raises(DemoFailed, match=r"alice could not deliver it: .*keysend"):
                await message.short(stage)
