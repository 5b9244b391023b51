import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.units import Msat
from impervious.wire import onion
from impervious.wire.keysend import PREIMAGE_RECORD

MAINNET_HEIGHT = 850_000
KEYSEND = {PREIMAGE_RECORD: bytes(32)}
RAW_SIGNED = {**KEYSEND, 400001: bytes(33), 400002: bytes(65)}
TEXT_SIGNED = {**KEYSEND, 400001: bytes(33), 400002: bytes(104), 400003: bytes(8)}
AMP_TYPE, AMP_BYTES = 14, 68  # root share, set id, child index (lnd record.AMP)


def room(hops: int, records: dict[int, bytes]) -> int:
    return onion.room_bytes(
        400000, hops=hops, amount=Msat(1000), total_amount=Msat(65_000), height=MAINNET_HEIGHT, records=records
    )


@pytest.mark.parametrize(
    ("records", "by_hops"),
    [
        (KEYSEND, [1206, 1154, 1102, 1050, 998, 946, 894, 842, 790, 738]),
        (RAW_SIGNED, [1096, 1044, 992, 940, 888, 836, 784, 732]),
        (TEXT_SIGNED, [1043, 991, 939, 887, 835, 783, 731, 679]),
    ],
)
def test_largest_record_by_number_of_hops(records: dict[int, bytes], by_hops: list[int]) -> None:
    assert [room(hops, records) for hops in range(1, len(by_hops) + 1)] == by_hops


@pytest.mark.parametrize(("hops", "largest"), [(1, 1212), (2, 1160), (3, 1108), (4, 1056), (5, 1004)])
def test_largest_record_beside_an_invoice_payment(hops: int, largest: int) -> None:
    def total(length: int) -> int:
        last = onion.final_bytes(Msat(1000), MAINNET_HEIGHT, {400000: bytes(length)}, payment_addr=True)
        return last + (hops - 1) * onion.forwarding_bytes(Msat(1000), MAINNET_HEIGHT)

    assert total(largest) == onion.MAX_BYTES < total(largest + 1)


@pytest.mark.parametrize(("hops", "largest"), [(1, 1142), (2, 1090), (3, 1038), (4, 986), (5, 934)])
def test_largest_record_beside_amp(hops: int, largest: int) -> None:
    def total(length: int) -> int:
        records = {AMP_TYPE: bytes(AMP_BYTES), 400000: bytes(length)}
        last = onion.final_bytes(Msat(1000), MAINNET_HEIGHT, records, payment_addr=True)
        return last + (hops - 1) * onion.forwarding_bytes(Msat(1000), MAINNET_HEIGHT)

    assert total(largest) == onion.MAX_BYTES < total(largest + 1)


@pytest.mark.parametrize(
    ("part_bytes", "plain", "raw_signed", "text_signed"),
    [(700, 10, 8, 7), (800, 8, 6, 5), (850, 7, 5, 4), (900, 6, 4, 3), (950, 5, 3, 2), (1000, 4, 2, 1)],
)
def test_hops_within_reach_of_a_part(part_bytes: int, plain: int, raw_signed: int, text_signed: int) -> None:
    def reach(records: dict[int, bytes]) -> int:
        return max(hops for hops in range(1, onion.MAX_HOPS) if room(hops, records) >= part_bytes)

    assert (reach(KEYSEND), reach(RAW_SIGNED), reach(TEXT_SIGNED)) == (plain, raw_signed, text_signed)


@pytest.mark.parametrize(
    ("amount", "height", "size"),
    [(65_535, 850_000, 52), (65_536, 850_000, 53), (16_777_216, 850_000, 54), (1000, 500, 51), (255, 255, 49)],
)
def test_a_forwarding_hop_grows_with_amount_and_height(amount: int, height: int, size: int) -> None:
    assert onion.forwarding_bytes(Msat(amount), height) == size


@pytest.mark.parametrize(("value_bytes", "size"), [(0, 84 + 6), (100, 84 + 6 + 100), (253, 94 + 253)])
def test_a_final_hop_has_its_fixed_cost(value_bytes: int, size: int) -> None:
    assert onion.final_bytes(Msat(1000), MAINNET_HEIGHT, {**KEYSEND, 400000: bytes(value_bytes)}) == size


@pytest.mark.parametrize(
    ("value", "size"), [(0, 1), (252, 1), (253, 3), (0xFFFF, 3), (0x10000, 5), (0xFFFFFFFF, 5), (0x100000000, 9)]
)
def test_bigsize(value: int, size: int) -> None:
    assert onion.bigsize_bytes(value) == size


@given(
    hops=st.integers(1, 27),
    amount=st.integers(1, 10**10),
    fee=st.integers(0, 10**6),
    height=st.integers(1, 2**32 - 1),
    beside=st.integers(0, 900),
)
def test_the_room_is_used_up_exactly(hops: int, amount: int, fee: int, height: int, beside: int) -> None:
    records = {**KEYSEND, 400001: bytes(beside)}
    length = onion.room_bytes(
        400000, hops=hops, amount=Msat(amount), total_amount=Msat(amount + fee), height=height, records=records
    )
    taken = (hops - 1) * onion.forwarding_bytes(Msat(amount + fee), height)

    def total(value_bytes: int) -> int:
        return taken + onion.final_bytes(Msat(amount), height, {**records, 400000: bytes(value_bytes)})

    assert total(length + 1) > onion.MAX_BYTES
    assert length == 0 or total(length) <= onion.MAX_BYTES
