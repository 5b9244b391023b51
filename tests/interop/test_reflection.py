"""grpcio's reflection client, which asks in v1alpha, learns enough to call us."""

import json
import sys
from pathlib import Path

import pytest
import trio
from tests.server.house import config, open_doors, open_house
from tests.server.test_reflected import PUBLISHED

from .conftest import ROOT

pytestmark = [pytest.mark.interop, pytest.mark.slow]


async def test_a_client_without_proto_files_lists_describes_and_calls(tmp_path: Path) -> None:
    async with open_house(config(tmp_path)) as house, open_doors(house) as listeners:
        port = listeners.addresses.grpc.port
        with trio.fail_after(60):
            done = await trio.run_process(
                [sys.executable, "-m", "tests.interop.reflect", str(port)], capture_stdout=True, cwd=ROOT
            )
    seen = json.loads(done.stdout)
    assert set(PUBLISHED) <= set(seen["services"])
    assert seen["described"] == seen["services"]
    assert seen["verified"]
