import base64
import json
import re
from pathlib import Path

import pytest
import yaml

from impervious.config import Config, effective, load, reference, sample, show
from impervious.config.environment import variable
from impervious.config.render import plain
from impervious.config.schema import Setting, members, settings
from impervious.config.settings import ServiceConfig
from impervious.config.values import Plain

PUBKEY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
PEM_HEX = b"-----BEGIN CERTIFICATE-----".hex()
KEY = base64.b64encode(bytes(32)).decode()

OTHER = {
    "server.enabled": "false",
    "server.grpc_addr": "127.0.0.1:1",
    "server.http_addr": "127.0.0.1:2",
    "server.http_text_addr": "'[::1]:3'",
    "server.payload_encoding": "text",
    "server.tls_cert": "~/a.pem",
    "server.tls_key": "a.key",
    "server.cors_origins": "['https://a.example:8443']",
    "server.allowed_hosts": "[node.example.com, 10.1.1.1]",
    "server.allow_insecure": "true",
    "sqlite3.username": "root",
    "sqlite3.password": "hush",
    "sqlite3.path": "/data/imp.db",
    "lightning.lnd_node.ip": "lnd.example.com",
    "lightning.lnd_node.port": "10001",
    "lightning.lnd_node.pub_key": PUBKEY,
    "lightning.lnd_node.tls_cert": "~/.lnd/tls.cert",
    "lightning.lnd_node.tls_cert_hex": PEM_HEX,
    "lightning.lnd_node.admin_macaroon": "~/.lnd/admin.macaroon",
    "lightning.lnd_node.admin_macaroon_hex": "00ff",
    "lightning.lnd_node.lndconnect": "lndconnect://127.0.0.1:10009",
    "lightning.max_fee_sat": "11",
    "lightning.max_fee_ppm": "1",
    "lightning.payment_timeout_s": "61",
    "lightning.daily_limit_sat": "0",
    "message.max_bytes": "1000",
    "message.part_bytes": "901",
    "message.in_flight_per_peer": "17",
    "message.ttl_s": "43200",
    "message.max_fee_msat_per_part": "0",
    "message.min_amount_sat": "2",
    "message.accept_unsigned": "yes",
    "message.accept_from": "federated",
    "limits.auto_answers_per_hour": "0",
    "limits.auto_answer_fee_msat": "2",
    "limits.auto_answers_sat_per_day": "3",
    "limits.subscribers": "4",
    "limits.connections_per_address": "7",
    "limits.idempotency_days": "5",
    "limits.events_days": "6",
    "limits.events_mb": "7",
    "federate.ttl": "60",
    "federate.imp_id": "Alice Imp",
    "federate.accept": "ask",
    "federate.max_strangers": "8",
    "federate.names": f"[[Carol, {PUBKEY}], ['a, b', {PUBKEY}]]",
    "vpn.price": "99",
    "vpn.server_ip": "vpn.example.com",
    "vpn.server_port": "51821",
    "vpn.subnet": "10.1.0.0/16",
    "vpn.server_pub_key": KEY,
    "vpn.allowed_ips": "10.0.0.0/8, fd00::/8",
    "vpn.binary_path": "/usr/local/bin/wg",
    "vpn.dns": "1.1.1.1, 2606:4700:4700::1111",
    "vpn.interface": "wg1",
    "vpn.period_s": "5",
    "vpn.grace_s": "0",
    "vpn.max_hours": "1",
    "socket.server_ip": "192.0.2.1",
    "socket.ports": "[[1, 2], [3, 4]]",
    "socket.idle_timeout_s": "9",
    "socket.require_token": "true",
    "socket.packets_per_s": "11",
    "socket.bytes_per_s": "12",
    "log.level": "debug",
    "log.format": "console",
}
"""For every setting a value that is not its default, as one writes it in YAML."""

SETTINGS = {".".join(path): (path, setting) for path, setting in settings(Config)}
NEEDS_COMPANY = {"server.tls_cert", "server.tls_key"}


def nested(path: tuple[str, ...], value: str) -> str:
    return "\n".join("  " * depth + f"{key}:" for depth, key in enumerate(path)) + f" {value}\n"


