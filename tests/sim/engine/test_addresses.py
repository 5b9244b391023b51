import pytest
from bech32 import bech32_encode, convertbits

from impervious.sim.engine.addresses import AddressKind, address, base58_payload, check_address, witness_program
from impervious.sim.engine.answers import LndError

SECRET = b"\x07" * 32


@pytest.mark.parametrize(
    ("kind", "prefix", "length"),
    [(AddressKind.WITNESS, "bcrt1q", 44), (AddressKind.TAPROOT, "bcrt1p", 64), (AddressKind.NESTED, "2", 35)],
)
def test_addresses_are_of_regtest_and_their_own(kind: AddressKind, prefix: str, length: int) -> None:
    made = [address(kind, SECRET, number) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert made[0].startswith(prefix)
    assert len(made[0]) == length
    for text in made:
        check_address(text)


def test_published_addresses_are_read() -> None:
    """BIP 173 and 350 give the programs; regtest has another prefix, and so another checksum."""
    program = bytes.fromhex("751e76e8199196d454941c45d1b3a323f1433bd6")
    groups = convertbits(program, 8, 5)
    assert groups is not None
    assert witness_program(bech32_encode("bcrt", [0, *groups])) == (0, program)
    assert witness_program(bech32_encode("bcrt", [1, *groups])) is None  # bech32 where bech32m belongs
    assert base58_payload("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn") == (
        111,
        bytes.fromhex("243f1394f44554f4ce3fd68649c19adc483ce924"),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "checksum mismatch"),
        ("0OIl", "decoded address is of unknown format"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "decoded address is of unknown format"),
    ],
)
def test_what_is_no_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(LndError, match=f"invalid fallback address: {says}"):
        check_address(text)
