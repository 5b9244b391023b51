"""What happens in a demonstration, as values: what views show, and all that they know."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

TEXT_CHARS: Final = 200
"""Of a text, as much as a fact repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node with a daemon."""

    name: str
    pubkey: str
    lnd: str
    """host:port, as all of these."""
    grpc: str
    http: str
    text: str
    config: str
    """Its configuration file, for other commands; gone when the demonstration ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Everything runs."""

    places: tuple[Place, ...]
    between: tuple[str, ...]
    """Nodes without a daemon, which forward."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegan:
    """A step of the tour."""

    name: str
    title: str
    number: int
    """From 1."""
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A daemon accepted a message at its HTTP door."""

    by: str
    to: str
    id: str
    size: int
    """In bytes."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A daemon answered a call with what it did."""

    at: str
    did: str
    """A verb."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """Parts of the message under way have been paid for."""

    to: str
    settled: int
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An event on a daemon's websocket that is no outcome."""

    at: str
    sender: str
    """A name, or a pubkey."""
    service: str
    id: str
    reply_to: str
    size: int
    text: str
    amount_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded:
    """A daemon told on its websocket what became of a call."""

    at: str
    id: str
    state: str
    """delivered, failed, expired."""
    reason: str
    parts: int
    amount_sat: int
    fee_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """It worked."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TourEnded:
    """Every step worked."""

    steps: int
    seconds: float
    goes_on: bool
    """Whether the daemons stay until they are stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """It was asked to stop."""


Fact: TypeAlias = Opened | StepBegan | Sent | Done | Progressed | Arrived | Concluded | StepEnded | TourEnded | Stopping

Tell: TypeAlias = Callable[[Fact], None]
"""Where facts go."""


def shortened(data: bytes) -> str:
    """Give as much of a text as a fact repeats; what is no text becomes U+FFFD."""
    # Cut before decoding: a character has at most four bytes.
    return data[: 4 * TEXT_CHARS].decode("utf-8", "replace")[:TEXT_CHARS]
