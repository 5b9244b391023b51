from collections.abc import AsyncIterator

import pytest
from tests.contract.nodes import KINDS, Nodes
from tests.contract.stage import STAGES, Stage
from tests.lnd.regtest import Regtest, missing_programs

REAL = pytest.param(
    "real",
    marks=[
        pytest.mark.lnd,
        pytest.mark.slow,
        pytest.mark.skipif(bool(missing_programs()), reason=f"not on PATH: {', '.join(missing_programs())}"),
    ],
)


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with STAGES[request.param]() as opened:
        yield opened


@pytest.fixture(params=["sim", "lnd", REAL])
async def nodes(request: pytest.FixtureRequest) -> AsyncIterator[Nodes]:
    def regtest() -> Regtest:
        network = request.getfixturevalue("regtest")
        assert isinstance(network, Regtest)
        return network

    async with KINDS[request.param](regtest) as opened:
        yield opened
