"""Which services a node has: those that come with it, those that are installed, those that a program passes.

An installed package brings a service by an entry point in group `impervious.services`:

    [project.entry-points."impervious.services"]
    kv = "my_package:KeyValueService"

Whatever is wrong with one is an error of configuration that names it: a node that silently lacks a service would take
other people's money for nothing.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import trio

from impervious.config import DEFAULT_RECORD_TYPES, LIGHTNING, Config, ServiceConfig, check_record_types
from impervious.errors import ConfigError
from impervious.model import STATUS, ServiceType
from impervious.service.contract import Service

GROUP: Final = "impervious.services"

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
"""As `service_list` takes them."""
_OURS: Final = frozenset({*DEFAULT_RECORD_TYPES, LIGHTNING})


def find_services(built_in: Sequence[type[Service]], given: Sequence[type[Service]]) -> list[type[Service]]:
    """List the services of a node, each once, those that come with it first.

    Args:
      built_in: those that come with it.
      given: those that a program passes.

    Raises:
      ConfigError: an installed one cannot be loaded, is none, or two have one name.
    """
    found: dict[ServiceType, type[Service]] = {}
    for each in (*built_in, *map(_load, entry_points(group=GROUP)), *given):
        other = found.setdefault(_name(each), each)
        if other is not each:
            raise ConfigError(
                f"two services are called {each.service_type}: {_place(other)} and {_place(each)}; remove one"
            )
    return list(found.values())


@trio.lowlevel.enable_ki_protection  # what is raised here was raised by the package, and is no control-C
def _load(entry: EntryPoint) -> type[Service]:
    try:
        loaded = entry.load()
    except BaseException as error:  # an import can fail in any way, and say sys.exit()
        raise ConfigError(  # noqa: ASYNC104 - synchronous
            f"the installed service {entry.name} ({entry.value}) cannot be loaded: {error!r}; mend its package or"
            " remove it"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Service)):
        raise ConfigError(f"the installed service {entry.name} ({entry.value}) is no subclass of Service")
    return loaded


def _name(service: type[Service]) -> ServiceType:
    name = getattr(service, "service_type", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == STATUS:
        raise ConfigError(
            f"{_place(service)} has no usable service_type: give it a name of small letters, digits, dots, dashes and"
            f" underscores that is not {STATUS!r}"
        )
    return ServiceType(name)


def _place(service: type[Service]) -> str:
    return f"{service.__module__}:{service.__qualname__}"


def with_entries(config: Config, services: Iterable[type[Service]]) -> Config:
    """Give every service an entry in `service_list`, with its own record number where the file names none.

    Raises:
      ConfigError: an entry is nobody's, or two services would share a record number.
    """
    entries = {entry.service_type: entry for entry in config.services}
    known = {service.service_type: service for service in services}
    for entry in config.services:
        if entry.active and entry.service_type not in known and entry.service_type not in _OURS:
            raise _nobodys(entry, known)
    for name, service in known.items():
        entry = entries.get(name) or ServiceConfig(service_type=name)
        entries[name] = replace(entry, record_type=service.record_type) if entry.record_type is None else entry
    completed = tuple(entries.values())
    check_record_types(completed)
    return replace(config, services=completed)


def _nobodys(entry: ServiceConfig, known: Iterable[str]) -> ConfigError:
    near = difflib.get_close_matches(entry.service_type, [*known, *_OURS], n=1)
    hint = f"did you mean {near[0]}?" if near else f"the services are {', '.join(sorted({*known, *_OURS}))}"
    return ConfigError(
        f"service_list has {entry.service_type}, and no installed package brings such a service: {hint} Install the"
        " package, correct the name, or set active: false"
    )
