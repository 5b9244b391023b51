import pytest

from impervious.config import Config, ServiceConfig, load
from impervious.errors import ConfigError
from impervious.model import RecordType, ServiceType

MESSAGE = ServiceType("message")


def config(text: str, environ: dict[str, str]) -> Config:
    return load(text, environ, "c.yml", needs_lnd=False).config


def error(environ: dict[str, str], text: str = "") -> str:
    with pytest.raises(ConfigError) as raised:
        config(text, environ)
    return str(raised.value)


def test_the_environment_wins() -> None:
    found = config("sqlite3: {password: file, path: /file}", {"IMPERVIOUS_SQLITE3__PASSWORD": "environment"})
    assert found.store.password == "environment"
    assert str(found.store.path) == "/file"


def test_it_reaches_places_the_file_does_not_have() -> None:
    environ = {"IMPERVIOUS_LIGHTNING__LND_NODE__PORT": "10010", "IMPERVIOUS_MESSAGE__ACCEPT_UNSIGNED": "true"}
    for text in ("", "lightning:", "lightning: {lnd_node: }"):
        found = config(text, environ)
        assert found.lightning.lnd.port == 10010
        assert found.message.accept_unsigned


def test_text_is_taken_as_it_is() -> None:
    for text in ("null", "{a: b}", "'quoted'", "# no comment", "*a", " spaced "):
        assert config("", {"IMPERVIOUS_SQLITE3__PASSWORD": text}).store.password == text


def test_an_empty_variable_restores_the_default() -> None:
    assert config("vpn: {price: 5}", {"IMPERVIOUS_VPN__PRICE": ""}) == Config()
    assert config("server: {cors_origins: [https://a.example]}", {"IMPERVIOUS_SERVER__CORS_ORIGINS": ""}) == Config()


def test_lists_are_yaml() -> None:
    environ = {
        "IMPERVIOUS_SERVER__CORS_ORIGINS": "[https://A.example, http://localhost:3000]",
        "IMPERVIOUS_SOCKET__PORTS": "[[1, 2], [3, 4]]",
    }
    found = config("", environ)
    assert found.server.cors_origins == ("https://a.example", "http://localhost:3000")
    assert found.socket.ports == ((1, 2), (3, 4))


class TestServices:
    def test_one_setting_of_a_listed_one(self) -> None:
        text = "service_list: [{service_type: vpn}, {service_type: message, custom_record_number: 700000}]"
        environ = {"IMPERVIOUS_SERVICE_LIST__MESSAGE__ACTIVE": "false"}
        entry = config(text, environ).service(MESSAGE)
        assert entry == ServiceConfig(service_type=MESSAGE, active=False, record_type=RecordType(700_000))

    @pytest.mark.parametrize("text", ["", "service_list:", "service_list: [{service_type: vpn}]"])
    def test_one_setting_of_an_unlisted_one(self, text: str) -> None:
        environ = {
            "IMPERVIOUS_SERVICE_LIST__MESSAGE__CUSTOM_RECORD_NUMBER": "700000",
            "IMPERVIOUS_SERVICE_LIST__MESSAGE__ADDITIONAL_SERVICE_DATA": "{a: 1}",
        }
        entry = config(text, environ).service(MESSAGE)
        assert entry == ServiceConfig(service_type=MESSAGE, record_type=RecordType(700_000), data={"a": 1})

    def test_the_whole_list_and_then_one(self) -> None:
        environ = {
            "IMPERVIOUS_SERVICE_LIST": "[{service_type: my-own.thing, custom_record_number: 700001}]",
            "IMPERVIOUS_SERVICE_LIST__MY_OWN_THING__ACTIVE": "no",
        }
        found = config("service_list: [{service_type: message, active: false}]", environ)
        assert found.service(MESSAGE).active
        assert not found.service(ServiceType("my-own.thing")).active

    def test_what_is_wrong_with_the_list_itself_is_said(self) -> None:
        environ = {"IMPERVIOUS_SERVICE_LIST__MESSAGE__ACTIVE": "no"}
        assert error(environ, "service_list: 5").startswith("c.yml:1: service_list must be a list")
        assert error(environ, "service_list: [5]").startswith("c.yml:1: service_list[1] must have keys")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("SQLITE3_PASSWORD", "secret", "two underscores go between the levels: write IMPERVIOUS_SQLITE3__PASSWORD"),
        ("LOG", "secret", "no setting has that name; did you mean IMPERVIOUS_LOG__LEVEL?"),
        ("MESSAGE__TTLS", "5", "no setting has that name; did you mean IMPERVIOUS_MESSAGE__TTL_S?"),
        ("X__Y", "5", "no setting has that name"),
        ("LIGHTNING__LND_NODE", "{}", "no setting has that name; did you mean IMPERVIOUS_LIGHTNING__LND_NODE__"),
        ("SERVICE_LIST__MESSAGE", "5", "after the service's name comes __ and one of ACTIVE, CUSTOM_RECORD_NUMBER"),
        ("SERVICE_LIST____ACTIVE", "5", "after the service's name comes __ and one of"),
        ("SERVICE_LIST__VPN__SERVICE_TYPE", "x", "after the service's name comes __ and one of"),
        ("LOG__LEVEL", "loud", "log.level must be one of debug, info, warning, error, not 'loud'"),
        ("SERVER__CORS_ORIGINS", "[a", "this is not YAML: expected"),
        ("SERVICE_LIST", "[{service_type: vpn, active: 2}]", "service_list[1].active must be true or false, not '2'"),
    ],
)
def test_what_is_wrong_names_the_variable(name: str, value: str, line: str) -> None:
    found = error({f"IMPERVIOUS_{name}": value})
    assert found.startswith(f"environment variable IMPERVIOUS_{name}: ")
    assert line in found
    assert "secret" not in found


def test_an_error_of_the_file_is_the_files() -> None:
    assert error({"IMPERVIOUS_SERVER__ENABLED": "no"}, "server: 5").startswith("c.yml:1: server must have keys")


def test_names_that_platforms_make_are_left_alone() -> None:
    environ = {
        "IMPERVIOUS_SERVICE_HOST": "10.0.0.1",
        "IMPERVIOUS_PORT_8882_TCP_ADDR": "10.0.0.1",
        "IMPERVIOUS_HOME": "/",
        "impervious_log__level": "debug",
    }
    assert config("", environ) == Config()
