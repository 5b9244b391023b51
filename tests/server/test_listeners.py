import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.server.house import ANY_PORT, config, open_doors, open_house

from impervious.config import Address, ServerConfig
from impervious.errors import ConfigError
from impervious.pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from impervious.rpc import client_context, open_channel
from impervious.server.listeners import load_certificates, open_listeners
from impervious.store.database import in_thread


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> Path:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    return path


def write_certificate(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    key = make_key()
    return write_certificate(tmp_path / "tls.cert", key), write_key(tmp_path / "tls.key", key)


async def test_ports_that_are_free_are_found_and_told() -> None:
    async with open_listeners(ServerConfig(grpc_addr=ANY_PORT, http_addr=ANY_PORT)) as listeners:
        found = listeners.addresses
        assert found.grpc.host == found.http.host == "127.0.0.1"
        assert 0 not in (found.grpc.port, found.http.port)
        assert found.http_text is None
        assert listeners.certificates is None


async def test_what_is_taken_is_given_back() -> None:
    async with open_listeners(ServerConfig(grpc_addr=ANY_PORT, http_addr=ANY_PORT)) as listeners:
        address = listeners.addresses.http
    again = ServerConfig(grpc_addr=ANY_PORT, http_addr=address)
    with pytest.raises(ConfigError, match="grpc_addr"):  # what came first must be given back when another fails
        await open_twice(ServerConfig(grpc_addr=address, http_addr=ANY_PORT), again)
    async with open_listeners(again) as listeners:
        assert listeners.addresses.http == address


async def open_twice(one: ServerConfig, other: ServerConfig) -> None:
    async with open_listeners(other), open_listeners(one):
        pass


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.1", "this machine has no such address"),
        ("no-such-host.invalid", "the name is not known here"),
    ],
)
async def test_addresses_that_cannot_be_had(host: str, words: str) -> None:
    wanted = ServerConfig(grpc_addr=ANY_PORT, http_addr=Address(host=host, port=1), allow_insecure=True)
    with pytest.raises(ConfigError, match=rf"server\.http_addr {host}:1.*{words}"):
        async with open_listeners(wanted):
            pass


async def test_strangers_are_not_let_in_by_mistake() -> None:
    wanted = ServerConfig(grpc_addr=ANY_PORT, http_addr=Address(host="0.0.0.0", port=0))
    with pytest.raises(ConfigError, match=r"server\.http_addr 0\.0\.0\.0:0 can be reached from other machines"):
        async with open_listeners(wanted):
            pass


def test_certificates_are_for_both_doors(pair: tuple[Path, Path]) -> None:
    found = load_certificates(*pair)
    assert found
    assert found.grpc is not found.http
    assert load_certificates(None, None) is None


def test_certificates_that_cannot_be_used(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pair
    other = write_key(tmp_path / "other.key", make_key())
    locked = write_key(tmp_path / "locked.key", make_key(), b"secret")
    garbage = tmp_path / "garbage"
    garbage.write_text("no PEM")
    cases = [
        (tmp_path / "none", key, r"server\.tls_cert: cannot read .*none: No such file"),
        (certificate, tmp_path, r"server\.tls_key: cannot read .*: Is a directory"),
        (certificate, locked, r"server\.tls_key .*locked\.key is encrypted: store it without a password"),
        (certificate, other, r"cannot be used together.*KEY_VALUES_MISMATCH"),
        (garbage, key, r"server\.tls_cert: .*garbage is not a PEM certificate"),
        (key, certificate, r"server\.tls_cert: .* is not a PEM certificate"),
        (certificate, garbage, r"server\.tls_key: .*garbage is not a PEM private key"),
    ]
    for one, two, words in cases:
        with pytest.raises(ConfigError, match=words):
            load_certificates(one, two)


async def test_both_doors_speak_tls(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    given = config(tmp_path, tls_cert=certificate, tls_key=key)
    async with open_house(given, run_sync=in_thread) as house, open_doors(house) as listeners:
        at = listeners.addresses
        assert at.http_text
        with trio.fail_after(10):
            for address in (at.http, at.http_text):
                context = ssl.create_default_context(cafile=certificate)
                context.set_alpn_protocols(["h2", "http/1.1"])
                stream = await trio.open_ssl_over_tcp_stream(
                    address.host, address.port, ssl_context=context, https_compatible=True
                )
                async with stream:
                    host = str(address).encode()
                    await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)
                    assert b'{"alive":true}' in b"".join([chunk async for chunk in stream])
                    assert stream.selected_alpn_protocol() == "http/1.1"
            context = client_context(certificate.read_text())
            async with open_channel(at.grpc.host, at.grpc.port, ssl_context=context) as channel:
                await HealthStub(channel).check(HealthCheckRequest())  # type: ignore[arg-type]
            async with await trio.open_tcp_stream(at.http.host, at.http.port) as plain:
                await plain.send_all(b"GET /healthz HTTP/1.1\r\n\r\n")
                assert b"alive" not in await plain.receive_some()
