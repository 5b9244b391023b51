"""Questions to a daemon about tunnels, and the answers of sellers, which come on its stream."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx2
import trio

from impervious.cli.client.answers import DaemonUnavailable, refusal_of_body, unreachable
from impervious.cli.client.calls import ANSWER_S, Calls, NoAnswer, open_calls
from impervious.cli.client.door import Door
from impervious.cli.client.follow import Watched, follow
from impervious.cli.client.frames import StreamEvent
from impervious.cli.exits import UsageError
from impervious.errors import DeliveryFailed, ImperviousError, Malformed
from impervious.model import STATUS

Facts: TypeAlias = dict[str, object]

_WATCHED: Final = Watched(service_types=("vpn", STATUS))


class SellerRefused(ImperviousError):
    """The seller said no; says why, and what it gave back."""


class SellerSilent(DaemonUnavailable):
    """The seller has not answered in time."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A daemon that is asked, and its stream."""

    calls: Calls
    events: trio.MemoryReceiveChannel[StreamEvent]

    async def ask(self, path: str, body: Mapping[str, object], *, key: str = "") -> Facts:
        """Make a call."""
        return await ask(self.calls, path, body, key=key)

    async def answer(self, request: str, *, within_s: float) -> Facts:
        """Wait for the seller's answer to a request.

        Args:
          request: its id.
          within_s: how long to wait, in seconds.

        Raises:
          SellerRefused: it said no.
          SellerSilent: it said nothing in time.
          DeliveryFailed: the request did not arrive; nothing was paid for a tunnel.
        """
        with trio.move_on_after(within_s):
            async for event in self.events:
                if event.service_type == STATUS and event.id == request:
                    _check_delivered(event)
                elif event.service_type != STATUS and event.reply_to == request:
                    return _read(event)
        raise SellerSilent(f"the seller has not answered within {within_s:g} s")


async def ask(calls: Calls, path: str, body: Mapping[str, object] | None, *, key: str = "") -> Facts:
    """Make a call to the daemon's REST door.

    Args:
      calls: the daemon.
      path: behind /v1/vpn/.
      body: the request; None: GET.
      key: Idempotency-Key; empty: none.

    Raises:
      DaemonUnavailable: nobody answers there, or LND cannot serve.
      NoAnswer: whether it was done is unknown.
      UsageError, DaemonRefused: the daemon's answer.
    """
    url = f"{calls.door.url}/v1/vpn/{path}"
    headers = {"idempotency-key": key} if key else {}
    try:
        with trio.fail_after(ANSWER_S):
            if body is None:
                answer = await calls.http.get(url)
            else:
                answer = await calls.http.post(url, json=dict(body), headers=headers)
    except trio.TooSlowError:
        raise NoAnswer(f"{calls.door.url} does not answer") from None
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise unreachable(calls.door, error) from error
    except httpx2.TransportError as error:
        raise NoAnswer(f"{calls.door.url} went away before it answered: `impervious vpn list` tells") from error
    if answer.status_code != httpx2.codes.OK:
        raise refusal_of_body(answer.content, calls.door, answer.status_code)
    return _facts(answer.content)


@asynccontextmanager
async def open_asking(door: Door) -> AsyncIterator[Asking]:
    """Open a way to ask and to hear, for as long as the block runs; the stream stands before it begins."""
    heard = trio.Event()
    async with open_calls(door) as calls, follow(door, _WATCHED, say=_nothing, opened=heard.set) as events:
        await heard.wait()
        yield Asking(calls, events)


def text(facts: Facts, name: str) -> str:
    """Read a fact that is a text."""
    value = facts.get(name)
    if not isinstance(value, str):
        raise UsageError(f"the daemon's answer has no {name}: is it of another version?")
    return value


def number(facts: Facts, name: str) -> int:
    """Read a fact that is a whole number; the REST door writes large ones as text."""
    value = facts.get(name)
    try:
        if isinstance(value, str | int):
            return int(value)
    except ValueError:
        pass
    raise UsageError(f"the daemon's answer has no {name}: is it of another version?")


def _check_delivered(event: StreamEvent) -> None:
    facts = _facts(event.data)
    if facts.get("state") == "failed":
        raise DeliveryFailed(f"it did not reach the seller: {facts.get('reason')}", retryable=True)


def _read(event: StreamEvent) -> Facts:
    facts = _facts(event.data)
    if facts.get("recordId") == "REFUSED":
        back = f" ({event.amount_sat} sat came back)" if event.amount_sat > 1 else ""
        raise SellerRefused(f"the seller refuses: {facts.get('reason')}{back}")
    return facts


def _facts(data: bytes) -> Facts:
    try:
        facts: object = json.loads(data)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise Malformed("what the daemon says is not JSON: does --url name an impervious daemon?")
    return facts


def _nothing(_line: str) -> None:
    return