def loaded(text: str, environ: dict[str, str] | None = None) -> Config:
    return load(text, environ or {}, "c.yml", needs_lnd=False).config


def attribute(config: Config, path: tuple[str, ...]) -> object:
    found: object = config
    for key in path:
        (member,) = (each for each in members(type(found)) if each.key == key)
        found = getattr(found, member.name)
    return found


def test_the_table_above_has_every_setting() -> None:
    assert OTHER.keys() == SETTINGS.keys()


@pytest.mark.parametrize("key", OTHER.keys() - NEEDS_COMPANY)
def test_every_setting_can_be_set_in_the_file_and_by_its_variable(key: str) -> None:
    path, setting = SETTINGS[key]
    by_file = loaded(nested(path, OTHER[key]))
    by_variable = loaded("", {variable(path): OTHER[key].strip("'")})
    assert by_file == by_variable
    assert attribute(by_file, path) != attribute(Config(), path) == setting.default


def test_what_is_shown_can_be_loaded_and_is_the_same() -> None:
    text = "".join(
        nested(path, OTHER[key])
        for key, (path, setting) in SETTINGS.items()
        if not setting.secret and not key.startswith("lightning.lnd_node")
    )
    merged: dict[str, dict[str, object]] = {}
    for document in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]:
        for section, keys in yaml.safe_load(document).items():
            merged.setdefault(section, {}).update(keys)
    config = loaded(yaml.safe_dump(merged))
    assert config != Config()
    assert loaded(show(config)) == config
    assert loaded(json.dumps(effective(config))) == config
    assert loaded(show(Config())) == Config()


def test_secrets_are_not_shown() -> None:
    text = "sqlite3: {password: hush}\nservice_list: [{service_type: x, additional_service_data: {key: hush}}]\n"
    shown = show(loaded(text + "lightning: {lnd_node: {admin_macaroon_hex: 00ff, lndconnect: 'lndconnect://h'}}"))
    assert "hush" not in shown
    assert "00ff" not in shown
    assert "lndconnect://" not in shown
    assert shown.count("'***'") == 4


def test_a_first_file_is_the_defaults() -> None:
    assert loaded(sample({})) == Config()


def test_a_first_file_uncommented_is_the_defaults() -> None:
    text = sample({})
    uncommented = re.sub(r"^( *)#(\w+:|  - \{)", r"\1\2", text, flags=re.MULTILINE)
    assert loaded(uncommented) == Config()
    # Not because nothing was uncommented: every setting stands there, and so do the services.
    given = yaml.safe_load(uncommented)
    for path in (path for path, _ in settings(Config)):
        below = given
        for key in path:
            below = below[key]
    assert len(given["service_list"]) == len(Config().services)


def test_a_first_file_holds_what_it_is_told_to() -> None:
    values: dict[str, Plain] = {
        "sqlite3.password": 'a: #"\n\t€ ',
        "lightning.lnd_node.tls_cert": "~/tls.cert",
        "vpn.price": 5,
    }
    config = loaded(sample({**values, "socket.ports": [[1, 2]]}))
    assert config.store.password == values["sqlite3.password"]
    assert config.lightning.lnd.tls_cert == Path("~/tls.cert")
    assert config.vpn.price_sat == 5
    assert config.socket.ports == ((1, 2),)
    assert max(map(len, sample(values).splitlines())) <= 120


def test_the_reference_in_the_docs_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "config.md").read_text("utf-8")
    _, _, rest = text.partition("<!-- made by scripts/config_reference.py -->\n")
    tables, end, _ = rest.partition("<!-- end -->\n")
    assert end
    assert tables == reference(), "run `just docs`"


def test_the_reference_has_every_key() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", reference(), flags=re.MULTILINE)
    entries = [f"service_list[].{member.key}" for member in members(ServiceConfig) if isinstance(member, Setting)]
    assert sorted(rows) == sorted([*SETTINGS, *entries])


def test_values_that_no_setting_has_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        plain({1})
    assert plain({1: (1.5, None)}) == {"1": [1.5, None]}
