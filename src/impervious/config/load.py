"""A configuration file's text and the environment to a `Config`, or one line that says what is wrong.

Three steps: the text becomes values that know their place (tree), the environment is laid over them (environment), and
every value is read by the kind its setting declares (settings). What only shows when settings are seen together is
judged last (checks).
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from impervious.config.checks import check
from impervious.config.environment import SERVICE_LIST, overlay
from impervious.config.kinds import SERVICE_TYPE
from impervious.config.lndconnect import resolve_credentials
from impervious.config.schema import Kind, Section, Setting, Wrong, members, settings
from impervious.config.settings import DEFAULT_RECORD_TYPES, LIGHTNING, Config, LndConfig, ServiceConfig
from impervious.config.tree import parse
from impervious.config.values import Listing, Scalar, Table, Value, complain
from impervious.errors import ConfigError
from impervious.model import ServiceType

T = TypeVar("T")

_PLACEHOLDERS: Final = frozenset({"asdfasdfasdf", "YOUR_IMP_ID"})
_PLACEHOLDER_FOLDER: Final = "/path/to/"
_SHOWN: Final = 60
"""Characters of a wrong value that an error repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration that can be used."""

    config: Config
    """`lightning.lnd` has its lndconnect address taken apart. `~` in paths is for the caller to expand."""
    warnings: tuple[str, ...]
    """A line each, to be shown once at start."""


def load(text: str, environ: Mapping[str, str], source: str, *, needs_lnd: bool = True) -> Loaded:
    """Read a configuration.

    Args:
      text: the YAML file.
      environ: environment variables; those that begin with IMPERVIOUS_ win over the file.
      source: the file's name, for errors and warnings.
      needs_lnd: False for those who only want to look: missing LND credentials are then no error.

    Raises:
      ConfigError: one line with the file, the line or variable, the key, what is wrong, and what to do.
    """
    reader = _Reader()
    root = overlay(parse(text, source), environ)
    config = replace(reader.read(Config(), root, ()), services=reader.read_services(root))
    try:
        lnd = resolve_credentials(config.lightning.lnd)
        reader.warnings += _unused(config.lightning.lnd, lnd)
        config = replace(config, lightning=replace(config.lightning, lnd=lnd))
        reader.warnings += check(config, needs_lnd=needs_lnd)
    except ConfigError as error:
        raise complain(source, str(error)) from None
    return Loaded(config=config, warnings=tuple(f"{source}: {warning}" for warning in reader.warnings))


class _Reader:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def read(self, default: T, table: Table, above: tuple[str, ...]) -> T:
        """Read what a table says into a copy of a dataclass instance that holds the defaults."""
        known = {member.key: member for member in members(type(default))}
        changes: dict[str, object] = {}
        for key, value in table.entries.items():
            path = (*above, key)
            member = known.get(key)
            if member is None:
                if path == (SERVICE_LIST,):
                    continue
                raise _unknown_key(value.where, path, [*known, SERVICE_LIST] if not above else [*known])
            if isinstance(value, Scalar) and value.empty:
                continue
            if isinstance(member, Section):
                changes[member.name] = self.read(member.default, _as_table(value, path), path)
            elif not self._is_placeholder(member, value, path):
                changes[member.name] = _read(member.kind, value, path, secret=member.secret)
        return replace(default, **changes) if changes else default  # type: ignore[type-var] # members() has seen that it is a dataclass

    def _is_placeholder(self, setting: Setting, value: Value, path: tuple[str, ...]) -> bool:
        if setting.unset is None or not isinstance(value, Scalar):
            return False
        text = value.text
        told = text.startswith("<") and text.endswith(">")  # <replace this with …>, in published tutorials
        if text in _PLACEHOLDERS or text in setting.unset.samples or text.startswith(_PLACEHOLDER_FOLDER) or told:
            self.warnings.append(f"{_dotted(path)} still holds the sample's placeholder: {setting.unset.effect}")
            return True
        return False

    def read_services(self, root: Table) -> tuple[ServiceConfig, ...]:
        """Read `service_list`; services of ours that it leaves out come after those it names."""
        listed: dict[ServiceType, ServiceConfig] = {}
        value = root.entries.get(SERVICE_LIST)
        if value is not None and not (isinstance(value, Scalar) and value.empty):
            if not isinstance(value, Listing):
                raise complain(value.where, f"{SERVICE_LIST} must be a list, each entry beginning with - service_type:")
            for position, item in enumerate(value.items, start=1):
                entry = self._read_service(item, (f"{SERVICE_LIST}[{position}]",))
                if entry.service_type in listed:
                    raise complain(item.where, f"{SERVICE_LIST} has {entry.service_type} twice: keep one")
                listed[entry.service_type] = entry
        absent = (entry for entry in Config().services if entry.service_type not in listed)
        return (*listed.values(), *absent)

    def _read_service(self, item: Value, path: tuple[str, ...]) -> ServiceConfig:
        table = _as_table(item, path)
        value = table.entries.get("service_type")
        if value is None or (isinstance(value, Scalar) and value.empty):
            raise complain(item.where, f"{_dotted(path)} has no service_type: say which service it is about")
        service_type = _read(SERVICE_TYPE, value, (*path, "service_type"))
        default = ServiceConfig(service_type=service_type, record_type=DEFAULT_RECORD_TYPES.get(service_type))
        entry = self.read(default, table, path)
        if service_type == LIGHTNING and (entry.record_type is not None or not entry.active):
            self.warnings.append("service_list: lightning has no record number and is always on")
            return ServiceConfig(service_type=LIGHTNING, data=entry.data)
        if service_type not in (*DEFAULT_RECORD_TYPES, LIGHTNING):
            near = difflib.get_close_matches(service_type, DEFAULT_RECORD_TYPES, n=1)
            if near:
                self.warnings.append(f"service_list: {service_type} is not a service of ours; did you mean {near[0]}?")
        return entry


def _read(kind: Kind[T], value: Value, path: tuple[str, ...], *, secret: bool = False) -> T:
    try:
        return kind.read(value)
    except Wrong as wrong:
        shown = "" if secret or not isinstance(value, Scalar) else f", not {_short(value.text)}"
        hint = f" ({wrong})" if str(wrong) else ""
        raise complain(value.where, f"{_dotted(path)} must be {kind.says}{shown}{hint}") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _as_table(value: Value, path: tuple[str, ...]) -> Table:
    if isinstance(value, Table):
        return value
    raise complain(value.where, f"{_dotted(path)} must have keys below it, indented")


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _unknown_key(where: str, path: tuple[str, ...], known: list[str]) -> ConfigError:
    """Name the nearest key: beside the wrong one, else of that name elsewhere."""
    near = difflib.get_close_matches(path[-1], known, n=1)
    if near:
        hint = f"did you mean {_dotted((*path[:-1], near[0]))}?"
    else:
        elsewhere = [_dotted(other) for other, _ in settings(Config) if other[-1] == path[-1]]
        hint = f"did you mean {elsewhere[0]}?" if elsewhere else f"the keys here are {', '.join(known)}"
    return complain(where, f"{_dotted(path)} is not a known key; {hint}")


def _unused(given: LndConfig, used: LndConfig) -> list[str]:
    """Warn of settings that lose against what an lndconnect address, or the same in hex, holds."""
    lost = {
        "tls_cert": given.tls_cert != used.tls_cert,
        "tls_cert_hex": given.tls_cert_hex not in (None, used.tls_cert_hex),
        "admin_macaroon": given.macaroon != used.macaroon,
        "admin_macaroon_hex": given.macaroon_hex not in (None, used.macaroon_hex),
    }
    return [
        f"lightning.lnd_node.{key} is not used, because lndconnect or the same in hex is set: remove it"
        for key, is_lost in lost.items()
        if is_lost
    ]
