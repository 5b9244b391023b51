"""docs/quickstart.md, run as it stands."""

from pathlib import Path
from typing import Final

import pytest
import yaml
from tests.daemons import town
from tests.docs.desk import Block, Desk, blocks

from impervious.sim import SimNetwork

PAGE: Final = Path("docs/quickstart.md")

pytestmark = pytest.mark.slow


async def test_the_simulated_network(tmp_path: Path) -> None:
    simnet, alice, carol, tail, send, curl, subscribe, photo, show = blocks(PAGE, "On a simulated network")
    assert [block.note for block in (simnet, alice, carol, tail, subscribe)] == ["stays"] * 5
    desk = Desk(tmp_path)
    async with desk.town(simnet, alice, carol), desk.stay(tail) as watching:
        assert (await desk.run(send)).endswith("\ndelivered\n")
        assert (await watching.line()).endswith(" 1 sat hello, carol")
        assert '"id"' in await desk.run(curl)
        assert (await watching.line()).endswith(" 1 sat hello from curl")
        async with desk.stay(subscribe) as stream:
            for text in ("aGVsbG8sIGNhcm9s", "aGVsbG8gZnJvbSBjdXJs"):
                assert text in await stream.line()
        assert (await desk.run(photo)).endswith("\ndelivered\n")
        assert "<100,000 bytes: " in await watching.line()
        assert "3 (3 message)" in await desk.run(show)


async def test_two_lnd_nodes(tmp_path: Path) -> None:
    init, check, run, send = blocks(PAGE, "On two LND nodes")
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    desk = Desk(tmp_path)
    async with town(tmp_path, "alice", "bob", network=network) as there:
        bob = await there.start("bob")
        assert "wrote alice.yml" in await desk.run(init)
        written = yaml.safe_load((tmp_path / "alice.yml").read_text())
        written["lightning"]["lnd_node"] = there.daemons["alice"].settings["lightning"]["lnd_node"]
        written["server"] = {"grpc_addr": f"127.0.0.1:{desk.base}", "http_addr": f"127.0.0.1:{desk.base + 1}"}
        (tmp_path / "alice.yml").write_text(yaml.safe_dump(written))
        assert (await desk.run(check)).endswith("alice.yml: ok\n")
        async with desk.stay(run):
            await desk.answers(8882)
            first = Block(send.note, send.commands.replace("THEIR_PUBKEY", bob.pubkey.hex))
            assert (await desk.run(first)).endswith("\ndelivered\n")


def test_every_command_is_run() -> None:
    """Or it says why not; and there are no others hidden in the text."""
    text = PAGE.read_text()
    found = [
        block.note
        for chapter in ("Install", "On a simulated network", "On two LND nodes")
        for block in blocks(PAGE, chapter)
    ]
    assert len(found) == text.count("```sh") == len(blocks(PAGE))
    assert [note for note in found if note.startswith("not run")] == ["not run: the tests have it installed"]
