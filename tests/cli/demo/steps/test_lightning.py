from pathlib import Path

import pytest
import trio

from impervious.cli.client.answers import DaemonRefused
from impervious.cli.demo.facts import Arrived, Done, Fact
from impervious.cli.demo.stage import open_stage
from impervious.cli.demo.steps import lightning

pytestmark = pytest.mark.slow


async def test_an_invoice_is_made_paid_and_seen_by_both(tmp_path: Path) -> None:
    heard: list[Fact] = []
    with trio.fail_after(60):
        async with open_stage(tmp_path, heard.append, port_base=0, seconds=trio.current_time) as stage:
            await lightning.invoice(stage)
            did = [(fact.at, fact.did) for fact in heard if isinstance(fact, Done)]
            assert did == [("carol", "asks"), ("alice", "pays"), ("carol", "checks"), ("alice", "checks")]
            [arrived] = [fact for fact in heard if isinstance(fact, Arrived)]
            assert (arrived.at, arrived.service, arrived.amount_sat) == ("carol", "lightning", lightning.AMOUNT_SAT)
            stage.network.lnd("alice").go_offline()
            with pytest.raises(
                DaemonRefused, match="not paid: not enough outbound balance, or our channel peer is off"
            ):
                await lightning.invoice(stage)
