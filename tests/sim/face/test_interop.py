"""grpcio, the library of nearly every LND program in Python, talks to a simulated LND from a process of its own."""

import json
import os
import sys
from pathlib import Path

import pytest
import trio
from tests.sim.face.asked import ask_simulated, differences, recorded
from tests.sim.face.serving import served

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.interop, pytest.mark.slow]


async def test_a_grpcio_client_finds_what_it_knows_from_lnd(tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "carol") as world:
        alice, carol = world.credentials["alice"], world.credentials["carol"]
        arguments = [
            *(str(world.ports["alice"]), str(alice.certificate), str(alice.macaroon)),
            world.lnd("carol").pubkey.hex,
            *(str(world.ports["carol"]), str(carol.certificate), str(carol.macaroon)),
        ]
        with trio.fail_after(60):
            finished = await trio.run_process(
                [sys.executable, "-m", "tests.sim.face.grpcio_client", *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"},
                capture_stdout=True,
                cwd=ROOT,
            )
    assert json.loads(finished.stdout) == {
        "alias": "alice",
        "network": "regtest",
        "keysend": "keysend",
        "first": [1, 1, 2],
        "seen": ["second"],
        "listed": [1, 2],
        "without": [2, "expected 1 macaroon, got 0"],
        "unknown": 12,
        "too big": 2,
    }


async def test_a_table_of_calls_comes_out_as_it_did_on_lnd(tmp_path: Path) -> None:
    asked = await ask_simulated(tmp_path)
    assert differences(recorded(), asked.got) == []
