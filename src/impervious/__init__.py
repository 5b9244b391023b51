"""Impervious: an application bus over Lightning.

`open_node` runs a node inside your own Trio program; `read_config` finds and checks the configuration that it takes.
What is exported here is imported when it is used, so that `impervious.lnd` by itself loads neither doors nor database.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impervious.config_file import read_config
    from impervious.supervisor import Node, open_node

__all__ = ("Node", "open_node", "read_config")

_HOMES = {
    "Node": "impervious.supervisor",
    "open_node": "impervious.supervisor",
    "read_config": "impervious.config_file",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
