import pytest

from impervious.errors import InvalidArgument
from impervious.model import Preimage
from impervious.wire import keysend

PREIMAGE = Preimage(bytes(range(32)))


def test_the_preimage_travels_beside_the_records() -> None:
    assert keysend.with_preimage({400000: b"text"}, PREIMAGE) == {400000: b"text", 5482373484: PREIMAGE.raw}


@pytest.mark.parametrize("record_type", [0, 65535, 2**64, -1])
def test_types_out_of_range_are_refused(record_type: int) -> None:
    with pytest.raises(InvalidArgument, match="not between"):
        keysend.with_preimage({record_type: b""}, PREIMAGE)


@pytest.mark.parametrize("record_type", [keysend.PREIMAGE_RECORD, keysend.ACCOUNTABLE_RECORD])
def test_types_with_a_meaning_of_their_own_are_refused(record_type: int) -> None:
    with pytest.raises(InvalidArgument, match="meaning of its own"):
        keysend.with_preimage({record_type: b""}, PREIMAGE)
