"""`impervious db adopt`, beside a daemon as a process and without it."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
from tests.daemons import Daemon, town

from impervious.sim import SimNetwork

pytestmark = pytest.mark.slow


async def adopt(daemon: Daemon, *options: str) -> tuple[int, str, str]:
    """Run the command; give its exit code, and what it says on either stream."""
    command = [sys.executable, "-m", "impervious", "db", "adopt", *options, "--config", str(daemon.config)]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_backup_that_was_made_beside_the_daemon_is_restored_and_adopted(tmp_path: Path) -> None:
    network = SimNetwork(["alice", "carol"], ["alice-carol:2000000"], seed=3, latency_s=(0, 0))
    async with town(tmp_path, "alice", "carol", network=network) as there:
        alice, carol = await there.start("alice"), await there.start("carol")
        code, _, words = await adopt(alice)
        assert (code, "in use by another daemon: stop it" in words) == (2, True)
        path = Path(alice.settings["sqlite3"]["path"])
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(tmp_path / "backup")) as copy:
            live.backup(copy)
        for number in range(3):
            await alice.send(carol, f"letter {number}", wait=True)
        await alice.stop(signal.SIGKILL)
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
        shutil.copyfile(tmp_path / "backup", path)
        await there.start("alice")
        assert (await alice.get("/readyz"))["state"] == "paying_nothing"
        assert (await alice.send(carol, "letter 0"))["code"] == 9
        await alice.stop(signal.SIGTERM)
        for options, first in ((("--dry-run",), "nothing was changed"), ((), "done; the daemon can be started")):
            code, text, _ = await adopt(alice, *options)
            assert (code, first in text) == (0, True)
            assert "3 messages that were not known, sent with 3 payments" in text
        code, text, _ = await adopt(alice, "--json")
        assert (code, json.loads(text)["messages"]) == (0, 0)
        await there.start("alice")
        await alice.send(carol, "after", wait=True)
        assert len(await network.lnd("alice").rpcs.list_payments(limit=100)) == 4


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text(f"sqlite3: {{path: {tmp_path / 'imp.db'}}}\n")
    command = [sys.executable, "-m", "impervious", "db", "adopt", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not (tmp_path / "imp.db").exists()
