import socket
from pathlib import Path

import pytest
import trio
from tests.cli.processes import free_base

from impervious.cli.demo.facts import Arrived, Concluded, Fact, Opened
from impervious.cli.demo.stage import open_stage
from impervious.cli.exits import UsageError
from impervious.errors import ConfigError
from impervious.lnd import LndNode


async def test_ports_that_are_taken_or_do_not_exist(tmp_path: Path) -> None:
    base = free_base(20)
    with socket.create_server(("127.0.0.1", base + 12)):
        with pytest.raises(ConfigError, match=f"port {base + 12} cannot be listened on .* --port-base, or 0 for any"):
            async with open_stage(tmp_path, print, port_base=base, seconds=trio.current_time):
                pass
    with pytest.raises(UsageError, match="2 nodes need 20 ports"):
        async with open_stage(tmp_path, print, port_base=65_520, seconds=trio.current_time):
            pass


@pytest.mark.slow
async def test_what_is_opened_is_what_is_told(tmp_path: Path) -> None:
    base, heard = free_base(20), list[Fact]()
    with trio.fail_after(60):
        async with open_stage(tmp_path, heard.append, port_base=base, seconds=lambda: 1.5) as stage:
            (opened,) = heard
            assert isinstance(opened, Opened)
            assert (opened.between, opened.seconds) == (("bob",), 1.5)
            assert [place.name for place in opened.places] == ["alice", "carol"]
            assert [(place.grpc, place.http, place.text) for place in opened.places] == [
                tuple(f"127.0.0.1:{port + offset}" for offset in range(3)) for port in (base, base + 10)
            ]
            # Over the wire, not in memory.
            assert isinstance(stage.alice.node.lightning, LndNode)
            assert not [channel for channel in stage.network.channels if set(channel.nodes) == {"alice", "carol"}]

            # What others do is shown too.
            await stage.carol.post("/v1/message/send", {"pubkey": stage.alice.pubkey, "text": "hi", "wait": True})
            await stage.alice.inbox.wait_for(lambda arrival: arrival.data == b"hi")
            await stage.carol.inbox.wait_for(lambda arrival: arrival.service == "status")
    arrived = [fact for fact in heard if isinstance(fact, Arrived)]
    assert [(fact.at, fact.sender, fact.text) for fact in arrived] == [("alice", "carol", "hi")]
    concluded = [fact for fact in heard if isinstance(fact, Concluded)]
    assert [(fact.at, fact.state, fact.parts) for fact in concluded] == [("carol", "delivered", 1)]
    assert concluded[0].id == arrived[0].id
