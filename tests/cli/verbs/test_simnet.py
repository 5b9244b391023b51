import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.cli.processes import PATIENCE_S, Running, free_base, running

from impervious.cli.main import main
from impervious.config_file import read_config
from impervious.lnd import LndNode, open_lnd
from impervious.model import NodePubkey, Payment, PaymentStatus, Preimage
from impervious.units import Msat


async def ready(simnet: Running) -> dict[str, Any]:
    return dict(json.loads(await simnet.line()))


async def pay(node: LndNode, dest: str, number: int) -> Payment:
    await node.wait_ready()
    return await node.send_keysend(
        NodePubkey.parse(dest), Msat(7_000), Preimage(bytes([number]) * 32), {}, fee_limit=Msat(5000), timeout_s=60
    )


@pytest.mark.slow
async def test_it_is_killed_and_stopped_and_goes_on_where_it_was(tmp_path: Path) -> None:
    base = free_base(30)
    arguments = ("simnet", "--dir", str(tmp_path / "net"), "--json")
    with trio.fail_after(PATIENCE_S):
        async with running(*arguments, "--port-base", str(base)) as simnet:
            first = await ready(simnet)
            assert first["nodes"]["carol"]["daemon"] == {
                "grpc": f"127.0.0.1:{base + 20}",
                "http": f"127.0.0.1:{base + 21}",
                "text": f"127.0.0.1:{base + 22}",
            }
            config = read_config(first["nodes"]["alice"]["config"], environ={}).config
            carol = first["nodes"]["carol"]["pubkey"]
            async with open_lnd(config.lightning.lnd) as alice:
                assert (await pay(alice, carol, 1)).status is PaymentStatus.SUCCEEDED
                # Whatever a client has been told, a kill at this very moment must not undo.
                assert await simnet.stop(signal.SIGKILL) == -signal.SIGKILL
                async with running(*arguments) as again:
                    second = await ready(again)
                    assert second["nodes"] == first["nodes"]
                    assert [channel["balances_sat"] for channel in second["channels"]] == [
                        [499_992, 500_008],
                        [499_993, 500_007],
                    ]
                    await alice.wait_ready()
                    payment = await alice.track(Preimage(bytes([1]) * 32).payment_hash)
                    assert payment.status is PaymentStatus.SUCCEEDED
                    assert await again.stop(signal.SIGTERM) == 0


@pytest.mark.slow
async def test_it_says_ready_and_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "a net"
    chosen = ("--nodes", "x,y", "--channels", "x-y:50000:20000", "--port-base", str(free_base(20)))
    async with running("simnet", "--dir", str(folder), *chosen) as simnet:
        assert await simnet.line() == "ready"
        said = ""
        while "run --config" not in said:
            said = await simnet.line()
        assert said == f"  impervious run --config '{folder}/x/config.yml'"
        assert await simnet.stop(signal.SIGINT) == 0
        assert f"'{folder}/y/config.yml'" in await simnet.rest()


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that it ends with."""
    assert main(["simnet", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("impervious: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nodes", "Alice"), "'Alice' is no node name"),
        (("--nodes", "a,b,a"), "two nodes have the same name"),
        (("--nodes", "a,b", "--channels", "a-c"), "a channel needs the node c, which is not among a, b"),
        (("--channels", "alice-bob:1x"), "'alice-bob:1x' is no channel: write alice-bob:1000000"),
        (("--channels", "alice-bob:1000"), "at least 20000 sat"),
        (("--port-base", "65507"), "3 nodes need 30 ports, and from 65507 up there are 29: use --port-base 65506"),
        (("--nodes", ",".join(f"n{i}" for i in range(6600))), "have fewer nodes"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in complaint(capsys, "--dir", str(tmp_path), *arguments)


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = free_base(30)
    with socket.create_server(("127.0.0.1", base + 19)):
        said = complaint(capsys, "--dir", str(tmp_path), "--port-base", str(base))
    assert f"the LND of bob cannot listen on 127.0.0.1:{base + 19} (Address already in use): stop" in said


def test_folders_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert "file/net cannot be used: Not a directory" in complaint(capsys, "--dir", str(tmp_path / "file/net"))
    (tmp_path / "network.db").write_text("something else altogether, that is no database")
    assert "Move it away to begin anew" in complaint(capsys, "--dir", str(tmp_path))


@pytest.mark.parametrize("arguments", [(), ("--dir", "x", "--port-base", "0"), ("--dir", "x", "--port-base", "high")])
def test_arguments_that_are_none(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["simnet", *arguments])
    assert "impervious simnet: error: " in capsys.readouterr().err
