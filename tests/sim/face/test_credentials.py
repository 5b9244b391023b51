import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from impervious.rpc import client_context, server_context
from impervious.sim.face.caveats import Caller
from impervious.sim.face.credentials import Credentials, make_certificate
from impervious.sim.face.macaroon import Macaroon
from impervious.sim.face.permissions import ADMIN, Permission

NOW = datetime(2026, 1, 1, tzinfo=UTC)

CALLER = Caller(host="127.0.0.1", now_s=0)


def test_files_are_made_once_and_kept(tmp_path: Path) -> None:
    first = Credentials.kept(tmp_path / "alice")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "alice").iterdir()}
    assert set(contents) == {"tls.cert", "tls.key", "admin.macaroon", "macaroon.key"}
    assert Credentials.kept(tmp_path / "alice") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "alice").iterdir()} == contents


def test_a_certificate_is_made_as_lnd_makes_it() -> None:
    pem, _ = make_certificate("host", NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["host", "localhost", "unix", "unixpacket", "bufconn"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.subject == certificate.issuer
    assert certificate.not_valid_after_utc - NOW == timedelta(days=420)
    assert certificate.not_valid_before_utc < NOW
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_a_long_host_name_still_gives_a_certificate() -> None:
    assert x509.load_pem_x509_certificate(make_certificate("h" * 70, NOW)[0])


def test_a_certificate_out_of_date_is_renewed_and_the_rest_stays(tmp_path: Path) -> None:
    first = Credentials.kept(tmp_path, now=NOW)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Credentials.kept(tmp_path, now=NOW + timedelta(days=419))
    assert first.certificate.read_bytes() == old["tls.cert"]
    Credentials.kept(tmp_path, now=NOW + timedelta(days=421))
    assert first.certificate.read_bytes() != old["tls.cert"]
    assert first.key.read_bytes() != old["tls.key"]
    assert first.macaroon.read_bytes() == old["admin.macaroon"]


def test_the_files_work_for_tls(tmp_path: Path) -> None:
    made = Credentials.kept(tmp_path)
    assert isinstance(server_context(made.certificate, made.key), ssl.SSLContext)
    assert client_context(made.certificate.read_text()).verify_mode is ssl.CERT_REQUIRED


def test_secrets_are_for_their_owner_only_and_do_not_print(tmp_path: Path) -> None:
    made = Credentials.kept(tmp_path)
    assert [oct(path.stat().st_mode & 0o777) for path in (made.key, made.macaroon, tmp_path / "macaroon.key")] == [
        "0o600"
    ] * 3
    assert made.root_key.hex() not in repr(made)
    assert repr(made.root_key) not in repr(made)


def test_macaroons_are_of_its_own_key(tmp_path: Path) -> None:
    made = Credentials.kept(tmp_path)
    admin = Macaroon.parse(made.macaroon.read_bytes())
    admin.check(made.root_key, CALLER)
    assert admin.permissions == ADMIN
    small = Macaroon.parse(made.bake(frozenset({Permission("info", "read")})))
    small.check(made.root_key, CALLER)
    assert small.permissions == {Permission("info", "read")}
