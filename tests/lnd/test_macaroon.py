import pytest
from tests.lnd.fake import bake

from impervious.errors import Malformed
from impervious.lnd import macaroon

READONLY = bytes.fromhex(
    "0201036c6e6402ac01030a109d6fed046d6c83cd3cb260b4e552e924120130"
    "1a0f0a076164647265737312047265616"
    "41a0c0a04696e666f1204726561641a100a08696e766f69636573120472656164"
    "1a100a086d616361726f6f6e1204726561641a0f0a076d657373616765120472656164"
    "1a100a086f6666636861696e1204726561641a0f0a076f6e636861696e120472656164"
    "1a0d0a057065657273120472656164"
    "1a0e0a067369676e6572120472656164"
    "00000620b54499508" + "8e5300898b09a06b8f79fc7954c4798927b34ce22d62cd6cde92d00"
)
"""readonly.macaroon of an lnd 0.21, from a throw-away network; the last byte of its signature is not LND's."""


def test_what_lnd_wrote_is_read() -> None:
    assert macaroon.looks_like_one(READONLY)
    assert macaroon.permissions(READONLY) == {
        (entity, "read")
        for entity in (
            "address",
            "info",
            "invoices",
            "macaroon",
            "message",
            "offchain",
            "onchain",
            "peers",
            "signer",
        )
    }


def test_methods_are_permissions_too() -> None:
    baked = bake(("uri", "/lnrpc.Lightning/GetInfo"), ("offchain", "write"))
    assert macaroon.permissions(baked) == {("uri", "/lnrpc.Lightning/GetInfo"), ("offchain", "write")}


def test_a_macaroon_without_a_location_is_one() -> None:
    assert macaroon.permissions(bake(("info", "read"), location=b"")) == {("info", "read")}


@pytest.mark.parametrize("length", range(len(READONLY) - 36))
def test_a_macaroon_cut_off_within_its_identifier_is_none(length: int) -> None:
    assert not macaroon.looks_like_one(READONLY[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        READONLY.hex().encode(),
        b"MDAxY2xvY2F0aW9u",
        b"-----BEGIN CERTIFICATE-----\n",
        b"\x02\x02\x01\x02\0",
    ],
)
def test_what_is_no_macaroon_is_told_apart(data: bytes) -> None:
    assert not macaroon.looks_like_one(data)
    with pytest.raises(Malformed):
        macaroon.permissions(data)


def test_an_identifier_of_another_maker_is_not_guessed_at() -> None:
    with pytest.raises(Malformed):
        macaroon.permissions(b"\x02\x02\x04\x03\x08\x01\x01\0\0")


@pytest.mark.parametrize("end", [-1, -33, -36])
def test_a_macaroon_that_is_cut_off_is_none(end: int) -> None:
    assert not macaroon.looks_like_one(READONLY[:end])


@pytest.mark.parametrize("more", [b"\n", b"\0", READONLY])
def test_a_macaroon_with_something_behind_it_is_none(more: bytes) -> None:
    assert not macaroon.looks_like_one(READONLY + more)
