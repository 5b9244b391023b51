"""Every key, command, path and call that a page names is there: pages change more slowly than the code."""

import re
import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.server.house import config, open_app

from impervious.cli.registry import VERBS, find
from impervious.config import Config, ServiceConfig
from impervious.config.environment import PREFIX
from impervious.config.schema import Section, members

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
PATHS_BESIDE_CALLS: Final = frozenset({"/healthz", "/readyz", "/openapi.json", "/v1/subscribe", "/v1/x"})
FILES: Final = (".md", ".yml", ".py", ".db")

CODE: Final = re.compile(r"`+([^`]+?)`+")
FENCE: Final = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
KEY: Final = re.compile(r"(?<![\w./-])([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)(?=$|[\s:,;)\]])")
ROUTE: Final = re.compile(r"(?<![\w.~>-])/v1(?:/[A-Za-z_]+)+")
CALL: Final = re.compile(r"\b[a-z]+\.[A-Z][A-Za-z]*/[A-Z]\w*")
FIRST_CELL: Final = re.compile(r"^\| ([A-Z][a-z]+[A-Z]\w*(?:, [A-Z][a-z]+[A-Z]\w*)*) \|", re.MULTILINE)


def keys_of(cls: type, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Give every key of the configuration, sections included, dotted."""
    for member in members(cls):
        yield ".".join((*path, member.key))
        if isinstance(member, Section):
            yield from keys_of(type(member.default), (*path, member.key))


KEYS: Final = {*keys_of(Config), "service_list", *keys_of(ServiceConfig, ("service_list",))}
SECTIONS: Final = {key.partition(".")[0] for key in KEYS}


def named_keys(text: str) -> set[str]:
    """Find what a page calls by the name of a setting: code that begins with a section's name and is no package."""
    found = {key for each in CODE.findall(FENCE.sub("", text)) for key in KEY.findall(each)}
    ours = {key for key in found if key.partition(".")[0] in SECTIONS and not key.endswith(FILES)}
    return {key for key in ours if not (ROOT / "src" / "impervious").joinpath(*key.split(".")).exists()}


def missing_keys(text: str) -> set[str]:
    """Find keys of a page that are none."""
    return named_keys(text) - KEYS


def yaml_keys(text: str) -> set[str]:
    """Find the keys of the configurations that a page shows."""
    found = set[str]()
    for block in re.findall(r"```ya?ml\n(.*?)```", text, re.DOTALL):
        for section, below in (yaml.safe_load(block) or {}).items():
            found |= {f"{section}.{key}" for key in below} if isinstance(below, dict) else {section}
    return found


def variables(text: str) -> set[str]:
    """Find the environment variables of settings that a page names, as dotted keys."""
    found = re.findall(rf"{PREFIX}([A-Z0-9_]+__[A-Z0-9_]+)", text)
    return {each.lower().replace("__", ".") for each in found if not each.startswith("SERVICE_LIST")}


def commands(text: str) -> set[str]:
    """Find the commands of ours that a page names, in a line or on lines of their own."""
    inline = (each for each in CODE.findall(FENCE.sub("", text)))
    lines = (line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines())
    for_people = re.compile(r"^\s*(?:\$ |sudo |[A-Z_]+=\S+ )*(impervious (?!\S*[=(]).*)$")
    return {found[1].strip() for each in (*inline, *lines) if (found := for_people.match(each))}


def wrong_in(command: str) -> str:
    """Say what of a command there is not; empty: it can be typed.

    Values are free: the pages write `NONCE` and `…`. Names of verbs and of options are not.
    """
    words = shlex.split(re.split(r" [|>&]|;", command)[0])[1:]
    parser = ArgumentParser(prog="impervious", allow_abbrev=False)
    parser.add_argument("--config", "-config")
    while words and words[0] in ("--config", "-config"):
        words = words[2:]
    if not words or words[0] in ("--help", "--version"):
        return ""
    verb, *rest = words
    if verb == "VERB":
        return ""
    if verb not in {each.name for each in VERBS}:
        return f"there is no verb {verb}"
    find(verb).load().add_parser(parser)
    for word in rest:
        options, below = options_of(parser)
        if word.startswith("--") and word.partition("=")[0] not in options:
            return f"{verb} has no option {word}"
        if below is not None and not word.startswith("-"):
            if word not in below:
                return f"{verb} has no {word}"
            parser = below[word]
    return ""


def options_of(parser: ArgumentParser) -> tuple[set[str], dict[str, Any] | None]:
    below: dict[str, Any] | None = None
    options = set[str]()
    for action in parser._actions:
        options |= set(action.option_strings)
        if isinstance(action, _SubParsersAction):
            below = dict(action.choices)
    return options, below


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_settings_are_there(page: Path) -> None:
    text = page.read_text()
    assert missing_keys(text) == set()
    assert variables(text) <= KEYS
    assert yaml_keys(text) <= KEYS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_are_there(page: Path) -> None:
    assert {each: wrong for each in commands(page.read_text()) if (wrong := wrong_in(each))} == {}


async def test_their_paths_and_calls_are_there(tmp_path: Path) -> None:
    async with open_app(config(tmp_path)) as inside:
        paths = {row.path.lstrip("/") for row in inside.doors.table}
        routes = {row.route for row in inside.doors.table} | PATHS_BESIDE_CALLS
    calls = {path.rpartition("/")[2] for path in paths}
    within = {route.rpartition("/")[0] for route in routes}
    for page in PAGES:
        text = page.read_text()
        named = {each for each in ROUTE.findall(text) if not each.startswith("/v1/x/")}
        assert named - routes - within == set(), page.name
        assert set(CALL.findall(text)) - paths - {"websocket.Websocket/Subscribe"} == set(), page.name
        first = {name for cell in FIRST_CELL.findall(text) for name in cell.split(", ")}
        assert {name for name in first if name not in calls} == set(), page.name


def test_what_is_wrong_is_found() -> None:
    assert missing_keys("`federate.ttl_s` says, `federate.ttl`, `vpn.nothing: 3`, `log.md`") == {
        "federate.ttl_s",
        "vpn.nothing",
    }
    assert wrong_in("impervious db shw") == "db has no shw"
    assert wrong_in("impervious tial --since 0") == "there is no verb tial"
    assert wrong_in("impervious vpn buy KEY --hour 3") == "vpn has no option --hour"
    assert wrong_in("impervious --config x config check") == ""
    assert commands("`impervious db show` and\n```sh\n$ sudo impervious vpn \\\n  check | cat\n```") == {
        "impervious db show",
        "impervious vpn    check | cat",
    }
