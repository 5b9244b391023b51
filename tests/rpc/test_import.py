"""What importing the room brings along."""

import subprocess
import sys

import pytest

WEB = {"quart", "quart_trio", "hypercorn", "sqlcipher3", "rich"}


@pytest.mark.slow
def test_rpc_loads_nothing_of_the_web_server() -> None:
    program = "import sys, impervious.rpc; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)
    assert not WEB & set(loaded.stdout.split())


@pytest.mark.slow
def test_a_daemon_loads_nothing_of_the_simulated_network() -> None:
    program = "import sys, impervious.lnd, impervious.supervisor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)
    modules = loaded.stdout.split()
    assert not [name for name in modules if name.startswith(("impervious.sim", "impervious.pb.simnet"))]
