import base64
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wireguard.lab import require_lab

from impervious.errors import AlreadyExists, InvalidArgument
from impervious.wireguard import PresharedKey, PrivateKey, PublicKey, buyer_key

SERVER = PrivateKey(bytes(range(32))).public
PRIME = 2**255 - 19

LOW_ORDER = (
    # The u-coordinates of the points of small order on Curve25519.
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
)


def encoded(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "little")).decode()


def test_alice_of_rfc_7748_section_6_1() -> None:
    alice = PrivateKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    assert alice.public.raw.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


def test_a_private_key_is_clamped_as_wg_does_it() -> None:
    assert PrivateKey(b"\xff" * 32).raw == b"\xf8" + b"\xff" * 30 + b"\x7f"
    assert PrivateKey(b"\x00" * 32).raw == b"\x00" * 31 + b"\x40"
    assert PrivateKey.generate().raw != PrivateKey.generate().raw


def test_wg_makes_the_same_public_keys() -> None:
    require_lab()
    for _ in range(20):
        key = PrivateKey.generate()
        told = subprocess.run(["wg", "pubkey"], input=key.text, capture_output=True, text=True, check=True)
        assert told.stdout.strip() == key.public.text


def test_no_preshared_key_is_not_one_of_zeros() -> None:
    with pytest.raises(InvalidArgument, match="means none"):
        PresharedKey.parse("A" * 43 + "=")


@given(st.binary(min_size=32, max_size=32).filter(any))
def test_text_and_back(raw: bytes) -> None:
    assert PublicKey.parse(PublicKey(raw).text) == PublicKey(raw)
    assert PresharedKey.parse(PresharedKey(raw).text) == PresharedKey(raw)
    assert PrivateKey.parse(PrivateKey(raw).text) == PrivateKey(raw)
    assert len(PublicKey(raw).text) == 44


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "A" * 44,
        "A" * 43,
        "A" * 42 + "B=",  # the last character's spare bits are not zero
        "A" * 43 + "= ",
        " " + "A" * 43 + "=",
        "A" * 20 + "\n" + "A" * 23 + "=",
        "-" * 43 + "=",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        "é" * 44,
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    for kind in (PublicKey, PresharedKey, PrivateKey):
        with pytest.raises(InvalidArgument, match="44 characters") as caught:
            kind.parse(text)
        assert not text or text not in str(caught.value)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    for kind in (PublicKey, PresharedKey, PrivateKey):
        with pytest.raises(InvalidArgument, match="32 bytes"):
            kind(bytes(length))


def test_secrets_do_not_print_themselves() -> None:
    for secret in (PrivateKey.generate(), PresharedKey.generate()):
        for shown in (repr(secret), str(secret), f"{secret}", repr([secret]), f"{secret!r:>200}"):
            assert secret.text not in shown
            assert secret.raw.hex() not in shown
            assert repr(secret.raw) not in shown


def test_a_public_key_prints_its_beginning() -> None:
    assert repr(SERVER) == f"PublicKey({SERVER.text[:8]}…)"
    assert str(SERVER) == SERVER.text


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_point_of_low_order_is_no_buyers_key(point: int) -> None:
    with pytest.raises(InvalidArgument, match="low order"):
        buyer_key(encoded(point), server=SERVER, in_use=())


@given(st.integers(min_value=PRIME, max_value=2**256 - 1))
def test_a_second_spelling_of_a_point_is_no_buyers_key(number: int) -> None:
    with pytest.raises(InvalidArgument, match="not reduced"):
        buyer_key(encoded(number), server=SERVER, in_use=())


def test_a_buyers_key_is_not_the_servers_nor_taken() -> None:
    mine = PrivateKey.generate().public
    assert buyer_key(mine.text, server=SERVER, in_use={SERVER}) == mine
    with pytest.raises(InvalidArgument, match="the server's own"):
        buyer_key(SERVER.text, server=SERVER, in_use=())
    with pytest.raises(AlreadyExists, match="in use"):
        buyer_key(mine.text, server=SERVER, in_use={mine})


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_a_good_buyers_key(raw: bytes) -> None:
    key = PrivateKey(raw).public
    assert key == SERVER or buyer_key(key.text, server=SERVER, in_use=()) == key
