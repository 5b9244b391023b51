import json
import os
import signal
import socket
from pathlib import Path

import pytest
import trio
from tests.cli.processes import PATIENCE_S, free_base, running

from impervious.cli.client.door import Door
from impervious.cli.client.rest import open_rest
from impervious.cli.demo.stage import DemoFailed, Stage
from impervious.cli.demo.tour import TOUR, Step
from impervious.cli.main import main
from impervious.cli.verbs import demo
from impervious.config import Address

pytestmark = pytest.mark.slow


def environ(folder: Path) -> dict[str, str]:
    """Ours, with a folder of the test for temporary files, and a setting that must not reach the demo's daemons."""
    return {**os.environ, "TMPDIR": str(folder), "IMPERVIOUS_SERVER__ENABLED": "false"}


async def test_once_everything_arrived_it_ends_and_leaves_nothing(tmp_path: Path) -> None:
    async with running("demo", "--once", "--json", "--port-base", "0", environ=environ(tmp_path)) as tour:
        facts = [json.loads(line) for line in (await tour.rest()).splitlines()]
        assert await tour.ended() == 0
    steps = [fact["name"] for fact in facts if fact["event"] == "step_ended"]
    assert steps == [step.name for step in TOUR]
    assert facts[-1]["event"] == "tour_ended"
    assert not facts[-1]["goes_on"]
    sent = {fact["id"]: (fact["to"], fact["size"]) for fact in facts if fact["event"] == "sent"}
    arrived = {fact["id"]: (fact["at"], fact["size"]) for fact in facts if fact["event"] == "arrived"}
    assert sent.items() <= arrived.items()
    assert 100_000 in {size for _, size in arrived.values()}
    assert list(tmp_path.iterdir()) == []


async def test_it_keeps_serving_until_it_is_stopped(tmp_path: Path) -> None:
    base = free_base(20)
    with trio.fail_after(PATIENCE_S):
        async with running("demo", "--port-base", str(base), environ=environ(tmp_path)) as tour:
            while "Ctrl-C stops" not in (line := await tour.line()):
                if line.startswith("  curl -d"):
                    body = json.loads(line.split("'")[1])
            async with open_rest(Door(address=Address(host="127.0.0.1", port=base + 1))) as rest:
                await rest.ask("/v1/message/send", {**body, "text": "from outside"})
            while '"from outside"  from alice' not in await tour.line():
                pass
            assert await tour.stop(signal.SIGINT) == 0
            assert (await tour.rest()).endswith("Stopping.\n")
    assert list(tmp_path.iterdir()) == []


async def test_a_tour_that_is_interrupted_did_not_work(tmp_path: Path) -> None:
    async with running("demo", "--once", "--json", "--port-base", "0", environ=environ(tmp_path)) as tour:
        while json.loads(await tour.line())["event"] != "step_began":
            pass
        assert await tour.stop(signal.SIGTERM) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("once", [["--once"], []])
def test_a_tour_that_fails_says_why(
    once: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(stage: Stage) -> None:
        await trio.lowlevel.checkpoint()
        raise DemoFailed("carol is deaf")

    monkeypatch.setattr(demo, "TOUR", (Step(name="first", title="First", run=fails),))
    assert main(["demo", *once, "--port-base", "0"]) == 1
    assert capsys.readouterr().err == "impervious: step 'first': carol is deaf\n"


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    base = free_base(20)
    with socket.create_server(("127.0.0.1", base)):
        assert main(["demo", "--once", "--port-base", str(base)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"impervious: port {base} cannot be listened on (Address already in use): choose others")
    assert err.count("\n") == 1
