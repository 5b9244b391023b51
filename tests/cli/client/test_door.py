from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from tests.rpc.certificates import make_certificate

from impervious.cli.client.door import add_door_arguments, door_of_config, door_of_url, find_door
from impervious.cli.exits import UsageError
from impervious.config import Address, Config, ServerConfig
from impervious.errors import ConfigError


def arguments(*argv: str) -> Namespace:
    parser = ArgumentParser()
    parser.set_defaults(config=None)
    add_door_arguments(parser)
    return parser.parse_args(argv)


def with_server(**server: object) -> Config:
    return replace(Config(), server=ServerConfig(**server))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8882", "http://127.0.0.1:8882"),
        ("127.0.0.1:8892/", "http://127.0.0.1:8892"),
        ("ws://node.example", "http://node.example:80"),
        ("https://node.example/imp/", "https://node.example:443/imp"),
        ("wss://[::1]:8882", "https://[::1]:8882"),
    ],
)
def test_a_url_in_every_form(given: str, url: str) -> None:
    assert door_of_url(given).url == url


@pytest.mark.parametrize(
    "given", ["", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://x:y", "x?since=1", "http://me:pw@x"]
)
def test_what_is_no_url(given: str) -> None:
    with pytest.raises(UsageError, match=r"--url .* is not the address of a daemon"):
        door_of_url(given)


@pytest.mark.parametrize(
    ("listens", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")],
)
def test_the_door_of_a_configuration(listens: str, reached: str) -> None:
    door = door_of_config(with_server(http_addr=Address(host=listens, port=8892)))
    assert door.address == Address(host=reached, port=8892)
    assert door.tls is None


def test_a_configuration_without_a_door() -> None:
    with pytest.raises(ConfigError, match="this daemon has no door"):
        door_of_config(with_server(enabled=False))
    with pytest.raises(ConfigError, match="say with --url"):
        door_of_config(with_server(http_addr=Address(host="127.0.0.1", port=0)))


def test_its_own_certificate_is_trusted_whatever_name_it_has(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, names=("node.example",))
    door = door_of_config(with_server(tls_cert=files.certificate, tls_key=files.key))
    assert door.url.startswith("https://")
    assert door.tls is not None
    assert not door.tls.check_hostname
    assert len(door.tls.get_ca_certs()) == 1  # nothing but it


def test_a_certificate_by_hand(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    door = door_of_url("https://localhost:1", str(files.certificate))
    assert door.tls is not None
    assert door.tls.check_hostname
    with pytest.raises(UsageError, match="begins with https"):
        door_of_url("http://localhost:1", str(files.certificate))
    with pytest.raises(ConfigError, match=r"--cacert .*key.pem holds no PEM certificate"):
        door_of_url("https://localhost:1", str(_text(tmp_path / "key.pem")))
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        door_of_url("https://localhost:1", str(tmp_path / "gone"))


def _text(path: Path) -> Path:
    path.write_text("hello")
    return path


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_door(arguments()).url == "http://127.0.0.1:8882"
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yml").write_text("server: {http_addr: 127.0.0.1:8892}\n")
    assert find_door(arguments()).url == "http://127.0.0.1:8892"
    (tmp_path / "a.yml").write_text("server: {http_addr: 127.0.0.1:8902}\n")
    named = arguments()
    named.config = "a.yml"
    assert find_door(named).url == "http://127.0.0.1:8902"
    assert find_door(arguments("--url", "http://x:7")).url == "http://x:7"
    named.config = "gone.yml"
    with pytest.raises(ConfigError, match="there is no such file"):
        find_door(named)
