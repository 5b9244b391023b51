"""What is found on a machine is for tests/wireguard/check; this is how it is said."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from impervious.cli.main import main
from impervious.cli.verbs import vpn
from impervious.config import VpnConfig
from impervious.wireguard.check import Finding, State

Machine = Callable[..., None]

UP = Finding(name="interface", state=State.OK, says="wg0 is up")
DOWN = Finding(name="interface", state=State.BAD, says="wg0 is down", fix="sudo ip link set wg0 up")
KEY = Finding(name="key", state=State.BAD, says="not set", fix='vpn: {server_pub_key: "x"}')
UNSEEN = Finding(name="arrival", state=State.UNKNOWN, says="nft: denied")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (tmp_path / "c.yml").write_text("vpn: {interface: wg7}\n")
    return tmp_path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Say what is found on this machine."""

    def found(*findings: Finding) -> None:
        async def check(config: VpnConfig) -> list[Finding]:
            await trio.lowlevel.checkpoint()
            assert config.interface == "wg7"
            return list(findings)

        monkeypatch.setattr(vpn, "check", check)

    return found


def test_a_machine_that_can_sell(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(UP)
    assert main(["--config", "c.yml", "vpn", "check"]) == 0
    assert capsys.readouterr().out == "ok       interface: wg0 is up\n\nThis machine can sell.\n"


def test_what_is_wrong_comes_with_its_cure(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(DOWN, KEY, UNSEEN)
    assert main(["--config", "c.yml", "vpn", "check"]) == 2
    verdict = "This machine cannot sell yet: 2 wrong, to be put right from the top; then check again"
    assert capsys.readouterr().out.splitlines() == [
        "bad      interface: wg0 is down",
        "         run: sudo ip link set wg0 up",
        "bad      key: not set",
        '         in c.yml: vpn: {server_pub_key: "x"}',
        "unknown  arrival: nft: denied",
        "",
        f"{verdict} (1 could not be judged; root sees more).",
    ]


def test_what_nobody_can_judge_is_no_reason_to_fail(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(UP, UNSEEN)
    assert main(["--config", "c.yml", "vpn", "check"]) == 0
    assert capsys.readouterr().out.endswith("This machine can sell (1 could not be judged; root sees more).\n")


def test_json(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(DOWN)
    assert main(["--config", "c.yml", "vpn", "check", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "file": "c.yml",
        "findings": [
            {"name": "interface", "state": "bad", "says": "wg0 is down", "fix": "sudo ip link set wg0 up"},
        ],
    }


def test_a_service_that_is_switched_off(folder: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(UP)
    (folder / "c.yml").write_text("vpn: {interface: wg7}\nservice_list: [{service_type: vpn, active: false}]\n")
    assert main(["--config", "c.yml", "vpn", "check"]) == 2
    assert capsys.readouterr().out.startswith("bad      service: the vpn service is switched off in service_list")


def test_this_very_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yml").write_text("vpn: {binary_path: /nowhere/wg}\n")
    assert main(["--config", "c.yml", "vpn", "check", "--json"]) == 2
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert rows["program"]["state"] == "bad"
    assert rows["program"]["fix"] == "sudo apt install wireguard-tools"


def test_an_action_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "c.yml", "vpn"])
    assert "ACTION" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["buy", "02ab"], "--max-price"),
        (["buy", "02ab", "--max-price", "5", "--auto-renew"], "--auto-renew and --budget SAT belong together"),
        (["buy", "02ab", "--max-price", "5", "--budget", "5"], "--auto-renew and --budget SAT belong together"),
    ],
)
def test_what_cannot_be_bought(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["vpn", *arguments, "--url", "http://127.0.0.1:9"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("action", [["list"], ["config", "n"], ["cancel", "n"], ["down", "n"], ["renew", "n"]])
def test_without_a_daemon(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vpn", *action, "--url", "http://127.0.0.1:9"]) == 3
    assert "no daemon answers at http://127.0.0.1:9" in capsys.readouterr().err
