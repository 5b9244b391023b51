"""A minute of the fuzzer, or as much as IMPERVIOUS_FUZZ_DATABASES says (3,200 payments each)."""

import os

import pytest
from tests.inbound.fuzzing import ROUND, ROUNDS, fuzz
from trio.testing import MockClock

DATABASES = int(os.environ.get("IMPERVIOUS_FUZZ_DATABASES", "10"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(DATABASES))
async def test_no_payment_ends_the_reader_or_loses_a_millisatoshi(seed: int, autojump_clock: MockClock) -> None:
    assert await fuzz(seed) == ROUND * ROUNDS


async def test_the_fuzzer_itself(autojump_clock: MockClock) -> None:
    assert await fuzz(1_000_000, rounds=2) == 2 * ROUND
