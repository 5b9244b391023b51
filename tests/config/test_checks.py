import pytest

from impervious.config import Address, Loaded, load
from impervious.errors import ConfigError


def loaded(text: str) -> Loaded:
    return load(text, {}, "c.yml", needs_lnd=False)


def error(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(text)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", Address(host="127.0.0.1", port=1)),
        ("localhost:65535", Address(host="localhost", port=65535)),
        ("'[::1]:8881'", Address(host="::1", port=8881)),
        ("127.8.8.8:5", Address(host="127.8.8.8", port=5)),
    ],
)
def test_loopback_needs_nothing(text: str, address: Address) -> None:
    found = loaded(f"server: {{grpc_addr: {text}}}")
    assert found.config.server.grpc_addr == address
    assert str(address) == text.strip("'")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("'8881'", "it has no port"),
        ("'127.0.0.1:'", "not '127.0.0.1:'"),
        ("'127.0.0.1:x'", "not '127.0.0.1:x'"),
        ("'127.0.0.1:70000'", "ports go from 1 to 65535"),
        ("http://127.0.0.1:80", "leave the scheme out"),
        ("'::1:8881'", "put an IPv6 address in brackets"),
        ("'[127.0.0.1]:8881'", "only an IPv6 address goes in brackets"),
        ("'[x]:8881'", "only an IPv6 address goes in brackets"),
        ("'a b:8881'", "not 'a b:8881'"),
    ],
)
def test_addresses_that_are_none(text: str, hint: str) -> None:
    line = error(f"server: {{grpc_addr: {text}}}")
    assert "server.grpc_addr must be an address host:port" in line
    assert hint in line


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("grpc_addr", "0.0.0.0:1", "0.0.0.0:1"),
        ("http_addr", "':1'", "0.0.0.0:1"),
        ("http_text_addr", "'[::]:1'", "[::]:1"),
        ("http_addr", "node.example.com:1", "node.example.com:1"),
    ],
)
def test_beyond_this_machine_only_with_tls_or_by_saying_so(key: str, text: str, shown: str) -> None:
    line = error(f"server: {{{key}: {text}}}")
    assert f"server.{key} {shown} can be reached from other machines without TLS" in line
    assert "server.allow_insecure: true" in line
    insecure = loaded(f"server: {{{key}: {text}, allow_insecure: true}}")
    assert len(insecure.warnings) == 1
    secure = loaded(f"server: {{{key}: {text}, tls_cert: a.pem, tls_key: a.key}}")
    assert secure.warnings == ()


def test_doors_that_are_off_are_not_judged() -> None:
    assert not loaded("server: {enabled: no, http_addr: 0.0.0.0:1}").config.server.enabled


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_a_certificate_needs_its_key(given: str, missing: str) -> None:
    assert f"server.{missing} is not set" in error(f"server: {{{given}: a.pem}}")


@pytest.mark.parametrize(
    "text",
    ["http_addr: 127.0.0.1:8881", "http_text_addr: 127.0.0.1:8881", "http_addr: ':8881', allow_insecure: true"],
)
def test_two_doors_cannot_share_a_port(text: str) -> None:
    assert "both listen on port 8881" in error(f"server: {{{text}}}")


def test_one_port_on_two_addresses_is_fine() -> None:
    assert loaded("server: {http_addr: 127.0.0.2:8881}").config.server.http_addr.port == 8881
