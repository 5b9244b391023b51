import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import Unverified
from impervious.model import NodePubkey
from impervious.wire import lnd_signature, zbase32

VECTORS = [
    (
        b"is this compatible?",
        "rbgfioj114mh48d8egqx8o9qxqw4fmhe8jbeeabdioxnjk8z3t1ma1hu1fiswpakgucwwzwo6ofycffbsqusqdimugbh41n1g698hr9t",
        "02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5",
    ),
    (
        b"hi",
        "rnrphcjswusbacjnmmmrynh9pqip7sy5cx695h6mfu64iac6qmcmsd8xnsyczwmpqp9shqkth3h4jmkgyqu5z47jfn1q7gpxtaqpx4xg",
        "02de60d194e1ca5947b59fe8e2efd6aadeabfb67f2e89e13ae1a799c1e08e4a43b",
    ),
    (
        b"hi",
        "ry8bbsopmduhxy3dr5d9ekfeabdpimfx95kagdem7914wtca79jwamtbw4rxh69hg7n6x9ty8cqk33knbxaqftgxsfsaeprxkn1k48p3",
        "022b8ece90ee891cbcdac0c1cc6af46b73c47212d8defbce80265ac81a6b794931",
    ),
]
"""Published by other implementations that sign as LND does."""

KEY = PrivateKey(bytes(31) + b"\x07")
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.mark.parametrize(("text", "signature", "signer"), VECTORS)
def test_published_signatures_name_their_signers(text: bytes, signature: str, signer: str) -> None:
    assert lnd_signature.recover(text, zbase32.decode(signature)) == NodePubkey.parse(signer)


@given(st.binary(max_size=300), st.integers(1, CURVE_ORDER - 1))
def test_whoever_signs_is_recovered(text: bytes, secret: int) -> None:
    key = PrivateKey.from_int(secret)
    signature = lnd_signature.sign(text, key)
    assert len(signature) == 65
    assert 31 <= signature[0] <= 34
    assert lnd_signature.recover(text, signature).raw == key.public_key.format()


def test_another_text_does_not_name_the_signer() -> None:
    signature = lnd_signature.sign(b"pay alice", KEY)
    assert lnd_signature.recover(b"pay mallory", signature).raw != KEY.public_key.format()


def test_a_mirrored_signature_names_the_same_signer_so_it_is_no_id() -> None:
    signature = lnd_signature.sign(b"text", KEY)
    mirrored_s = CURVE_ORDER - int.from_bytes(signature[33:])
    mirrored = bytes([31 + (signature[0] - 31 ^ 1)]) + signature[1:33] + mirrored_s.to_bytes(32)
    assert mirrored != signature
    assert lnd_signature.recover(b"text", mirrored).raw == KEY.public_key.format()


def test_the_header_for_uncompressed_keys_is_read_too() -> None:
    signature = lnd_signature.sign(b"text", KEY)
    older = bytes([signature[0] - 4]) + signature[1:]
    assert lnd_signature.recover(b"text", older).raw == KEY.public_key.format()


@pytest.mark.parametrize(
    ("signature", "says"),
    [
        (b"", "65 bytes"),
        (bytes(64), "65 bytes"),
        (b"\x1a" + bytes(64), "header"),
        (b"\x23" + bytes(64), "header"),
        (b"\x1f" + bytes(64), "no key"),
        (b"\x1f" + b"\xff" * 64, "no key"),
        (b"\x21" + b"\x7f" * 64, "no key"),
    ],
)
def test_what_is_no_signature_says_why(signature: bytes, says: str) -> None:
    with pytest.raises(Unverified, match=says):
        lnd_signature.recover(b"text", signature)
