import base64
import os
import ssl
from pathlib import Path

import pytest
from tests.lnd.fake import ALICE, bake

from impervious.config import LndConfig
from impervious.errors import ConfigError
from impervious.lnd import Credentials, read_credentials

CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBhTCCASugAwIBAgIQIRi6zePL6mKjOipn+dNuaTAKBggqhkjOPQQDAjASMRAw
DgYDVQQKEwdBY21lIENvMB4XDTE3MTAyMDE5NDMwNloXDTE4MTAyMDE5NDMwNlow
EjEQMA4GA1UEChMHQWNtZSBDbzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD0d
7VNhbWvZLWPuj/RtHFjvtJBEwOkhbN/BnnE8rnZR8+sbwnc/KhCk3FhnpHZnQz7B
5aETbbIgmuvewdjvSBSjYzBhMA4GA1UdDwEB/wQEAwICpDATBgNVHSUEDDAKBggr
BgEFBQcDATAPBgNVHRMBAf8EBTADAQH/MCkGA1UdEQQiMCCCDmxvY2FsaG9zdDo1
NDUzgg4xMjcuMC4wLjE6NTQ1MzAKBggqhkjOPQQDAgNIADBFAiEA2zpJEPQyz6/l
Wf86aX6PepsntZv2GYlA5UpabfT2EZICICpJ5h/iI+i341gBmLiAFQOyTDT+/wQc
6MF9+Yw1Yy0t
-----END CERTIFICATE-----
"""
"""An ECDSA certificate of Go's documentation (crypto/x509 examples)."""
MACAROON = bake(("info", "read"))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "tls.cert"
    path.write_text(CERTIFICATE)
    return path


@pytest.fixture
def macaroon(tmp_path: Path) -> Path:
    path = tmp_path / "admin.macaroon"
    path.write_bytes(MACAROON)
    return path


def test_files_are_read(certificate: Path, macaroon: Path) -> None:
    found = read_credentials(LndConfig(host="lnd.example", port=1, tls_cert=certificate, macaroon=macaroon))
    assert (found.host, found.port, found.address) == ("lnd.example", 1, "lnd.example:1")
    assert (found.certificate, found.macaroon, found.pubkey) == (CERTIFICATE, MACAROON, None)
    assert found.metadata() == {"macaroon": MACAROON.hex()}


def test_hex_is_read() -> None:
    config = LndConfig(tls_cert_hex=CERTIFICATE.encode().hex(), macaroon_hex=MACAROON.hex(), pubkey=ALICE.hex)
    found = read_credentials(config)
    assert (found.certificate, found.macaroon, found.pubkey) == (CERTIFICATE, MACAROON, ALICE)


def test_an_lndconnect_address_is_read() -> None:
    body = "".join(CERTIFICATE.splitlines()[1:-1]).translate(str.maketrans("+/", "-_")).rstrip("=")
    token = base64.urlsafe_b64encode(MACAROON).decode().rstrip("=")
    found = read_credentials(LndConfig(lndconnect=f"lndconnect://[2001:db8::1]:10010?cert={body}&macaroon={token}"))
    assert found.address == "[2001:db8::1]:10010"
    assert (found.certificate, found.macaroon) == (CERTIFICATE, MACAROON)


def test_without_anything_the_systems_roots_count_and_no_macaroon_is_sent() -> None:
    found = read_credentials(LndConfig())
    assert (found.certificate, found.macaroon, found.metadata()) == (None, None, {})
    assert found.ssl_context().get_ca_certs() == ssl.create_default_context().get_ca_certs()


def test_the_tls_context_trusts_this_certificate_alone(certificate: Path) -> None:
    context = read_credentials(LndConfig(tls_cert=certificate)).ssl_context()
    assert len(context.get_ca_certs()) == 1
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_home_directory_is_found(macaroon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(macaroon.parent))
    assert read_credentials(LndConfig(macaroon=Path("~/admin.macaroon"))).macaroon == MACAROON


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no certificate"),
        (b"hello", "holds no certificate"),
        (MACAROON, "holds no certificate"),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "holds a private key"),
        (CERTIFICATE.encode()[:200], "holds a damaged certificate"),
        (CERTIFICATE.replace("MIIBh", "MIIBx").encode(), "holds a damaged certificate"),
    ],
)
def test_a_certificate_that_is_none_names_its_setting(certificate: Path, content: bytes, words: str) -> None:
    certificate.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_credentials(LndConfig(tls_cert=certificate))
    assert str(caught.value).startswith(f"lightning.lnd_node.tls_cert: {certificate} ")


