import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.cli.processes import free_base, running
from tests.daemons import PATIENCE_S, Daemon, Town, next_event, town
from tests.relay.endpoint import needs_ipv6
from tests.rpc.certificates import make_certificate

from impervious.cli.main import main
from impervious.errors import PaymentFailure
from impervious.sim import SimLnd, SimNetwork

KEY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""The curve's generator: a valid key."""


async def send(daemon: Daemon, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "impervious", "send", "--url", daemon.http, *arguments]
    with trio.fail_after(PATIENCE_S):
        return await trio.run_process(command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False)


@pytest.mark.slow
async def test_texts_and_files_cross_and_failures_are_told(tmp_path: Path) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    async with town(tmp_path, "alice", "bob", network=network) as there:
        alice, bob = await there.start("alice"), await there.start("bob")
        to = bob.pubkey.hex
        photo = tmp_path / "photo"
        photo.write_bytes(os.urandom(100_000))
        async with bob.events() as arriving:
            text = await send(alice, to, "hello", "--amount", "5")
            event = await next_event(arriving)
            assert text.stdout.decode() == f"{event['id']}\n"
            assert (text.returncode, event["data"], event["amount"]) == (0, "aGVsbG8=", "5")

            file = await send(alice, to, f"@{photo}", "--wait", "--reply-to", event["id"])
            arrived = await next_event(arriving)
            assert file.stdout.decode() == f"{arrived['id']}\ndelivered\n"
            assert arrived["replyToId"] == event["id"]

            twice = [await send(alice, to, "-", "--json", "--idempotency-key", "k", stdin=b"piped") for _ in range(2)]
            piped = await next_event(arriving)
            told = {"idempotencyKey": "k", "id": piped["id"], "state": "accepted"}
            assert [json.loads(each.stdout) for each in twice] == [told, told]
        await _failures(there, alice, to)


@pytest.mark.slow
@needs_ipv6
async def test_a_door_with_tls_on_ipv6_is_found_by_the_configuration(tmp_path: Path) -> None:
    """Its certificate is for another name, and the environment names a proxy: neither is in the way."""
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    async with town(tmp_path, "alice", "bob", network=network) as there:
        alice, files = there.daemons["alice"], make_certificate(tmp_path, names=("node.example",))
        door = {"http_addr": f"[::1]:{free_base(2)}", "tls_cert": str(files.certificate), "tls_key": str(files.key)}
        alice.settings["server"] |= door
        await there.start("alice")
        environ = {**os.environ, "https_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9"}
        async with running("tail", "--config", str(alice.config), "--since", "0", environ=environ) as shown:
            arguments = ("send", "--config", str(alice.config), there.daemons["bob"].pubkey.hex, "hello", "--wait")
            async with running(*arguments, environ=environ) as sending:
                assert (await sending.rest()).endswith("\ndelivered\n")
            assert " delivered: 1 part" in await shown.line()
        untrusted = await send(alice, alice.pubkey.hex, "hello", "--url", f"https://{door['http_addr']}")
        assert (untrusted.returncode, b"not trusted" in untrusted.stderr) == (3, True)


async def _failures(there: Town, alice: Daemon, to: str) -> None:
    lnd = there.network.lnd("alice")
    other = await send(alice, to, "something else", "--idempotency-key", "k")
    assert (other.returncode, other.stdout) == (2, b"")
    reasons = PaymentFailure.INCORRECT_PAYMENT_DETAILS
    lnd.fail_next_payment(reasons)
    failed = await send(alice, to, "x", "--wait")
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"impervious: not delivered: the recipient's node refused the payment")
    lnd.fail_next_payment(reasons)
    told = json.loads((await send(alice, to, "x", "--wait", "--json")).stdout)
    assert (told["state"], told["retryable"]) == ("failed", True)
    lnd.lock()
    with trio.fail_after(30):
        while not any("locked" in warning for warning in alice.warnings):  # noqa: ASYNC110 - another process warns
            await trio.sleep(0.01)
    locked = await send(alice, to, "x", "--json")
    assert locked.returncode == 3
    assert "LND's wallet is locked" in json.loads(locked.stdout)["error"]


@pytest.mark.slow
async def test_a_peer_is_named(tmp_path: Path) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    async with town(tmp_path, "alice", "bob", network=network) as there:
        for name, daemon in there.daemons.items():
            daemon.settings["federate"] = {"imp_id": name}
        alice, bob = await there.start("alice"), await there.start("bob")
        asked = await alice.post("/v1/federate/request", {"pubkey": bob.pubkey.hex})
        async with alice.events() as stream:
            while (await next_event(stream))["replyToId"] != asked["id"]:
                pass
        sent = await send(alice, "@bob", "by name", "--wait")
        assert sent.stdout.endswith(b"delivered\n"), sent
        async with running("tail", "--url", bob.http, "--since", "0", "--type", "message", "--from", "@alice") as tail:
            assert (await tail.line()).endswith(" by name")
        nobody = await send(alice, "@nobody", "by name")
        assert (nobody.returncode, nobody.stdout) == (2, b"")
        assert b"nobody" in nobody.stderr


@pytest.mark.slow
async def test_a_daemon_killed_meanwhile_is_asked_again_and_pays_once(tmp_path: Path) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(1.0, 1.0))
    async with town(tmp_path, "alice", "bob", network=network) as there, trio.open_nursery() as nursery:
        alice, bob = await there.start("alice"), await there.start("bob")
        ended = trio.Event()
        results: list[subprocess.CompletedProcess[bytes]] = []

        async def wait() -> None:
            results.append(await send(alice, bob.pubkey.hex, "once", "--wait"))
            ended.set()

        nursery.start_soon(wait)
        await _payment_begun(there.network.lnd("alice"))
        await alice.stop(signal.SIGKILL)
        alice.settings["server"]["http_addr"] = alice.http
        await there.start("alice")
        with trio.fail_after(PATIENCE_S):
            await ended.wait()
        assert results[0].stdout.endswith(b"delivered\n"), results[0]
        assert len(await there.network.lnd("alice").rpcs.list_payments(limit=10)) == 1


async def _payment_begun(lnd: SimLnd) -> None:
    with trio.fail_after(PATIENCE_S):
        while True:
            if await lnd.rpcs.list_payments(limit=1, include_incomplete=True):
                return
            await trio.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["02ab", "x"], "PUBKEY: pubkey has 4 characters"),
        ([KEY, ""], "there is nothing to send"),
        ([KEY, "@nope"], "nope: cannot be read: No such file or directory"),
        ([KEY, "@large"], "more than 8,388,608 bytes"),
        ([KEY, "\udcff"], "not valid in this locale"),
    ],
)
def test_what_cannot_be_sent(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate((8 << 20) + 1)
    assert main(["send", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_nobody_is_there(capsys: pytest.CaptureFixture[str], unused_port: int) -> None:
    run = partial(main, ["send", KEY, "hi", "--url", f"127.0.0.1:{unused_port}"])
    assert run() == 3
    assert capsys.readouterr().err.startswith(f"impervious: no daemon answers at http://127.0.0.1:{unused_port}: start")
