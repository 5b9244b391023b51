"""Fixtures of the tests that need real network interfaces."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.wireguard.lab import TwoMachines, require_lab, two_machines


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[TwoMachines]:
    """A seller and a buyer on one cable."""
    require_lab()
    async with two_machines(tmp_path) as both:
        yield both
