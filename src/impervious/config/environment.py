"""Settings from the environment, laid over those of the file.

`IMPERVIOUS_` and the path in capitals, `__` between levels: IMPERVIOUS_SQLITE3__PASSWORD. A setting that is a word or a
number takes the variable's text as it is; one that is a list takes YAML. One service's entry is reached by its name,
IMPERVIOUS_SERVICE_LIST__MESSAGE__ACTIVE, and IMPERVIOUS_SERVICE_LIST replaces the list. An empty variable restores the
default.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Final

from impervious.config.schema import Section, Setting, members, settings
from impervious.config.settings import Config, ServiceConfig
from impervious.config.tree import parse_value
from impervious.config.values import Listing, Scalar, Table, Value, complain
from impervious.errors import ConfigError

PREFIX: Final = "IMPERVIOUS_"
LEVEL: Final = "__"
SERVICE_LIST: Final = "service_list"


def variable(path: tuple[str, ...]) -> str:
    """Name the environment variable of a setting."""
    return PREFIX + LEVEL.join(path).upper()


_SETTINGS: Final = {variable(path): (path, setting) for path, setting in settings(Config)}
_ENTRY_SETTINGS: Final = {member.key: member for member in members(ServiceConfig) if isinstance(member, Setting)}
_FLAT: Final = {name.replace(LEVEL, "_"): name for name in _SETTINGS}
"""With one underscore where two belong: the mistake that would leave a database without its password."""
_SECTIONS: Final = frozenset(variable((member.key,)) for member in members(Config) if isinstance(member, Section))


def overlay(file: Table, environ: Mapping[str, str]) -> Table:
    """Put what the environment says over what the file says.

    Variables that begin with the prefix and have no `__` are left alone unless they are a slip: container platforms
    make such names (IMPERVIOUS_SERVICE_HOST) for a service called impervious.

    Raises:
      ConfigError: a variable names no setting, or is not YAML where it must be.
    """
    root = _copy(file)
    for name in sorted(environ):  # service_list itself comes before its entries
        if name.startswith(PREFIX):
            _apply(root, name, environ[name])
    return root


def _apply(root: Table, name: str, text: str) -> None:
    where = f"environment variable {name}"
    if name == variable((SERVICE_LIST,)):
        root.entries[SERVICE_LIST] = parse_value(text, where, numbered=False)
    elif name in _SETTINGS:
        path, setting = _SETTINGS[name]
        _put(root, path, _value(setting, text, where))
    elif name.startswith(variable((SERVICE_LIST, ""))):
        _apply_to_service(root, name, text, where)
    elif LEVEL in name or name in _FLAT or name in _SECTIONS:
        raise _unknown(name, where)


def _value(setting: Setting, text: str, where: str) -> Value:
    if setting.kind.is_list:
        return parse_value(text, where, numbered=False)
    return Scalar(where, text, text or None)


def _unknown(name: str, where: str) -> ConfigError:
    if name in _FLAT:
        return complain(where, f"two underscores go between the levels: write {_FLAT[name]}")
    near = difflib.get_close_matches(name, _SETTINGS, n=1, cutoff=0.6)
    return complain(where, "no setting has that name" + (f"; did you mean {near[0]}?" if near else ""))


def _apply_to_service(root: Table, name: str, text: str, where: str) -> None:
    service, _, key = name.removeprefix(variable((SERVICE_LIST, ""))).lower().partition(LEVEL)
    if not service or key not in _ENTRY_SETTINGS or key == "service_type":
        keys = ", ".join(key.upper() for key in _ENTRY_SETTINGS if key != "service_type")
        raise complain(where, f"after the service's name comes {LEVEL} and one of {keys}")
    entries = root.entries.get(SERVICE_LIST)
    if entries is None or (isinstance(entries, Scalar) and entries.empty):
        entries = Listing(where, ())
    if not isinstance(entries, Listing):
        return  # the loader says what is wrong with it
    entry = next((item for item in entries.items if _is_entry_of(item, service)), None)
    if entry is None:
        entry = Table(where, {"service_type": Scalar(where, service, service)})
        entries = Listing(entries.where, (*entries.items, entry))
    if isinstance(entry, Table):
        entry.entries[key] = _value(_ENTRY_SETTINGS[key], text, where)
    root.entries[SERVICE_LIST] = entries


def _is_entry_of(item: Value, service: str) -> bool:
    """Whether an entry is that service's, as far as a variable's name can spell it."""
    if not isinstance(item, Table):
        return False
    service_type = item.entries.get("service_type")
    return isinstance(service_type, Scalar) and re.sub(r"[.-]", "_", service_type.text) == service


def _put(table: Table, path: tuple[str, ...], value: Value) -> None:
    key, *rest = path
    if not rest:
        table.entries[key] = value
        return
    below = table.entries.get(key)
    if below is None or (isinstance(below, Scalar) and below.empty):
        below = table.entries[key] = Table(value.where, {})
    if isinstance(below, Table):  # anything else is an error of the file, which the loader names
        _put(below, tuple(rest), value)


def _copy(value: Table) -> Table:
    """Copy what may be written to: an anchor can make one table stand in two places."""
    entries: dict[str, Value] = {}
    for key, below in value.entries.items():
        match below:
            case Table():
                entries[key] = _copy(below)
            case Listing():
                items = (_copy(item) if isinstance(item, Table) else item for item in below.items)
                entries[key] = Listing(below.where, tuple(items))
            case Scalar():
                entries[key] = below
    return Table(value.where, entries)
