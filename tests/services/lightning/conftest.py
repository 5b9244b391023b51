"""What both halves of the service are tested on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conftest import Wall
from tests.services.lightning.market import Market, open_market


@pytest.fixture
async def market(tmp_path: Path, wall: Wall) -> AsyncIterator[Market]:
    """Tests must ask for `autojump_clock` too."""
    async with open_market(tmp_path, wall) as opened:
        yield opened
