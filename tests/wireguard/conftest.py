"""Fixtures of the tests that need real network interfaces."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.wireguard.lab import TwoMachines, require_lab, two_machines
from tests.wireguard.town import Town, open_town


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[TwoMachines]:
    """A seller and a buyer on one cable."""
    require_lab()
    async with two_machines(tmp_path) as both:
        yield both


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """A seller's machine with an internet, a LAN and two buyers around it."""
    require_lab()
    async with open_town(tmp_path) as built:
        yield built
