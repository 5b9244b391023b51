"""Whose fault it is when a service raises, and the events that tell of it.

What may be over later is waited for. What only the operator can mend (the database, the configuration) ends the
node. Everything else is the service's own mistake: it must not cost the node its other services, so a fact at which a
service breaks a few times is set aside, and a service that breaks by itself is started again.
"""

from typing import Final, TypeAlias
from uuid import uuid4

from impervious.errors import ConfigError, NodeRefused, NodeUnavailable, StoreFull, StoreUnusable
from impervious.model import Event
from impervious.service.transaction import ServiceTx
from impervious.wire.payloads import compact

MISTAKES: Final = (Exception, SystemExit)
"""What a service's code may raise; neither being cancelled nor control-C is among it."""
TRIES: Final = 4
"""How often a fact is shown to a service that breaks at it: over 4 to 7 s, enough for what is not there yet."""

_Kinds: TypeAlias = tuple[type[BaseException], ...]

_PASSING: Final[_Kinds] = (NodeUnavailable, NodeRefused, StoreFull)
FATAL: Final[_Kinds] = (StoreUnusable,)
"""What only the operator can mend."""
FATAL_BY_ITSELF: Final[_Kinds] = (*FATAL, ConfigError)
"""The same of a service's `run`, which may find that what it is told cannot work."""


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
