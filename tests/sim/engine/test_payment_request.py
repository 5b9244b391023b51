import hashlib
import re

import pytest
from bech32 import bech32_decode, bech32_encode
from bolt11 import decode as bolt11_decode
from hypothesis import given, settings
from hypothesis import strategies as st

from impervious.model import MAX_INVOICE, PaymentHash
from impervious.sim.engine import payment_request
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.identity import Identity
from impervious.sim.engine.payments import Order
from impervious.units import Msat

PAYEE = Identity(b"\x05" * 32)
HASH = PaymentHash(hashlib.sha256(b"preimage").digest())
SECRET = hashlib.sha256(b"secret").digest()
EPOCH_S = 1_760_000_000

PUBLISHED = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyq"
    "cyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06f"
    "v3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh"
)
"""BOLT 11, examples: "1 cup coffee", for mainnet."""


def made(*, amount: int = 5000, memo: str = "coffee", description_hash: bytes = b"", expiry_s: int = 3600) -> str:
    return payment_request.encode(
        PAYEE,
        payment_hash=HASH,
        payment_addr=SECRET,
        amount=Msat(amount),
        created_s=EPOCH_S,
        expiry_s=expiry_s,
        memo=memo,
        description_hash=description_hash,
    )


def renamed(hrp: str) -> str:
    """An invoice with another human-readable part and a right checksum."""
    _, groups = bech32_decode(made(amount=0))
    assert groups is not None
    return bech32_encode(hrp, groups)


@pytest.mark.parametrize(
    ("amount", "prefix"),
    [
        (0, "lnbcrt1p"),
        (1, "lnbcrt10p1p"),
        (99, "lnbcrt990p1p"),
        (100, "lnbcrt1n1p"),
        (123_400, "lnbcrt1234n1p"),
        (100_000, "lnbcrt1u1p"),
        (10**8, "lnbcrt1m1p"),
        (10**11, "lnbcrt11p"),
        (1000 * 10**11, "lnbcrt10001p"),
        (MAX_INVOICE, "lnbcrt1000001p"),
    ],
)
def test_amounts_are_exact(amount: int, prefix: str) -> None:
    text = made(amount=amount)
    assert text.startswith(prefix)
    assert payment_request.decode(text).amount == amount
    assert (bolt11_decode(text).amount_msat or 0) == amount


@given(st.integers(0, MAX_INVOICE), st.text(max_size=100), st.integers(1, 365 * 86_400))
@settings(max_examples=30)
def test_what_was_written_is_read(amount: int, memo: str, expiry_s: int) -> None:
    text = made(amount=amount, memo=memo, expiry_s=expiry_s)
    read = payment_request.decode(text)
    assert (read.amount, read.description, read.expiry_s) == (amount, memo, expiry_s)
    assert (read.payee, read.payment_hash, read.payment_secret) == (PAYEE.pubkey, HASH, SECRET)
    assert (read.created_s, read.min_final_cltv, read.features) == (EPOCH_S, 80, frozenset({8, 14, 17}))
    assert read.payment_request == text


def test_a_hash_takes_the_descriptions_place() -> None:
    read = payment_request.decode(made(description_hash=HASH))
    assert (read.description, read.description_hash) == ("", HASH)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PUBLISHED, "not for current active network"),
        ("", "invalid bech32 string length 0"),
        ("lnbcrt1" + "q" * 4096, "too large"),
        (renamed("lnsb"), "not for current active network"),
        (renamed("ln"), "hrp too short"),
        (renamed("xyz"), 'prefix should be "ln"'),
        (renamed("lnbcrt15p"), "part of a millisatoshi"),
        (renamed("lnbcrt0"), "nothing"),
        (renamed("lnbcrt21000001"), "more bitcoin than there are"),
        (renamed("lnbcrt" + "9" * 500), "more bitcoin than there are"),
        ("lnbcrtqqqqqqqq", "invalid index of 1"),
        ("1qqqqqqqq", "invalid index of 1"),
        ("lnbcrt1qqqqq", "invalid index of 1"),
        ("lnbcrt1qqqqqbi", "invalid character not part of charset: 98"),
        (made()[:-1], "checksum failed. Expected "),
        (made() + "\n", "invalid character in string: '\n'"),
        (made().replace("l", "L", 1), "lowercase"),
        (bech32_encode("lnbcrt", [0] * 110), "invalid payment request"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(LndError, match=re.escape(says)):
        payment_request.decode(text)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=150)
def test_damage_behind_a_right_checksum_is_told_in_one_way(data: st.DataObject) -> None:
    prefix, groups = bech32_decode(made(memo="é" * 20))
    assert prefix is not None
    assert groups is not None
    start = data.draw(st.integers(0, len(groups)))
    end = data.draw(st.integers(start, len(groups)))
    damage = data.draw(st.lists(st.integers(0, 31), max_size=60))
    text = bech32_encode(prefix, [*groups[:start], *damage, *groups[end:]])
    try:
        read = payment_request.decode(text)
    except LndError:  # and nothing else
        return
    assert (read.amount, len(read.payment_hash), len(read.payment_secret)) == (5000, 32, 32)


def order(**changes: object) -> Order:
    fields: dict[str, object] = {"dest": b"", "amount": Msat(0), "payment_hash": b"", "payment_request": made()}
    return Order(**{**fields, **changes})  # type: ignore[arg-type]  # a test's own business


def test_an_order_is_filled_from_its_request() -> None:
    filled = payment_request.filled(order(fee_limit=Msat(7)), now_s=EPOCH_S + 3600)
    assert (filled.dest, filled.amount, filled.payment_hash) == (PAYEE.pubkey.raw, 5000, HASH)
    assert (filled.payment_addr, filled.cltv_delta, filled.fee_limit) == (SECRET, 80, 7)
    assert payment_request.filled(order(payment_request=made(amount=0), amount=Msat(1)), now_s=EPOCH_S).amount == 1


@pytest.mark.parametrize(
    ("change", "now_s", "says"),
    [
        ({"dest": PAYEE.pubkey.raw}, EPOCH_S, "dest and payment_request cannot appear together"),
        ({"payment_hash": HASH}, EPOCH_S, "payment_hash and payment_request cannot"),
        ({"final_cltv_delta": 9}, EPOCH_S, "final_cltv_delta and payment_request cannot"),
        ({"payment_addr": SECRET}, EPOCH_S, "payment_addr and payment_request cannot"),
        ({}, EPOCH_S + 3601, r"invoice expired. Valid until 2025-10-09 09:53:20\+00:00"),
        ({"amount": Msat(5000)}, EPOCH_S, "amount must not be specified"),
        ({"payment_request": made(amount=0)}, EPOCH_S, "amount must be specified when paying a zero amount invoice"),
        ({"payment_request": PUBLISHED}, EPOCH_S, "not for current active network"),
    ],
)
def test_an_order_that_cannot_be_filled(change: dict[str, object], now_s: int, says: str) -> None:
    with pytest.raises(LndError, match=says):
        payment_request.filled(order(**change), now_s=now_s)