@pytest.mark.parametrize(
    "around",
    [
        "# Zertifikat für Alice, 証明書\n{}",
        "\ufeff{}",
        "{}\x00\x00",
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n{}",
        "{}{}",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_stands_around_a_certificate_does_not_matter(certificate: Path, around: str, encoding: str) -> None:
    certificate.write_bytes(around.format(CERTIFICATE, CERTIFICATE).encode(encoding) + b"\xe9\xff torn")
    found = read_credentials(LndConfig(tls_cert=certificate))
    assert found.certificate in (CERTIFICATE, CERTIFICATE * 2)
    assert len(found.ssl_context().get_ca_certs()) == 1


@pytest.mark.parametrize("at", [5, 40, 200, len(CERTIFICATE) - 5])
@pytest.mark.parametrize("byte", [b"\x00", b"\xc3", b"\xff"])
def test_a_torn_byte_in_a_certificate_is_an_error_of_the_configuration(certificate: Path, at: int, byte: bytes) -> None:
    raw = CERTIFICATE.encode()
    certificate.write_bytes(raw[:at] + byte + raw[at + 1 :])
    with pytest.raises(ConfigError, match=r"holds (a damaged|no) certificate"):
        read_credentials(LndConfig(tls_cert=certificate))


def test_a_certificate_in_utf_16_is_none(certificate: Path) -> None:
    certificate.write_bytes(CERTIFICATE.encode("utf-16"))
    with pytest.raises(ConfigError, match="holds no certificate"):
        read_credentials(LndConfig(tls_cert=certificate))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", MACAROON.hex().encode(), MACAROON[:10], MACAROON[:-1], MACAROON + b"\n", CERTIFICATE.encode()],
)
def test_a_macaroon_that_is_none_names_its_setting_and_stays_secret(macaroon: Path, content: bytes) -> None:
    macaroon.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no macaroon") as caught:
        read_credentials(LndConfig(macaroon=macaroon))
    assert str(caught.value).startswith(f"lightning.lnd_node.admin_macaroon: {macaroon} ")
    assert not content or content.decode("latin-1") not in str(caught.value)


@pytest.mark.parametrize(("field", "key"), [("tls_cert", "tls_cert"), ("macaroon", "admin_macaroon")])
def test_a_missing_file_and_a_folder_name_their_setting(tmp_path: Path, field: str, key: str) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=reason) as caught:
            read_credentials(LndConfig(**{field: path}))  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"lightning.lnd_node.{key}: cannot read {path}: ")


@pytest.mark.parametrize(("field", "key"), [("tls_cert", "tls_cert"), ("macaroon", "admin_macaroon")])
def test_a_pipe_a_device_and_a_huge_file_do_not_block(tmp_path: Path, field: str, key: str) -> None:
    pipe, huge = tmp_path / "pipe", tmp_path / "huge"
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    reasons = {pipe: "not a regular file", Path("/dev/zero"): "not a regular file", huge: "larger than 1 MiB"}
    for path, reason in reasons.items():
        with pytest.raises(ConfigError, match=reason) as caught:
            read_credentials(LndConfig(**{field: path}))  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"lightning.lnd_node.{key}: cannot read {path}: ")


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        ("tls_cert_hex", "zz", "tls_cert_hex is not hexadecimal"),
        ("tls_cert_hex", "00", "tls_cert_hex holds no certificate"),
        ("macaroon_hex", "zz", "admin_macaroon_hex is not hexadecimal"),
        ("macaroon_hex", "c0ffee", "admin_macaroon_hex holds no macaroon"),
        ("pubkey", "02" + "zz" * 32, "pub_key: pubkey is not hexadecimal"),
    ],
)
def test_values_that_are_wrong_name_their_setting_and_stay_secret(field: str, value: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"lightning.lnd_node.{key}") as caught:
        read_credentials(LndConfig(**{field: value}))  # type: ignore[arg-type]
    assert field == "pubkey" or value not in str(caught.value)


def test_credentials_do_not_print_the_macaroon() -> None:
    credentials = Credentials(host="h", port=1, certificate=None, macaroon=MACAROON)
    for text in (repr(credentials), str(credentials)):
        assert MACAROON.hex() not in text
        assert repr(MACAROON) not in text
