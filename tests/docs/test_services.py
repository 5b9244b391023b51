"""docs/services.md: its Python is part of the example or runs, its package is installed, its commands are typed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import examples.key_value
import pytest
import trio
import yaml
from tests.conftest import Wall
from tests.daemons import PATIENCE_S, town
from tests.walks import stage
from trio.testing import MockClock

from impervious.sim import SimNetwork

PAGE: Final = Path("docs/services.md")
SOURCE: Final = Path("examples/key_value.py")
BLOCK: Final = re.compile(r"(?:<!-- (?P<note>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```\n", re.DOTALL)


@dataclass(frozen=True)
class Block:
    note: str
    language: str
    text: str


def blocks(language: str, note: str = "") -> list[Block]:
    found = [Block(each["note"] or "", each["language"], each["text"]) for each in BLOCK.finditer(PAGE.read_text())]
    return [each for each in found if each.language == language and each.note == note]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example under the name that the page gives its module."""
    monkeypatch.setitem(sys.modules, "impervious_kv", examples.key_value)
    return examples.key_value


def site(folder: Path) -> Path:
    """What `pip install .` leaves of the page's package: the module, and metadata with its entry points."""
    [block] = blocks("toml")
    project = tomllib.loads(block.text)["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text("\n".join(_entry_points(project["entry-points"])))
    shutil.copy(SOURCE, folder / "impervious_kv.py")
    return folder


def _entry_points(groups: dict[str, dict[str, str]]) -> Iterator[str]:
    for group, names in groups.items():
        yield f"[{group}]"
        yield from (f"{name} = {value}" for name, value in names.items())


def test_there_is_no_block_that_is_not_tested() -> None:
    known = [
        *blocks("python"),
        *blocks("python", "a program"),
        *blocks("python", "a test"),
        *blocks("python", "something that runs"),
        *blocks("toml"),
        *blocks("yaml"),
        *blocks("sh"),
        *blocks("json"),
    ]
    assert len(known) == PAGE.read_text().count("```") // 2
    assert len(blocks("sh")) == len(blocks("json"))


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.text.split("(")[0].split()[-1])
def test_what_is_explained_is_part_of_the_example(block: Block) -> None:
    assert block.text in SOURCE.read_text()


async def test_the_test_passes(tmp_path: Path, module: ModuleType) -> None:
    [block] = blocks("python", "a test")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(PAGE), "exec"), names)
    test: Callable[[Path], Any] = names["test_a_value_is_kept"]
    with trio.fail_after(PATIENCE_S):
        await test(tmp_path)


async def test_what_runs_is_used_by_a_command(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = blocks("python", "something that runs")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(PAGE), "exec"), names)
    monkeypatch.chdir(tmp_path)
    async with stage(tmp_path, wall) as where, where.node("alice", names["JournalService"]) as alice:
        assert await alice.service(names["JournalService"]).note("hello") == 6
    assert (tmp_path / "journal.txt").read_text() == "hello\n"


@pytest.mark.slow
async def test_installed_it_is_in_every_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(site(tmp_path / "site")))
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    [settings], [program] = blocks("yaml"), blocks("python", "a program")
    async with town(tmp_path, "alice", "bob", network=network) as there:
        there.daemons["bob"].settings.update(yaml.safe_load(settings.text))
        alice, bob = await there.start("alice"), await there.start("bob")
        environ = {**os.environ, "STORE": bob.pubkey.hex}
        for typed, printed in zip(blocks("sh"), blocks("json"), strict=True):
            command = ["sh", "-euc", typed.text.replace("127.0.0.1:8882", alice.http)]
            with trio.fail_after(PATIENCE_S):
                done = await trio.run_process(command, env=environ, capture_stdout=True)
            assert done.stdout.decode() == printed.text.rstrip("\n")
        dear = {"pubkey": bob.pubkey.hex, "key": "k", "value": "YWFh" * 100, "amount": 7}
        refused = await alice.post("/v1/x/kv/put", dear)
        assert "that costs 8 sat" in refused["message"]  # the price that bob's file says

        assert await alice.stop(signal.SIGINT) == 0
        command = [sys.executable, "-c", program.text, bob.pubkey.hex]
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(command, cwd=alice.folder, capture_stdout=True, stderr=subprocess.DEVNULL)
        assert done.stdout.decode() == "{'value': b'blue'}\n"
