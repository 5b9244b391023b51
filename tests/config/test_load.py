from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from impervious.config import (
    DEFAULT_RECORD_TYPES,
    SAMPLE_PASSWORD,
    Config,
    Loaded,
    ServiceConfig,
    load,
)
from impervious.errors import ConfigError
from impervious.model import RecordType, ServiceType

PUBLISHED = (Path(__file__).parent / "published.yml").read_text()
MACAROON = {"IMPERVIOUS_LIGHTNING__LND_NODE__ADMIN_MACAROON": "~/admin.macaroon"}


def loaded(text: str, **environ: str) -> Loaded:
    return load(text, environ, "c.yml", needs_lnd=False)


def config(text: str, **environ: str) -> Config:
    return loaded(text, **environ).config


def error(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(text, environ, "c.yml", needs_lnd=False)
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_nothing_gives_the_defaults() -> None:
    assert loaded("") == Loaded(config=Config(), warnings=())
    assert config("# only a comment\n") == Config()
    assert config("server:\nvpn: ~\nlog: ''\n") == Config()


class TestThePublishedFile:
    def test_it_works_with_nothing_but_the_lnd_block_changed(self) -> None:
        text = PUBLISHED.replace("/path/to/admin.macaroon", "/lnd/admin.macaroon")
        found = load(text.replace("/path/to/tls.cert", "/lnd/tls.cert"), {}, "config/config.yml").config
        assert found.server == Config().server
        assert found.store.username == "admin"
        assert found.store.password == SAMPLE_PASSWORD
        assert found.lightning.lnd.port == 10001
        assert found.lightning.lnd.pubkey is None
        assert found.lightning.lnd.macaroon == Path("/lnd/admin.macaroon")
        assert found.lightning.lnd.tls_cert == Path("/lnd/tls.cert")
        assert found.federate == Config().federate
        assert found.vpn == Config().vpn
        assert found.socket == Config().socket
        assert {entry.service_type: entry.record_type for entry in found.services} == DEFAULT_RECORD_TYPES
        assert all(entry.active and entry.data is None for entry in found.services)

    def test_each_placeholder_is_warned_about_once_with_its_cure(self) -> None:
        warnings = load(PUBLISHED, MACAROON, "config/config.yml").warnings
        assert [warning.removeprefix("config/config.yml: ").split()[0] for warning in warnings] == [
            "lightning.lnd_node.pub_key",
            "lightning.lnd_node.tls_cert",
            "federate.imp_id",
            "vpn.server_pub_key",
            "socket.server_ip",
            "sqlite3.password",
        ]
        assert "lncli getinfo" in warnings[0]
        assert "tls.cert" in warnings[1]
        assert "federation is off" in warnings[2]
        assert "nothing is sold" in warnings[3]
        assert "the relay is off" in warnings[4]
        assert "impervious db rekey" in warnings[5]
        assert not any(SAMPLE_PASSWORD in warning for warning in warnings)

    def test_only_missing_lnd_credentials_are_fatal(self) -> None:
        with pytest.raises(ConfigError, match=r"^c\.yml: lightning\.lnd_node\.admin_macaroon is not set: put the path"):
            load(PUBLISHED, {}, "c.yml")
        assert load(PUBLISHED, {}, "c.yml", needs_lnd=False).config.lightning.lnd.macaroon is None

    def test_numbers_may_be_in_quotes(self) -> None:
        quoted = "".join(
            f'{key}: "{value}"\n' if value.strip().isdigit() else line
            for line in PUBLISHED.splitlines(keepends=True)
            for key, _, value in [line.rstrip("\n").partition(": ")]
        )
        assert quoted.count('"') == 2 * 9
        assert load(quoted, MACAROON, "c.yml") == load(PUBLISHED, MACAROON, "c.yml")

    def test_the_stream_is_on_whether_listed_or_not(self) -> None:
        assert "websocket" not in PUBLISHED
        websocket = ServiceType("websocket")
        assert config(PUBLISHED).service(websocket) == ServiceConfig(
            service_type=websocket, record_type=RecordType(300_000)
        )
        off = "service_list: [{service_type: websocket, active: false, custom_record_number: 300000}]"
        assert not config(off).service(websocket).active

    def test_tutorial_placeholders_count_as_not_set(self) -> None:
        found = loaded("lightning: {lnd_node: {pub_key: <replace this with your pubkey>, tls_cert: '<path>'}}")
        assert found.config == Config()
        assert len(found.warnings) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("servr: {}", "c.yml:1: servr is not a known key; did you mean server?"),
        (
            "server:\n  enabled: true\n  grpc_adr: x",
            "c.yml:3: server.grpc_adr is not a known key; did you mean server.grpc_addr?",
        ),
        ("max_bytes: 5", "c.yml:1: max_bytes is not a known key; did you mean message.max_bytes?"),
        (
            "log: {zzz: 1}",
            "c.yml:1: log.zzz is not a known key; the keys here are level, format",
        ),
        ("qqq: 1", "c.yml:1: qqq is not a known key; the keys here are server, sqlite3, "),
        ("servicelist: []", "c.yml:1: servicelist is not a known key; did you mean service_list?"),
        (
            "lightning:\n  lnd_node:\n    pubkey: x",
            "c.yml:3: lightning.lnd_node.pubkey is not a known key; did you mean",
        ),
        ("server: 5", "c.yml:1: server must have keys below it, indented"),
        ("server: [1]", "c.yml:1: server must have keys below it, indented"),
        ("lightning: {lnd_node: 127.0.0.1}", "c.yml:1: lightning.lnd_node must have keys below it, indented"),
        ("server: {enabled: 1}", "c.yml:1: server.enabled must be true or false, not '1'"),
        ("server: {enabled: [true]}", "c.yml:1: server.enabled must be true or false (it is a list)"),
        ("server: {enabled: {a: 1}}", "c.yml:1: server.enabled must be true or false (it has keys below it)"),
        (
            "message:\n\n  ttl_s: 43201",
            "c.yml:3: message.ttl_s must be a whole number of seconds, from 1 to 43200, not '43201'",
        ),
        (
            "message: {part_bytes: 1101}",
            "c.yml:1: message.part_bytes must be a whole number of bytes, from 200 to 1100",
        ),
        ("lightning: {daily_limit_sat: -1}", "satoshis, from 0, not '-1'"),
        ("lightning: {daily_limit_sat: 10.5}", "not '10.5'"),
        ("lightning: {daily_limit_sat: " + "9" * 5000 + "}", "9…'"),
        ("vpn: {price: 010}", "not '010' (write it without the leading zero)"),
        (
            "vpn: {server_port: 0}",
            "vpn.server_port must be a port, from 1 to 65535, not '0' (ports go from 1 to 65535)",
        ),
        ("vpn: {server_port: 65536}", "not '65536'"),
        ("vpn: {server_pub_key: abc}", "a WireGuard public key, 44 characters of base64, not 'abc'"),
        ("vpn: {server_pub_key: AAAA}", "a WireGuard public key, 44 characters of base64, not 'AAAA'"),
        ("vpn: {subnet: 10.0.0.0/33}", "vpn.subnet must be a network"),
        ("vpn: {allowed_ips: '0.0.0.0/0, x'}", "vpn.allowed_ips must be networks"),
        ("vpn: {dns: 'none, 8.8.8.8'}", "vpn.dns must be IP addresses, separated by commas, or none"),
        ("vpn: {dns: resolver}", "vpn.dns must be IP addresses"),
        ("vpn: {interface: a/b}", "vpn.interface must be a network interface's name"),
        ("log: {level: loud}", "log.level must be one of debug, info, warning, error, not 'loud'"),
        ("lightning: {lnd_node: {ip: 'a b'}}", "lightning.lnd_node.ip must be a host name or an IP address, not 'a b'"),
        (
            "lightning: {lnd_node: {pub_key: abcd}}",
            "lightning.lnd_node.pub_key must be the node's 66 hex digits, not 'abcd' (pubkey has 4 characters",
        ),
        ("lightning: {lnd_node: {tls_cert_hex: 6162}}", "but not of a PEM certificate"),
        ("federate: {imp_id: " + "x" * 65 + "}", "federate.imp_id must be a name of at most 64 bytes"),
        ("socket: {ports: 6000}", "socket.ports must be a list of pairs of ports"),
        ("socket: {ports: [6000, 9000]}", "(number 1 is not a pair of ports, each pair has two ports)"),
        ("socket: {ports: [[6000, 9000], [6001, 9000]]}", "(a port is in it twice)"),
        ("socket: {ports: []}", "(give at least one pair)"),
        ("server: {cors_origins: ['*']}", "(number 1 is not an origin)"),
        ("server: {cors_origins: [https://a.example, https://b.example/]}", "(number 2 is not an origin)"),
        ("server: {cors_origins: https://a.example}", "(put it in brackets)"),
        ("server: {allowed_hosts: [http://a]}", "(number 1 is not a host name, leave the scheme out)"),
        ("server: {allowed_hosts: ['a:80']}", "(number 1 is not a host name, leave the port out)"),
        ("service_list: 5", "c.yml:1: service_list must be a list, each entry beginning with - service_type:"),
        ("service_list: [message]", "c.yml:1: service_list[1] must have keys below it, indented"),
        ("service_list:\n  - active: true", "c.yml:2: service_list[1] has no service_type"),
        ("service_list: [{service_type: }]", "service_list[1] has no service_type"),
        ("service_list: [{service_type: My Service}]", "service_list[1].service_type must be a name"),
        (
            "service_list: [{service_type: message, activ: true}]",
            "service_list[1].activ is not a known key; did you mean service_list[1].active?",
        ),
        (
            "service_list:\n  - service_type: vpn\n  - service_type: vpn",
            "c.yml:3: service_list has vpn twice: keep one",
        ),
        (
            "service_list: [{service_type: vpn, custom_record_number: 65535}]",
            "custom_record_number must be a whole number from 65536, not '65535'",
        ),
        ("service_list: [{service_type: vpn, custom_record_number: 106823}]", "that number is taken: LND"),
        ("service_list: [{service_type: vpn, custom_record_number: 5482373484}]", "that number is taken: it carries"),
        ("service_list: [{service_type: vpn, custom_record_number: 9223372036854775808}]", "from 65536, not '92"),
        (
            "service_list: [{service_type: vpn, custom_record_number: 400000}]",
            "c.yml: service_list gives vpn and message the same custom_record_number 400000",
        ),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(text: str, line: str) -> None:
    assert line in error(text)


class TestServices:
    def test_an_entry_keeps_what_it_does_not_say(self) -> None:
        found = config("service_list: [{service_type: message, active: false}]")
        assert found.services[0] == ServiceConfig(
            service_type=ServiceType("message"), active=False, record_type=RecordType(400_000)
        )
        assert len(found.services) == len(DEFAULT_RECORD_TYPES)

    def test_a_service_of_somebody_elses(self) -> None:
        found = loaded(
            "service_list: [{service_type: weather, custom_record_number: 700001,"
            " additional_service_data: {days: 5, when: 2024-01-01, key: '0123', ok: yes, list: [1.5, null]}}]"
        )
        entry = found.config.service(ServiceType("weather"))
        assert entry.record_type == 700_001
        assert entry.data == {"days": 5, "when": "2024-01-01", "key": "0123", "ok": True, "list": [1.5, None]}
        assert "0123" not in repr(entry)
        assert found.warnings == ()

    def test_a_name_close_to_one_of_ours_is_warned_about(self) -> None:
        (warning,) = loaded("service_list: [{service_type: mesage}]").warnings
        assert warning == "c.yml: service_list: mesage is not a service of ours; did you mean message?"

    def test_lightning_has_no_record_and_no_switch(self) -> None:
        found = loaded("service_list: [{service_type: lightning, active: false, custom_record_number: 400000}]")
        assert found.config.service(ServiceType("lightning")) == ServiceConfig(service_type=ServiceType("lightning"))
        assert found.warnings == ("c.yml: service_list: lightning has no record number and is always on",)
        assert loaded("service_list: [{service_type: lightning}]").warnings == ()

    def test_one_that_nobody_lists_is_on_without_a_record(self) -> None:
        assert Config().service(ServiceType("x")) == ServiceConfig(service_type=ServiceType("x"))

    def test_two_that_trade_their_numbers(self) -> None:
        found = config(
            "service_list: [{service_type: vpn, custom_record_number: 400000},"
            " {service_type: message, custom_record_number: 200000}]"
        )
        assert found.service(ServiceType("vpn")).record_type == 400_000


class TestWhatLooksLikeSomethingElse:
    @pytest.mark.parametrize("text", ["0123", "yes", "1e3", "12:30", "2024-01-01", "0x1F", "3.0"])
    def test_words_stay_as_written(self, text: str) -> None:
        assert config(f"sqlite3: {{password: {text}}}").store.password == text
        assert config("", IMPERVIOUS_SQLITE3__PASSWORD=text).store.password == text

    def test_quoted_null_is_a_word(self) -> None:
        assert config("sqlite3: {password: 'null'}").store.password == "null"
        assert config("sqlite3: {password: null}").store.password is None

    @pytest.mark.parametrize(("text", "value"), [("'true'", True), ("Yes", True), ("OFF", False), ("'no'", False)])
    def test_switches(self, text: str, value: bool) -> None:
        assert config(f"message: {{accept_unsigned: {text}}}").message.accept_unsigned is value

    def test_underscores_group_digits(self) -> None:
        assert config("lightning: {daily_limit_sat: +1_000_000}").lightning.daily_limit_sat == 1_000_000

    def test_a_tag_that_lies_is_no_crash(self) -> None:
        found = config(
            "service_list: [{service_type: x, additional_service_data: [!!int word, !!bool 5, " + "9" * 5000 + "]}]"
        )
        assert found.service(ServiceType("x")).data == ["word", "5", "9" * 5000]

    def test_an_anchor_may_stand_in_two_places(self) -> None:
        found = config("lightning: &a {}\nvpn: *a\nlog: {level: &l debug, format: json}", IMPERVIOUS_VPN__PRICE="7")
        assert (found.vpn.price_sat, found.log.level) == (7, "debug")


def test_secrets_are_not_repeated_by_errors() -> None:
    for key in ("admin_macaroon_hex", "lndconnect"):
        assert "topsecret" not in error(f"lightning: {{lnd_node: {{{key}: topsecret}}}}")
    assert "topsecret" not in error("sqlite3: {password: [topsecret]}")
    assert "topsecret" not in repr(config("sqlite3: {password: topsecret}"))


def read_or_refuse(text: str) -> str:
    """Give the refusal, if there is one."""
    try:
        loaded(text)
    except ConfigError as refused:
        return str(refused)
    return ""


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refusal = read_or_refuse(text)
    assert refusal == "" or refusal.startswith("c.yml")
    assert "\n" not in refusal


WORDS = """server sqlite3 service_list lightning lnd_node vpn socket ports port service_type enabled grpc_addr
    cors_origins price path custom_record_number log level tls_cert active"""
KEYS = st.sampled_from(WORDS.split())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["vpn", ":1"])
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_any_yaml_is_read_or_refused_in_one_line(data: dict[str, object]) -> None:
    assert "\n" not in read_or_refuse(yaml.safe_dump(data))
