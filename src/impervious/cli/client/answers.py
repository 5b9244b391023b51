"""What a daemon's refusals and silences mean to somebody at a command line: which exit code, which words."""

import json
import ssl
from typing import Final, TypeVar

from grpclib.const import Status

from impervious.cli.client.door import Door
from impervious.cli.exits import UsageError
from impervious.errors import ImperviousError, NodeUnavailable

E = TypeVar("E", bound=BaseException)

_MISTAKES: Final = frozenset(
    {
        Status.INVALID_ARGUMENT,
        Status.NOT_FOUND,
        Status.ALREADY_EXISTS,
        Status.PERMISSION_DENIED,
        Status.OUT_OF_RANGE,
        Status.UNIMPLEMENTED,
        Status.UNAUTHENTICATED,
    }
)
"""What the caller has to change."""


class DaemonUnavailable(NodeUnavailable):
    """The daemon, or the LND behind it, cannot be asked now: exit code 3."""


class DaemonRefused(ImperviousError):
    """The daemon answered with an error that is nobody's mistake: exit code 1.

    Attributes:
      code: gRPC's.
    """

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


def refusal(code: int, message: str) -> ImperviousError:
    """Make the error for an answer of the daemon's."""
    if code == Status.UNAVAILABLE.value:
        return DaemonUnavailable(message)
    if code in {status.value for status in _MISTAKES}:
        return UsageError(message)
    return DaemonRefused(message, code=code)


def refusal_of_body(body: bytes, door: Door, status: int) -> ImperviousError:
    """Make the error for an answer whose HTTP status says that it is one."""
    try:
        error = json.loads(body)
        return refusal(int(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return UsageError(f"{door.url} answers with HTTP {status}, and not as an impervious daemon does: see --url")


def unreachable(door: Door, error: BaseException) -> DaemonUnavailable:
    """Make the error for a daemon that does not answer."""
    untrusted = _cause(error, ssl.SSLCertVerificationError)
    if untrusted is not None:
        return DaemonUnavailable(
            f"{door.url} shows a certificate that is not trusted ({untrusted.verify_message}): name it with --cacert"
        )
    if _cause(error, ssl.SSLError) is not None:
        return DaemonUnavailable(f"{door.url} does not speak TLS as asked: is it https:// or http://?")
    return DaemonUnavailable(f"no daemon answers at {door.url}: start it with `impervious run`, or name it with --url")


def _cause(error: BaseException | None, kind: type[E]) -> E | None:
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None
