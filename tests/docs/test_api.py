"""docs/api.md: its commands are typed, and its tables are the code's."""

import json
import re
from pathlib import Path
from typing import Final

import pytest
from grpclib.const import Status
from tests.docs.desk import Block, Desk, blocks
from tests.docs.test_quickstart import PAGE as QUICKSTART
from tests.server.house import config, open_app

from impervious.server.convert import HTTP_STATUSES

PAGE: Final = Path("docs/api.md")
CALL: Final = re.compile(r"^\| (GET|POST) (/v1/\S+) \| (\S+/\w+) \|", re.MULTILINE)
WAYS: Final = "\n".join(re.findall(r"^    ((?:curl|carol=).*)$", PAGE.read_text(), re.MULTILINE))
"""What shows the ways to say what `msg` is."""
CODE: Final = re.compile(r"^\| (\d+) ([A-Z_]+) \| (\d{3}) \|", re.MULTILINE)


@pytest.mark.slow
async def test_its_commands(tmp_path: Path) -> None:
    simnet, alice, carol, *_ = blocks(QUICKSTART, "On a simulated network")
    send, keyed, subscribe, text = blocks(PAGE)
    desk = Desk(tmp_path)
    async with desk.town(simnet, alice, carol):
        first = json.loads(await desk.run(send))
        once, again = (await desk.run(keyed)).split("}")[:2]
        assert once == again
        second = json.loads(once + "}")
        assert "id" in json.loads(await desk.run(text))
        *signed, _, _, _ = (await desk.run(Block("", WAYS))).replace("}", "}\n").splitlines()
        assert all("signature" in json.loads(each) for each in signed)
        shown = [json.loads(line)["result"] for line in (await desk.run(subscribe)).splitlines()]
        assert [each["id"] for each in shown[:2]] == [first["id"], second["id"]]
        assert [each["data"] for each in shown[:3]] == ["aGVsbG8=", "c2VudCBvbmNl", "YXMgaW4gMjAyMQ=="]
        assert [each["amount"] for each in shown[:3]] == ["1", "25", "1"]


async def test_its_calls_are_all_there_are(tmp_path: Path) -> None:
    async with open_app(config(tmp_path)) as inside:
        there = [(row.method, row.route, row.path.lstrip("/")) for row in inside.doors.table]
    assert sorted(CALL.findall(PAGE.read_text())) == sorted(there)


def test_its_codes() -> None:
    told = {(int(code), name): int(http) for code, name, http in CODE.findall(PAGE.read_text())}
    assert told == {(code.value, code.name): HTTP_STATUSES[code] for code in map(Status, {c for c, _ in told})}
    assert len(told) == 12
