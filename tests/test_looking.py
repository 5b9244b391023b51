"""An operator looks at the database of a running daemon, in every usual way, and the machine dies after that."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from tests.daemons import Daemon, town

from impervious.sim import SimNetwork

pytestmark = pytest.mark.slow

MESSAGES = 5

WITH_PYTHON = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
print(database.execute("SELECT count(*) FROM event").fetchall())
database.close()
"""
BACKUP = """
import sqlite3, sys
source, copy = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[1] + ".backup")
source.backup(copy)
source.close()
copy.close()
"""


def python(daemon: Daemon, program: str) -> None:
    subprocess.run([sys.executable, "-c", program, str(daemon.folder / "imp.db")], check=True, timeout=60)


def shell(daemon: Daemon, *commands: str) -> None:
    if (program := shutil.which("sqlite3")) is None:
        pytest.skip("there is no sqlite3 shell")
    subprocess.run([program, str(daemon.folder / "imp.db"), *commands], check=True, timeout=60)


def show(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "impervious", "db", "show", "--config", str(daemon.config)]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)


def prune(daemon: Daemon) -> None:
    command = [
        sys.executable,
        "-m",
        "impervious",
        "db",
        "prune",
        "--mb",
        "100",
        "--yes",
        "--config",
        str(daemon.config),
    ]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "look",
    [
        lambda daemon: python(daemon, WITH_PYTHON),
        lambda daemon: python(daemon, BACKUP),
        lambda daemon: shell(daemon, ".tables"),
        lambda daemon: shell(daemon, f".backup {daemon.folder / 'backup.db'}"),
        lambda daemon: shell(daemon, "PRAGMA wal_checkpoint(TRUNCATE)"),
        lambda daemon: shell(daemon, "UPDATE counter SET value = value + 1", "VACUUM"),
        show,
        prune,
    ],
    ids=["python", "python backup", "shell", "shell backup", "shell checkpoint", "shell writes", "db show", "db prune"],
)
async def test_nothing_is_lost_and_nothing_paid_twice(tmp_path: Path, look) -> None:  # type: ignore[no-untyped-def]
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0.001, 0.002))
    async with town(tmp_path, "alice", "bob", network=network) as there:
        alice, bob = await there.start("alice"), await there.start("bob")
        await alice.send(bob, "before", wait=True)
        await trio.to_thread.run_sync(look, alice)
        keys = [{"Idempotency-Key": f"key {number}"} for number in range(MESSAGES)]
        body = {"pubkey": bob.pubkey.hex, "text": "x", "wait": True}
        first = [await alice.post("/v1/message/send", body, key) for key in keys]
        assert not alice.warnings
        await alice.stop(signal.SIGKILL)

        await there.start("alice")
        again = [await alice.post("/v1/message/send", body, key) for key in keys]
        assert [answer["id"] for answer in again] == [answer["id"] for answer in first]
        assert len(await there.network.lnd("alice").rpcs.list_payments(limit=100)) == 1 + MESSAGES


async def test_the_daemon_refuses_while_its_file_is_elsewhere(tmp_path: Path) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0.001, 0.002))
    async with town(tmp_path, "alice", "bob", network=network) as there:
        alice, bob = await there.start("alice"), await there.start("bob")
        await alice.send(bob, "before", wait=True)
        path = alice.folder / "imp.db"
        path.rename(tmp_path / "elsewhere")
        refused = await alice.send(bob, "refused", wait=True)
        assert "deleted or moved while the daemon ran" in refused["message"]
        with trio.fail_after(20):
            while (await alice.get("/readyz"))["ready"]:  # noqa: ASYNC110 - another process notices
                await trio.sleep(0.1)
        assert (await alice.get("/readyz"))["state"] == "database"
        os.rename(tmp_path / "elsewhere", path)  # noqa: ASYNC240
        assert "id" in await alice.send(bob, "after", wait=True)
        with trio.fail_after(20):
            while not (await alice.get("/readyz"))["ready"]:  # noqa: ASYNC110
                await trio.sleep(0.1)
