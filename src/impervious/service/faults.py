"""Whose fault it is when a service raises, and the events that tell of it.

What may be over later is waited for. What only the operator can mend (the database, the configuration) ends the
node. Everything else is the service's own mistake: it must not cost the node its other services, so a fact at which a
service breaks a few times is set aside, and a service that breaks by itself is started again.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar
from uuid import uuid4

import trio

from impervious.background import split_cancelled
from impervious.errors import ConfigError, NodeRefused, NodeUnavailable, StoreFull, StoreUnusable
from impervious.model import Event
from impervious.service.transaction import ServiceTx
from impervious.wire.payloads import compact

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIES: Final = 4
"""How often a fact is shown to a service that breaks at it: over 4 to 7 s, enough for what is not there yet."""

_Kinds: TypeAlias = tuple[type[BaseException], ...]

_PASSING: Final[_Kinds] = (NodeUnavailable, NodeRefused, StoreFull)
FATAL: Final[_Kinds] = (StoreUnusable,)
"""What only the operator can mend."""
FATAL_BY_ITSELF: Final[_Kinds] = (*FATAL, ConfigError)
"""The same of a service's `run`, which may find that what it is told cannot work."""


class ServiceBroke(RuntimeError):
    """A service raised what ends programs, such as SystemExit, where it answers a call: its `__cause__`."""


def mistake_of(error: BaseException) -> BaseException:
    """Return what a service's code is to blame for, whatever it is: SystemExit and KeyboardInterrupt, too.

    A control-C never comes out of a service: what calls one has `trio.lowlevel.enable_ki_protection`, so Trio raises it
    in the main task.

    Raises:
      trio.Cancelled: the service was cancelled; what it raised besides is logged.
      GeneratorExit: the program is taken apart, after the end of Trio.
    """
    cancelled, mistake = split_cancelled(error)
    if cancelled is not None and mistake is not None and is_one_of(mistake, FATAL_BY_ITSELF):
        raise error
    if cancelled is not None:
        if mistake is not None:
            logger.error("a service broke while it was cancelled", exc_info=mistake)
        raise cancelled
    if isinstance(error, GeneratorExit) and not trio.lowlevel.in_trio_task():
        raise error  # Python takes a coroutine apart that will never run again
    return error


@trio.lowlevel.enable_ki_protection
async def mistake_made(work: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Run a coroutine function of a service's.

    Returns:
      What it raised; None: nothing.

    Raises: as `mistake_of`.
    """
    try:
        await work()
    except BaseException as error:  # noqa: ASYNC103 - a cancellation is raised again
        return mistake_of(error)  # noqa: ASYNC104
    return None


@trio.lowlevel.enable_ki_protection
async def answered(service_type: str, call: Callable[[], Awaitable[T]]) -> T:
    """Have a service answer a call.

    Raises:
      ServiceBroke: it raised what would end the program. Ordinary errors come as they are.
    """
    try:
        return await call()
    except Exception:
        raise
    except BaseException as error:
        mistake = mistake_of(error)
        raise ServiceBroke(f"the {service_type} service raised {_name(mistake)}") from mistake  # noqa: ASYNC104


@trio.lowlevel.enable_ki_protection
def told_by(service_type: str, what: str, ask: Callable[[], T]) -> T:
    """Ask a service for something at the start of the node, which needs it.

    Args:
      service_type: whose it is.
      what: it fails at, for the error: "cannot be made".
      ask: the service's code.

    Raises:
      ConfigError: as it was raised; or for anything else, with what the operator can do.
    """
    try:
        return ask()
    except ConfigError:
        raise
    except BaseException as error:  # noqa: ASYNC103 - synchronous
        raise ConfigError(  # noqa: ASYNC104
            f"the {service_type} service {what}: {error!r}; mend its package, remove it, or set its entry in"
            " service_list to active: false"
        ) from error


def is_passing(error: BaseException) -> bool:
    """Whether a service ran into something that is not its fault and may be over later, and into nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_PASSING)[1] is None
    return isinstance(error, _PASSING)


def is_one_of(error: BaseException, kinds: _Kinds) -> bool:
    """Whether an error is of some kinds, or is a group that has one."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)


def tell_set_aside(tx: ServiceTx, event: Event, error: BaseException) -> None:
    """Show that a service will not be shown a fact any more; the fact itself stays in the log."""
    shape = {"recordId": "SET_ASIDE", "seq": event.seq, "kind": event.kind.value, "error": _name(error)}
    tx.emit(compact(shape), identifier=uuid4(), reply_to=event.id)
    tx.count("set_aside_facts")


def tell_broken(tx: ServiceTx, error: BaseException) -> None:
    """Show that a service broke by itself and is started again and again."""
    tx.emit(compact({"recordId": "BROKEN", "error": _name(error)}), identifier=uuid4())
    tx.count("broken_services")


def _name(error: BaseException) -> str:
    """Name an error: what it says may be secret, and is in the log file."""
    return type(error).__name__
