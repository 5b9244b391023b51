from impervious.sim.engine.identity import Identity
from impervious.wire import lnd_signature


def test_a_key_signs_what_its_pubkey_is_recovered_from() -> None:
    identity = Identity(bytes(31) + b"\x01")
    assert identity.pubkey.hex == "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    assert lnd_signature.recover(b"text", identity.sign(b"text")) == identity.pubkey


def test_a_secret_never_prints_itself() -> None:
    secret = bytes(range(1, 33))
    assert secret.hex()[:8] not in repr(Identity(secret))
    assert Identity(secret).secret == secret
