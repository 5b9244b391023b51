import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from impervious.cli import main as module
from impervious.cli.main import main
from impervious.cli.registry import VERBS, Verb
from impervious.errors import NodeUnavailable


class Spy:
    """A verb that remembers what it was called with."""

    def __init__(self) -> None:
        self.args = Namespace()
        self.outcome: int | BaseException = 0

    def add_parser(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")
        parser.add_argument("words", nargs="*")

    def run(self, args: Namespace) -> int:
        self.args = args
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Stand in for every verb: `run` is not the business of these tests."""
    spy = Spy()
    monkeypatch.setattr(Verb, "load", lambda verb: spy)
    monkeypatch.setattr(module, "find", lambda name: Verb(name=name, group="x", meaning="do LND things"))
    return spy


@pytest.mark.parametrize(
    "argv",
    [
        ["--config", "a.yml", "send", "--json", "x", "y"],
        ["--config=a.yml", "send", "--json", "x", "y"],
        ["-config", "a.yml", "send", "x", "y", "--json"],
        ["-config=a.yml", "send", "x", "y", "--json"],
        ["send", "--config", "a.yml", "--json", "x", "y"],
        ["send", "-config=a.yml", "x", "y", "--json"],
        ["--config", "b.yml", "send", "--config", "a.yml", "x", "y", "--json"],
    ],
)
def test_the_configuration_is_named_before_or_after_the_verb(spy: Spy, argv: list[str]) -> None:
    assert main(argv) == 0
    assert (spy.args.verb, spy.args.config, spy.args.json) == ("send", "a.yml", True)
    assert spy.args.words == ["x", "y"]


def test_without_a_verb_it_runs_the_daemon(spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["impervious", "--config", "a.yml"])
    monkeypatch.setattr(module, "find", {"run": Verb(name="run", group="x", meaning="x")}.__getitem__)
    assert main() == 0
    assert spy.args.config == "a.yml"


def test_a_verb_gives_the_exit_code(spy: Spy, capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["x"]), spy.args.config) == (0, None)
    spy.outcome = 3
    assert main(["x"]) == 3
    spy.outcome = NodeUnavailable("LND is away")
    assert main(["x"]) == 3
    assert capsys.readouterr().err == "impervious: LND is away\n"
    spy.outcome = KeyboardInterrupt()
    assert main(["x"]) == 130


def test_a_verb_explains_itself(spy: Spy, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["send", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: impervious send")
    assert "Do LND things." in out


@pytest.mark.parametrize("line", ["--bogus", "--conf x", "config", "config shw", "config show --js", "config show x"])
def test_wrong_arguments_are_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    assert "usage: impervious" in capsys.readouterr().err


def test_a_verb_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confg"]) == 2
    assert capsys.readouterr().err == "impervious: there is no verb 'confg'; did you mean config?\n"
    assert main(["zzz"]) == 2
    assert "`impervious --help` lists them" in capsys.readouterr().err


def test_help_names_every_verb_and_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb.name} " in out
        assert verb.meaning in out
        assert all(example in out for example in verb.examples)
    for word in ("config/local.config.yml", "--config PATH", "IMPERVIOUS_", "Exit codes: 0 ok", "Set up:", "Examples:"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("impervious 0.")


HEAVY = ("quart", "hypercorn", "trio", "yaml", "betterproto2", "rich", "grpclib", "impervious.config")


@pytest.mark.slow
def test_help_imports_none_of_the_heavy_things() -> None:
    code = f"""
import sys
from impervious.__main__ import main
try:
    main(["--help"])
except SystemExit:
    pass
sys.exit(", ".join(name for name in {HEAVY!r} if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: impervious" in done.stdout


@pytest.mark.slow
def test_the_module_and_the_installed_command_are_the_same() -> None:
    for command in ([sys.executable, "-m", "impervious"], [str(Path(sys.executable).with_name("impervious"))]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("impervious 0.")


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.touch()
    command = f"{sys.executable} -m impervious --config {config} config show"
    script = f'{command} | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1")  # 0 when `true` was slow to go
