"""docs/simnet.md: its table of calls is what a simulated node answers."""

import re
from pathlib import Path

from impervious.sim.face.permissions import OPEN, REQUIRED

PAGE = Path(__file__).parents[2] / "docs" / "simnet.md"


def test_the_table_names_every_call_and_no_other() -> None:
    named = set()
    for service, calls in re.findall(r"^\| `([\w.]+)` \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE):
        named |= {f"/{service}/{call}" for call in calls.split(", ")}
    assert named == set(REQUIRED) | OPEN
