import json
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.cli.processes import Running, running
from tests.daemons import Daemon, town

from impervious.cli.main import main
from impervious.sim import SimNetwork


def tail(daemon: Daemon, *options: str) -> AbstractAsyncContextManager[Running]:
    return running("tail", "--url", daemon.http, *options)


@pytest.mark.slow
async def test_what_happens_is_shown_across_a_crash_of_the_daemon(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    async with town(tmp_path, "alice", "bob", network=network) as there:
        alice, bob = await there.start("alice"), await there.start("bob")
        async with (
            tail(bob, "--since", "0") as shown,
            tail(bob, "--json", "--since", "0", "--from", alice.pubkey.hex) as objects,
        ):
            await alice.send(bob, "one \x1b[31m", wait=True)
            assert (await shown.line()).endswith(" 1 sat one \\x1b[31m")
            told = [json.loads(await objects.line())]  # so both have been connected
            await bob.send(alice, "an answer", wait=True)
            assert " delivered: 1 part, 1 sat, fee 0 sat" in await shown.line()
            await bob.stop(signal.SIGKILL)
            await alice.send(bob, "two", wait=True)
            bob.settings["server"]["http_addr"] = bob.http  # the same port again
            await there.start("bob")
            await alice.send(bob, "three", wait=True)
            assert [(await shown.line()).rpartition(" ")[2] for _ in range(2)] == ["two", "three"]
            told += [json.loads(await objects.line()) for _ in range(2)]
            assert [each["seq"] for each in told] == ["1", "3", "4"]
            assert [each["data"] for each in told] == ["b25lIBtbMzFt", "dHdv", "dGhyZWU="]
            capfd.readouterr()
            assert await shown.stop(signal.SIGINT) == 130
            assert await objects.leave() == 1
            assert capfd.readouterr().err == ""


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", "--since", "-1"]) == 2
    assert main(["tail", "--from", "02ab"]) == 2
    assert main(["tail", "--url", "ftp://x"]) == 2
    err = capsys.readouterr().err
    assert "--since is the seq of an event" in err
    assert "--from 02ab: pubkey has 4 characters" in err


def test_nobody_is_there(capsys: pytest.CaptureFixture[str], unused_port: int) -> None:
    assert main(["tail", "--url", f"127.0.0.1:{unused_port}"]) == 3
    assert capsys.readouterr().err == (
        f"impervious: no daemon answers at http://127.0.0.1:{unused_port}: start it with `impervious run`, "
        "or name it with --url\n"
    )
