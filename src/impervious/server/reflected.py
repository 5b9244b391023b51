"""gRPC server reflection, v1 and v1alpha: clients such as grpcurl list, describe and call without .proto files.

The service is grpclib's. It is given the names of all that is served, itself included, and the descriptors behind them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from grpclib.const import Handler
from grpclib.reflection.service import ServerReflection

from impervious.rpc import Servable
from impervious.server.descriptors import Descriptors, published

_OURS: Final = "impervious"


class _Named:
    """The part of a service object that answers to one name: grpclib looks at the first path only."""

    def __init__(self, paths: Mapping[str, Handler]) -> None:
        self._paths = paths

    def __mapping__(self) -> Mapping[str, Handler]:
        return self._paths


def with_reflection(services: Sequence[Servable], described: Iterable[tuple[str, bytes]] = ()) -> list[Servable]:
    """Add reflection to what a server serves.

    Args:
      services: all others.
      described: descriptor sets of services that bring them, each with a name for the log.
    """
    descriptors = Descriptors()
    descriptors.add_files(published().file, _OURS)
    for source, serialized in described:
        descriptors.add_set(serialized, source)
    listed: list[Servable] = [*_named(services)]
    # Once to have the two services, and once more to have them list each other.
    listed = ServerReflection.extend(listed, pool=descriptors)
    for each in listed:
        _describe_foreign(each.__mapping__(), descriptors)
    return [*services, *ServerReflection.extend(listed, pool=descriptors)[-2:]]


def _describe_foreign(paths: Mapping[str, Handler], descriptors: Descriptors) -> None:
    """Add what classes of google.protobuf know of themselves."""
    for path, handler in paths.items():
        descriptors.add_file_of(_service_of(path), [handler.request_type, handler.reply_type])


def _named(services: Iterable[Servable]) -> list[_Named]:
    found: dict[str, dict[str, Handler]] = {}
    for each in services:
        for path, handler in each.__mapping__().items():
            found.setdefault(_service_of(path), {})[path] = handler
    return [_Named(paths) for paths in found.values()]


def _service_of(path: str) -> str:
    return path.split("/")[1]
