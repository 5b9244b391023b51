import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.sim.engine.answers import LndError
from impervious.sim.face.caveats import Caller
from impervious.sim.face.macaroon import Macaroon, allows, bake
from impervious.sim.face.permissions import ADMIN, REQUIRED, Permission

CALLER = Caller(host="127.0.0.1", now_s=1_760_000_000)
KEY, NONCE = bytes(range(32)), bytes(range(16))
INFO = Permission("info", "read")

VECTORS = {
    (): (
        "0201036c6e640224030a10000102030405060708090a0b0c0d0e0f1201301a0c0a04696e666f12047265616400000620"
        "8e5c976137738b645395795ca16aa3a8d633c2c6789c0d5b5b58068e356f1164"
    ),
    (b"time-before 2030",): (
        "0201036c6e640224030a10000102030405060708090a0b0c0d0e0f1201301a0c0a04696e666f12047265616400021074"
        "696d652d6265666f72652032303330000006204c13d3a0b9b8c2772d8683a60a935ffbd8fbda7a0f8484e1b73c34e2ec"
        "e569af"
    ),
}
"""Made by another implementation (pymacaroons, version 2, binary) from the same key and identifier."""


@pytest.mark.parametrize("caveats", VECTORS)
def test_it_is_what_other_implementations_make(caveats: tuple[bytes, ...]) -> None:
    data = bytes.fromhex(VECTORS[caveats])
    assert bake(KEY, [INFO], nonce=NONCE, caveats=caveats) == data
    parsed = Macaroon.parse(data)
    assert (parsed.permissions, parsed.caveats) == (frozenset({INFO}), caveats)


def test_what_was_baked_is_accepted_and_says_what_it_may_do() -> None:
    macaroon = Macaroon.parse(bake(KEY, ADMIN, nonce=NONCE))
    macaroon.check(KEY, CALLER)
    assert macaroon.permissions == ADMIN


def test_another_root_key_refuses_it() -> None:
    with pytest.raises(LndError, match="signature mismatch after caveat verification"):
        Macaroon.parse(bake(KEY, ADMIN, nonce=NONCE)).check(bytes(32), CALLER)


def test_a_root_key_that_is_not_there_is_named() -> None:
    data = bake(KEY, [INFO], nonce=NONCE).replace(b"\x12\x010", b"\x12\x017")
    with pytest.raises(LndError, match="cannot get macaroon: root key with id 7 doesn't exist"):
        Macaroon.parse(data).check(None, CALLER)


def test_an_unknown_caveat_makes_it_useless() -> None:
    macaroon = Macaroon.parse(bake(KEY, ADMIN, nonce=NONCE, caveats=[b"moon full"]))
    with pytest.raises(LndError, match="caveat not recognized"):
        macaroon.check(KEY, CALLER)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_found_out(position: int, change: int) -> None:
    data = bytearray(bake(KEY, [INFO], nonce=NONCE))
    position %= len(data)
    data[position] ^= change
    if data[2] == 3 and bytes(data[3:6]) != b"lnd":
        return  # the location is a hint that nothing signs
    with pytest.raises(LndError):
        Macaroon.parse(bytes(data)).check(KEY, CALLER)


@given(st.binary(max_size=100))
def test_noise_is_no_macaroon(data: bytes) -> None:
    with pytest.raises(LndError):
        Macaroon.parse(data).check(KEY, CALLER)


@given(st.integers(0, 300))
def test_a_cut_off_macaroon_is_none(length: int) -> None:
    data = bake(KEY, [INFO], nonce=NONCE)
    with pytest.raises(LndError):
        Macaroon.parse(data[: length % len(data)]).check(KEY, CALLER)


def test_it_does_not_print_itself() -> None:
    data = bake(KEY, [INFO], nonce=NONCE)
    assert data[-16:].hex() not in repr(Macaroon.parse(data))
    assert "info" not in repr(Macaroon.parse(data))


@pytest.mark.parametrize(
    ("granted", "path", "allowed"),
    [
        ({INFO}, "/lnrpc.Lightning/GetInfo", True),
        ({INFO}, "/lnrpc.Lightning/SignMessage", False),
        ({Permission("info", "write")}, "/lnrpc.Lightning/GetInfo", False),
        ({Permission("uri", "/lnrpc.Lightning/GetInfo")}, "/lnrpc.Lightning/GetInfo", True),
        ({Permission("uri", "/lnrpc.Lightning/GetInfo")}, "/lnrpc.Lightning/GetNodeInfo", False),
        (ADMIN, "/routerrpc.Router/SendPaymentV2", True),
        (set(), "/lnrpc.Lightning/GetInfo", False),
    ],
)
def test_a_permission_is_of_a_kind_or_of_one_method(granted: set[Permission], path: str, allowed: bool) -> None:
    assert allows(granted, [REQUIRED[path]], path) is allowed
