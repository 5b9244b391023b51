import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import ConfigError, Malformed
from impervious.wireguard import ClientConfig, PresharedKey, PrivateKey, interface_name, write_private

MINE = PrivateKey(bytes([1]) * 32)
SERVER = PrivateKey(bytes([2]) * 32).public
SECRET = PresharedKey(bytes([3]) * 32)

RECEIVED = {
    "address": "10.0.0.2/32",
    "dns": "10.0.0.1,fd00::1",
    "server_key": SERVER.text,
    "preshared_key": SECRET.text,
    "allowed_ips": "0.0.0.0/0,::/0",
    "endpoint": "[2001:db8::1]:51820",
}


def received(**changed: str) -> ClientConfig:
    return ClientConfig.received(MINE, **{**RECEIVED, **changed})


def test_the_file() -> None:
    assert received().text() == (
        f"[Interface]\nPrivateKey = {MINE.text}\nAddress = 10.0.0.2/32\nDNS = 10.0.0.1, fd00::1\nMTU = 1420\n\n"
        f"[Peer]\nPublicKey = {SERVER.text}\nPresharedKey = {SECRET.text}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
        "Endpoint = [2001:db8::1]:51820\nPersistentKeepalive = 25\n"
    )


def test_what_may_be_missing() -> None:
    text = received(dns="", preshared_key="", address="fd00::2").text()
    assert "DNS" not in text
    assert "PresharedKey" not in text
    assert "Address = fd00::2/128\n" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", ""),
        ("address", "10.0.0.0/24"),
        ("address", "10.0.0.2/0"),
        ("address", "10.0.0.2/"),
        ("address", "127.0.0.1"),
        ("address", "fd00::2/32"),
        ("dns", "resolver.example.com"),
        ("server_key", "x"),
        ("preshared_key", "x"),
        ("allowed_ips", ""),
        ("endpoint", "203.0.113.1"),
    ],
)
def test_a_sellers_mistake_is_told_as_one(field: str, value: str) -> None:
    with pytest.raises(Malformed, match=r"the seller's configuration cannot be used: .") as caught:
        received(**{field: value})
    assert SECRET.text not in str(caught.value)


hostile = st.one_of(
    st.text(max_size=60),
    st.sampled_from(sorted(RECEIVED.values())).flatmap(
        lambda good: st.sampled_from(["\n", "\r", "\u2028", "\x0b", "#", ";", "=", " ", "%", "%0\n"]).map(
            lambda mark: f"{good}{mark}PostUp = id"
        )
    ),
    st.sampled_from(["fe80::1%x\nPostUp = id", "[fe80::1%x\nPostUp = id]:1", "10.0.0.2,\nPostUp = id"]),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(RECEIVED, hostile)))
def test_a_seller_cannot_put_a_line_into_the_file(changed: dict[str, str]) -> None:
    """`wg-quick` runs as root, and would run what `PostUp` says."""
    try:
        text = received(**changed).text()
    except Malformed:
        return
    keys = [line.split(" = ")[0] for line in text.splitlines() if line and line[0] != "["]
    assert len(keys) == len(set(keys))
    assert {"PrivateKey", "Address", "MTU", "PublicKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"} <= set(keys)
    assert set(keys) <= {
        *("PrivateKey", "Address", "DNS", "MTU", "PublicKey", "PresharedKey"),
        *("AllowedIPs", "Endpoint", "PersistentKeepalive"),
    }
    assert text.isascii()
    assert "PostUp" not in text
    assert "#" not in text


def test_a_configuration_does_not_print_its_secrets() -> None:
    assert MINE.text not in repr(received())
    assert SECRET.text not in repr(received())


@given(st.text())
def test_an_interface_name_is_one_that_linux_and_wg_quick_take(contract: str) -> None:
    name = interface_name(contract)
    assert len(name) <= 15
    assert name.replace("-", "").isalnum()
    assert name.isascii()
    assert name == interface_name(contract)


def test_contracts_have_interfaces_of_their_own() -> None:
    assert len({interface_name(f"contract {number}") for number in range(500)}) == 500


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "imp-12345678.conf"
    write_private(path, "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    write_private(path, "two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "imp-12345678.conf"
    taken.mkdir()
    (taken / "inside").touch()
    with pytest.raises(ConfigError, match=r"imp-12345678\.conf: cannot be written: "):
        write_private(taken, "one")
    assert [each.name for each in tmp_path.iterdir()] == [taken.name]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_private(taken / "inside" / "below", "one")
