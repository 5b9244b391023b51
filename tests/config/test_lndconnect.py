import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.config import LndConfig, load, parse_lndconnect, resolve_credentials
from impervious.errors import ConfigError

DER = b"\x30\x82" + bytes(range(256)) + b"\xfb\xff\xfe"
MACAROON = b"\x02\x01\x03lnd\xfb\xff\xfe"


def url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


URI = f"lndconnect://node.example.com:10010?cert={url64(DER)}&macaroon={url64(MACAROON)}"


def der_of(pem: bytes) -> bytes:
    first, *body, last, end = pem.split(b"\n")
    assert (first, last, end) == (b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"")
    assert all(len(line) <= 64 for line in body)
    return base64.b64decode(b"".join(body), validate=True)


def test_all_parts() -> None:
    held = parse_lndconnect(URI)
    assert (held.host, held.port) == ("node.example.com", 10010)
    assert held.certificate_hex is not None
    assert der_of(bytes.fromhex(held.certificate_hex)) == DER
    assert held.macaroon_hex == MACAROON.hex()
    assert MACAROON.hex() not in repr(held)


@given(st.binary(min_size=1), st.binary(max_size=300))
def test_any_bytes_survive(macaroon: bytes, rest: bytes) -> None:
    held = parse_lndconnect(f"lndconnect://h:1?macaroon={url64(macaroon)}&cert={url64(b'0' + rest)}")
    assert held.macaroon_hex == macaroon.hex()
    assert held.certificate_hex is not None
    assert der_of(bytes.fromhex(held.certificate_hex)) == b"0" + rest


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("lndconnect://10.0.0.1", "10.0.0.1", 10009),
        ("lndconnect://[2001:db8::1]:5", "2001:db8::1", 5),
        (" lndconnect://Node.Local:5/ ", "node.local", 5),
        ("lndconnect://abcdefghijklmnop.onion:5?", "abcdefghijklmnop.onion", 5),
    ],
)
def test_hosts_and_ports(uri: str, host: str, port: int) -> None:
    held = parse_lndconnect(uri)
    assert (held.host, held.port) == (host, port)
    assert (held.certificate_hex, held.macaroon_hex) == (None, None)


def test_standard_base64_is_read_too() -> None:
    text = base64.b64encode(MACAROON).decode()
    assert "+" in text
    assert "/" in text
    assert parse_lndconnect(f"lndconnect://h?macaroon={text}").macaroon_hex == MACAROON.hex()
    escaped = text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert parse_lndconnect(f"lndconnect://h?macaroon={escaped}").macaroon_hex == MACAROON.hex()


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("https://h:1?macaroon=secret", "begins with lndconnect://"),
        ("secret", "begins with lndconnect://"),
        ("lndconnect://", "no valid host and port"),
        ("lndconnect://h:99999", "no valid host and port"),
        ("lndconnect://h:0", "no valid host and port"),
        ("lndconnect://h:x", "no valid host and port"),
        ("lndconnect://[secret", "no valid host and port"),
        ("lndconnect://a b:1", "no valid host and port"),
        ("lndconnect://h:1?macaroon=secret!", "a macaroon that is not base64"),
        ("lndconnect://h:1?macaroon=s", "a macaroon that is not base64"),
        ("lndconnect://h:1?cert=secret~", "a certificate that is not base64"),
        (f"lndconnect://h:1?cert={url64(b'secret')}", "a certificate that is not one"),
    ],
)
def test_what_is_wrong_is_said_without_the_text(uri: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        parse_lndconnect(uri)
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"^c\.yml: .*" + problem):
        load("", {"IMPERVIOUS_LIGHTNING__LND_NODE__LNDCONNECT": uri}, "c.yml")


class TestPrecedence:
    def test_the_address_wins(self) -> None:
        given = LndConfig(
            host="10.9.9.9",
            port=9,
            tls_cert=Path("c"),
            tls_cert_hex="00",
            macaroon=Path("m"),
            macaroon_hex="00",
            lndconnect=URI,
        )
        found = resolve_credentials(given)
        assert (found.host, found.port) == ("node.example.com", 10010)
        assert (found.tls_cert, found.macaroon) == (None, None)
        assert found.macaroon_hex == MACAROON.hex()
        assert found.tls_cert_hex == parse_lndconnect(URI).certificate_hex

    def test_what_it_does_not_hold_comes_from_elsewhere(self) -> None:
        given = LndConfig(tls_cert=Path("c"), macaroon=Path("m"), lndconnect="lndconnect://h:1")
        assert resolve_credentials(given) == LndConfig(
            host="h", port=1, tls_cert=Path("c"), macaroon=Path("m"), lndconnect="lndconnect://h:1"
        )

    def test_hex_wins_over_files(self) -> None:
        given = LndConfig(tls_cert=Path("c"), tls_cert_hex="00", macaroon=Path("m"), macaroon_hex="01")
        assert resolve_credentials(given) == LndConfig(tls_cert_hex="00", macaroon_hex="01")

    def test_without_one_nothing_changes(self) -> None:
        given = LndConfig(tls_cert=Path("c"), macaroon=Path("m"))
        assert resolve_credentials(given) == given

    def test_the_loader_resolves_and_warns_of_the_losers(self) -> None:
        pem = b"-----BEGIN CERTIFICATE-----".hex()
        text = f"""
        lightning:
          lnd_node:
            tls_cert: ~/tls.cert
            tls_cert_hex: {pem}
            admin_macaroon: ~/admin.macaroon
            admin_macaroon_hex: 00ff
            lndconnect: {URI}
        """
        found = load(text, {}, "c.yml")
        assert found.config.lightning.lnd.macaroon_hex == MACAROON.hex()
        assert [warning.split()[1] for warning in found.warnings] == [
            f"lightning.lnd_node.{key}" for key in ("tls_cert", "tls_cert_hex", "admin_macaroon", "admin_macaroon_hex")
        ]
        assert "00ff" not in "".join(found.warnings)

    def test_it_is_credential_enough(self) -> None:
        environ = {"IMPERVIOUS_LIGHTNING__LND_NODE__LNDCONNECT": URI}
        assert load("", environ, "c.yml").warnings == ()
