"""One table of calls, asked of real lnd nodes and of simulated ones: the same fields are set, the same words refuse.

Runs where btcd, btcctl, lnd and lncli are on PATH.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import trio
from tests.lnd.regtest import Regtest, missing_programs
from tests.sim.face.asked import Asked, Got, ask_everything
from tests.sim.face.grpcio_client import connect
from tests.sim.face.serving import on_network

from impervious.sim import SimNetwork

pytestmark = [
    pytest.mark.lnd,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not on PATH: {', '.join(missing_programs())}"),
]

NAMES: Final = ("alice", "bob", "carol")

ONLY_REAL: Final = {
    # The simulated network has no coins on its chain.
    "WalletBalance": {"account_balance{}.confirmed_balance", "confirmed_balance", "total_balance"},
    # A channel_update in a failure: nothing reads it, and simulated policies are never out of date.
    "SendToRouteV2 for nothing": {"failure.#3"},
}
ONLY_SIMULATED: Final = {
    # It says that it is simulated; the binary under test was built without a tag.
    "GetVersion": {"commit"},
    # lnd has it after the first ping, a minute after it connected.
    "ListPeers": {"peers[].last_ping_payload"},
}


def ask_real(regtest: Regtest) -> Asked:
    nodes = {name: regtest[name] for name in NAMES}
    lnds = {
        name: connect(str(node.rpc_port), node.certificate.read_bytes(), node.macaroon.read_bytes().hex())
        for name, node in nodes.items()
    }
    asked = Asked(lnds, {name: node.pubkey.hex for name, node in nodes.items()})
    ask_everything(asked)
    return asked


async def ask_simulated(folder: Path) -> Asked:
    network = SimNetwork(NAMES, ["alice-bob:5000000:3400000", "bob-carol:5000000:3400000"], latency_s=(0, 0))
    async with on_network(network, folder, *NAMES) as world:
        lnds = {
            name: connect(
                str(world.ports[name]),
                world.credentials[name].certificate.read_bytes(),
                world.credentials[name].macaroon.read_bytes().hex(),
            )
            for name in NAMES
        }
        asked = Asked(lnds, {name: world.lnd(name).pubkey.hex for name in NAMES})
        with trio.fail_after(120):
            await trio.to_thread.run_sync(ask_everything, asked)
    return asked


def differences(real: Mapping[str, Got], simulated: Mapping[str, Got]) -> list[str]:
    """What a program could notice, besides what is excepted above."""
    found = []
    for name, one in real.items():
        other = simulated[name]
        if one.refusal != other.refusal:
            found.append(f"{name}: lnd says {one.refusal or 'yes'}, the simulated one {other.refusal or 'yes'}")
        if missing := one.fields - other.fields - ONLY_REAL.get(name, set()):
            found.append(f"{name}: only lnd fills {sorted(missing)}")
        if invented := other.fields - one.fields - ONLY_SIMULATED.get(name, set()):
            found.append(f"{name}: only the simulated one fills {sorted(invented)}")
    return found


async def test_a_stranger_sees_no_difference(regtest: Regtest, tmp_path: Path) -> None:
    real = await trio.to_thread.run_sync(ask_real, regtest)
    simulated = await ask_simulated(tmp_path)
    assert list(simulated.got) == list(real.got)
    assert differences(real.got, simulated.got) == []
    assert simulated.answers["network"] == real.answers["network"]
    for name in ("SignMessage", "SignMessage once"):
        assert simulated.answers[f"valid {name}"] is real.answers[f"valid {name}"]
