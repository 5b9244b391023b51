import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.server.house import READY, config

from impervious import supervisor
from impervious.model import NodeState, NodeStatus
from impervious.server.readiness import readiness
from impervious.sim import SimNetwork
from impervious.supervisor import open_node


@dataclass
class Judged:
    status: NodeStatus = READY
    disk_problem: str | None = None


def test_ready() -> None:
    found = readiness(Judged())
    assert (found.ready, json.loads(found.body)) == (True, {"ready": True, "state": "ready", "reason": ""})


@pytest.mark.parametrize("state", [state for state in NodeState if state is not NodeState.READY])
def test_the_lightning_node_comes_first(state: NodeState) -> None:
    found = readiness(Judged(NodeStatus(state=state, reason="do this"), "the disk is full"))
    assert (found.ready, found.state, found.reason) == (False, state.value, "do this")


def test_then_the_disk() -> None:
    found = readiness(Judged(disk_problem="the disk is full: make room"))
    assert (found.ready, found.state, found.reason) == (False, "disk_full", "the disk is full: make room")


async def test_a_node_looks_at_the_disk_of_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        SimNetwork.line("alice", "bob", seed=1).open() as network,
        open_node(config(tmp_path), lightning=network.node("alice")) as node,
    ):
        before = node.disk_problem
        monkeypatch.setattr(supervisor, "LOW_DISK_BYTES", 1 << 60)
        after = node.disk_problem
    assert before is None
    assert after
    assert f"are left for the database in {tmp_path}; make room" in after
