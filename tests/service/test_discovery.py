from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
from tests.service.toys import EchoService

from impervious.config import Config, ServiceConfig
from impervious.errors import ConfigError
from impervious.model import RecordType, ServiceType
from impervious.service import Service, discovery
from impervious.service.discovery import find_services, with_entries
from impervious.services.built_in import BUILT_IN
from impervious.services.message import MessageService


class Another(Service):
    service_type = ServiceType("echo")


class Nameless(Service):
    pass


class BadlyNamed(Service):
    service_type = ServiceType("Not a name")


class Status(Service):
    service_type = ServiceType("status")


def installed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry = EntryPoint(name="echo", value=value, group=discovery.GROUP)
    monkeypatch.setattr(discovery, "entry_points", lambda *, group: [entry] if group == discovery.GROUP else [])


def test_services_come_from_three_places_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_services(BUILT_IN, [EchoService]) == [*BUILT_IN, EchoService]
    installed(monkeypatch, "tests.service.toys:EchoService")
    assert find_services(BUILT_IN, []) == [*BUILT_IN, EchoService]
    assert find_services(BUILT_IN, [EchoService]) == [*BUILT_IN, EchoService]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("tests.service.nothing:EchoService", "echo .*cannot be loaded.*mend"),
        ("tests.service.toys:Nothing", "cannot be loaded"),
        ("tests.service.toys:Heard", "no subclass of Service"),
        ("tests.service.test_discovery:Another", "two services are called echo: .*Another.*EchoService"),
    ],
)
def test_an_installed_service_that_cannot_work_is_named(monkeypatch: pytest.MonkeyPatch, value: str, says: str) -> None:
    installed(monkeypatch, value)
    with pytest.raises(ConfigError, match=says):
        find_services(BUILT_IN, [EchoService])


@pytest.mark.parametrize("service", [Nameless, BadlyNamed, Status])
def test_a_name_that_cannot_be_one_is_refused(service: type[Service]) -> None:
    with pytest.raises(ConfigError, match=f"{service.__name__} has no usable service_type"):
        find_services(BUILT_IN, [service])


def entry(name: str, number: int | None = None, *, active: bool = True) -> ServiceConfig:
    record_type = None if number is None else RecordType(number)
    return ServiceConfig(service_type=ServiceType(name), record_type=record_type, active=active)


def configured(*entries: ServiceConfig) -> Config:
    listed = {each.service_type for each in entries}
    return replace(
        Config(), services=(*entries, *(each for each in Config().services if each.service_type not in listed))
    )


def test_the_file_gives_the_number_or_else_the_service_does() -> None:
    assert with_entries(Config(), [EchoService]).service(ServiceType("echo")).record_type == 770_000
    for given, expected in ((entry("echo"), 770_000), (entry("echo", 99_999), 99_999)):
        assert with_entries(configured(given), [EchoService]).service(ServiceType("echo")).record_type == expected
    assert with_entries(configured(entry("echo", active=False)), [EchoService]).service(ServiceType("echo")) == replace(
        entry("echo", 770_000), active=False
    )
    assert with_entries(Config(), [MessageService]) == Config()


def test_two_services_with_one_number_are_named() -> None:
    with pytest.raises(ConfigError, match="message and echo the same custom_record_number 770000"):
        with_entries(configured(entry("message", 770_000)), [EchoService])


def test_an_entry_that_is_nobodys_is_an_error_unless_it_is_off() -> None:
    with pytest.raises(ConfigError, match=r"service_list has ecco, .* did you mean echo"):
        with_entries(configured(entry("ecco")), [EchoService])
    with pytest.raises(ConfigError, match="no installed package brings"):
        with_entries(configured(entry("quite-different")), [])
    with_entries(configured(entry("ecco", active=False)), [EchoService])
