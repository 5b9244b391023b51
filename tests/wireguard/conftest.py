"""Fixtures of the tests that need real network interfaces."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.wireguard.lab import TwoMachines, require_lab, two_machines
from tests.wireguard.town import Town, open_town


@pytest.fixture
def lab_folder(tmp_path: Path) -> Path:
    """Where a lab may be built; not async, because pytest-trio swallows the reason of a skip."""
    require_lab()
    return tmp_path


@pytest.fixture
async def machines(lab_folder: Path) -> AsyncIterator[TwoMachines]:
    """A seller and a buyer on one cable."""
    async with two_machines(lab_folder) as both:
        yield both


@pytest.fixture
async def town(lab_folder: Path) -> AsyncIterator[Town]:
    """A seller's machine with an internet, a LAN and two buyers around it."""
    async with open_town(lab_folder) as built:
        yield built
