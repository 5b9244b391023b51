from collections.abc import AsyncIterator

import pytest
from tests.contract.stage import STAGES, Stage


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with STAGES[request.param]() as opened:
        yield opened
