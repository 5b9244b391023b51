"""One table of calls, asked of real lnd nodes and of simulated ones: the same fields are set, the same words refuse.

Runs where btcd, btcctl, lnd and lncli are on PATH.
"""

from pathlib import Path

import pytest
import trio
from tests.lnd.regtest import Regtest, missing_programs
from tests.sim.face.asked import NAMES, RECORDED, Asked, ask_everything, ask_simulated, differences, record, recorded
from tests.sim.face.grpcio_client import connect

pytestmark = [
    pytest.mark.lnd,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not on PATH: {', '.join(missing_programs())}"),
]


def ask_real(regtest: Regtest) -> Asked:
    nodes = {name: regtest[name] for name in NAMES}
    lnds = {
        name: connect(str(node.rpc_port), node.certificate.read_bytes(), node.macaroon.read_bytes().hex())
        for name, node in nodes.items()
    }
    asked = Asked(lnds, {name: node.pubkey.hex for name, node in nodes.items()})
    ask_everything(asked)
    return asked


async def test_a_stranger_sees_no_difference(regtest: Regtest, tmp_path: Path) -> None:
    real = await trio.to_thread.run_sync(ask_real, regtest)
    simulated = await ask_simulated(tmp_path / "simulated")
    assert list(simulated.got) == list(real.got)
    assert differences(real.got, simulated.got) == []
    record(real.got, tmp_path / RECORDED.name)
    words = {name: each.refusal for name, each in real.got.items()}
    assert {name: each.refusal for name, each in recorded().items()} == words, (
        f"lnd has changed: look at {tmp_path / RECORDED.name}, and put it in {RECORDED}"
    )
    for name in ("network", "keysend of its preimage", "keysend of another"):
        assert simulated.answers[name] == real.answers[name]
    for name in ("SignMessage", "SignMessage once"):
        assert simulated.answers[f"valid {name}"] is real.answers[f"valid {name}"]
