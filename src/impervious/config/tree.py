"""YAML text to values that know where they stand.

PyYAML's composer gives nodes with their positions; going on from there instead of loading keeps the text of every
scalar as written, finds keys that are given twice, and never builds anything but words, lists and mappings.
"""

from typing import Final

import yaml

from impervious.config.values import Listing, Scalar, Table, Value, complain
from impervious.errors import ConfigError

_DEEPEST: Final = 50
"""Levels; an anchor that contains itself ends here."""

_TYPED_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))


def parse(text: str, source: str) -> Table:
    """Read a configuration file's text.

    Args:
      text: YAML.
      source: the file's name, for errors.

    Raises:
      ConfigError: it is not one YAML mapping, or a key is given twice.
    """
    root = parse_value(text, source)
    if isinstance(root, Table):
        return root
    if isinstance(root, Scalar) and root.empty:
        return Table(source, {})
    raise complain(root.where, "this is not a configuration: it must be a mapping that begins with a key like server:")


def parse_value(text: str, source: str, *, numbered: bool = True) -> Value:
    """Read any YAML.

    Args:
      text: YAML; nothing counts as null.
      source: what to name in errors.
      numbered: whether lines are named too; pointless for an environment variable.

    Raises:
      ConfigError: it is not YAML, or a key is given twice.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, source, numbered=numbered) from None
    except RecursionError:
        raise complain(source, "this YAML is nested too deeply") from None
    if node is None:
        return Scalar(source, "", None)
    return _Converter(source, numbered=numbered).convert(node, 0)


def _syntax_error(error: yaml.YAMLError, source: str, *, numbered: bool) -> ConfigError:
    """Say where and what, without the words that PyYAML quotes: an "undefined alias" may be somebody's password."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return complain(source, "this is not YAML text: it contains characters that cannot be printed")
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}" if mark and numbered else source
    problem = error.problem
    if r"'\t'" in problem:
        problem = "tabs cannot indent YAML: use spaces"
    elif any(word in f"{error.context} {problem}" for word in ("alias", "anchor", "tag")):
        problem = "text that begins with *, & or ! must be in quotes"
    elif "single document" in (error.context or ""):
        problem = "there is a second document after ---: keep everything in one"
    return complain(where, f"this is not YAML: {problem}")


class _Converter:
    def __init__(self, source: str, *, numbered: bool) -> None:
        self._source = source
        self._numbered = numbered
        self._done: dict[int, Value] = {}
        """By node: an anchor used many times is converted once, so that aliases of aliases cannot multiply."""

    def _where(self, node: yaml.Node) -> str:
        return f"{self._source}:{node.start_mark.line + 1}" if self._numbered else self._source

    def convert(self, node: yaml.Node, depth: int) -> Value:
        done = self._done.get(id(node))
        if done is None:
            done = self._done[id(node)] = self._convert(node, self._where(node), depth)
        return done

    def _convert(self, node: yaml.Node, where: str, depth: int) -> Value:
        if depth > _DEEPEST:
            raise complain(where, "this is nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            return Scalar(where, node.value, _typed(node))
        if isinstance(node, yaml.SequenceNode):
            return Listing(where, tuple(self.convert(item, depth + 1) for item in node.value))
        entries: dict[str, Value] = {}
        for key_node, value_node in node.value:
            here = self._where(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise complain(here, "a key must be a word")
            key = key_node.value
            if key in entries:
                raise complain(here, f"{key} is given twice (first at {entries[key].where}): keep one")
            # The key's own place is the better one to name: its value may begin lines below.
            entries[key] = _at(here, self.convert(value_node, depth + 1))
        return Table(where, entries)


def _at(where: str, value: Value) -> Value:
    match value:
        case Scalar():
            return Scalar(where, value.text, value.typed)
        case Listing():
            return Listing(where, value.items)
        case Table():
            return Table(where, value.entries)


def _typed(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """Build null, booleans and numbers; dates and everything else stay text."""
    text: str = node.value
    if node.tag not in _TYPED_TAGS:
        return text
    constructor = yaml.constructor.SafeConstructor()
    try:
        value: str | int | float | bool | None = constructor.construct_object(node)
    except (ValueError, KeyError, yaml.YAMLError):  # `!!int word`, or a number too long for Python
        return text
    return value
