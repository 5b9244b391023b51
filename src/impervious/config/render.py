"""A configuration back to text: as it is in effect, as a first file, and as the reference in docs/config.md.

All three are made from what the settings say about themselves, so that none of them can fall behind.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml

from impervious.config.address import Address
from impervious.config.environment import SERVICE_LIST, variable
from impervious.config.kinds import BOOL, TEXT
from impervious.config.schema import Section, Setting, members
from impervious.config.settings import Config, ServiceConfig
from impervious.config.values import Plain

HIDDEN: Final = "***"
_WIDTH: Final = 110
_HEAD: Final = """\
Configuration of an Impervious node.

A line that begins with # and a key shows a default: remove the # to change it. Every setting can come from the
environment instead, which then wins: {example}, for example.
Check this file with `impervious config check`, and see what is in effect with `impervious config show`."""


def plain(value: object) -> Plain:
    """Turn a setting's value into what YAML and JSON can write."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple() | list():
            return [plain(item) for item in value]
        case Address() | Path():
            return str(value)
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case _:
            raise TypeError(f"a setting cannot hold a {type(value).__name__}")


def effective(config: Config) -> dict[str, Plain]:
    """Give a configuration by the keys of the file, with secrets hidden."""
    shown: dict[str, Plain] = {}
    for key, value in _shown(config).items():
        shown[key] = value
        if key == "sqlite3":  # where the published file has it
            shown[SERVICE_LIST] = [_shown_service(entry) for entry in config.services]
    return shown


def _shown_service(entry: ServiceConfig) -> Plain:
    return dict(_shown(entry))


def _shown(instance: object) -> dict[str, Plain]:
    shown: dict[str, Plain] = {}
    for member in members(type(instance)):
        value: object = getattr(instance, member.name)
        if isinstance(member, Section):
            shown[member.key] = _shown(value)
        elif member.secret and value is not None:
            shown[member.key] = HIDDEN
        else:
            shown[member.key] = plain(value)
    return shown


def show(config: Config) -> str:
    """Write a configuration as YAML, with secrets hidden."""
    return yaml.safe_dump(effective(config), sort_keys=False, allow_unicode=True, width=_WIDTH)


def sample(values: Mapping[str, Plain]) -> str:
    """Write a first configuration file, with a comment for every setting.

    Args:
      values: dotted key -> what to set; all other settings are shown as comments with their defaults.
    """
    head = _HEAD.format(example=variable(("sqlite3", "password")))
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for member in members(Config):
        if isinstance(member, Section):
            lines += ["", *_sample_section(member, values, (member.key,))]
        if member.key == "sqlite3":
            lines += ["", *_sample_services()]
    return "\n".join(lines) + "\n"


def _sample_section(section: Section, values: Mapping[str, Plain], path: tuple[str, ...]) -> Iterator[str]:
    indent = "  " * len(path)
    yield from _comment(section.meaning, indent[2:])
    yield f"{indent[2:]}{section.key}:"
    for member in members(type(section.default)):
        below = (*path, member.key)
        if isinstance(member, Section):
            yield from _sample_section(member, values, below)
            continue
        yield from _comment(_described(member), indent)
        dotted = ".".join(below)
        if dotted in values:
            yield f"{indent}{member.key}: {_flow(values[dotted])}"
        else:
            yield f"{indent}#{member.key}: {_flow(plain(member.default))}".rstrip()


def _sample_services() -> Iterator[str]:
    yield from _comment(
        "One entry for each service. One that is not listed is active with its published number. Keys of an entry:", ""
    )
    for member in members(ServiceConfig):
        yield from _comment(f"{member.key}: {member.meaning}", "", "  ")
    yield f"#{SERVICE_LIST}:"
    for entry in Config().services:
        yield f"#  - {_flow(_shown_service(entry))}"


def _described(member: Setting) -> str:
    if member.kind in (BOOL, TEXT):  # its default, or its absence, says it
        return member.meaning
    return f"{member.meaning} {member.kind.says[0].upper()}{member.kind.says[1:]}."


def _comment(text: str, indent: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width=_WIDTH,
        initial_indent=f"{indent}# {hanging}",
        subsequent_indent=f"{indent}# {hanging}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _flow(value: Plain) -> str:
    """Write a value on one line; nothing for null, which leaves a key empty."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False).strip()
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value)  # which YAML reads, and which keeps a line break on the line
    return yaml.safe_dump(value, width=10**6, allow_unicode=True).partition("\n")[0]


def reference() -> str:
    """Write the tables of docs/config.md: every key, what it may be, its default and meaning."""
    lines: list[str] = []
    for member in members(Config):
        if isinstance(member, Section):
            lines += _table(member, (member.key,))
        if member.key == "sqlite3":
            lines += _services_table()
    return "\n".join(lines)


_TABLE_HEAD: Final = ("", "| key | value | default | meaning |", "|---|---|---|---|")


def _table(section: Section, path: tuple[str, ...]) -> Iterator[str]:
    inner = members(type(section.default))
    yield from (f"### {'.'.join(path)}", "", section.meaning, *_TABLE_HEAD)
    for member in inner:
        if isinstance(member, Setting):
            yield _row(".".join((*path, member.key)), member)
    yield ""
    for member in inner:
        if isinstance(member, Section):
            yield from _table(member, (*path, member.key))


def _services_table() -> Iterator[str]:
    yield from (f"### {SERVICE_LIST}", "", "A list with one entry for each service; all that are absent are active.")
    yield from _TABLE_HEAD
    for member in members(ServiceConfig):
        if isinstance(member, Setting):
            yield _row(f"{SERVICE_LIST}[].{member.key}", member)
    yield ""


def _row(key: str, member: Setting) -> str:
    default = _flow(plain(member.default)) if member.default not in (None, ()) else ""
    cells = (f"`{key}`", member.kind.says, f"`{default}`" if default else "none", member.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
