"""Questions to a daemon about tunnels, and the answers of sellers, which come on its stream."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from impervious.cli.client.answers import DaemonUnavailable
from impervious.cli.client.door import Door
from impervious.cli.client.follow import Watched, follow
from impervious.cli.client.frames import StreamEvent
from impervious.cli.client.rest import Facts, NoAnswer, Rest, facts_of, open_rest
from impervious.errors import DeliveryFailed, ImperviousError
from impervious.model import STATUS

_WATCHED: Final = Watched(service_types=("vpn", STATUS))


class SellerRefused(ImperviousError):
    """The seller said no; says why, and what it gave back."""


class SellerSilent(DaemonUnavailable):
    """The seller has not answered in time."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A daemon that is asked, and its stream."""

    rest: Rest
    events: trio.MemoryReceiveChannel[StreamEvent]

    async def ask(self, path: str, body: Mapping[str, object], *, key: str = "") -> Facts:
        """Make a call."""
        return await ask(self.rest, path, body, key=key)

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


async def ask(rest: Rest, path: str, body: Mapping[str, object] | None, *, key: str = "") -> Facts:
    """Make a call about tunnels: as `Rest.ask`, with a path behind /v1/vpn/."""
    try:
        return await rest.ask(f"/v1/vpn/{path}", body, key=key)
    except NoAnswer as error:
        raise NoAnswer(f"{error}: `impervious vpn list` tells") from error


@asynccontextmanager
async def open_asking(door: Door) -> AsyncIterator[Asking]:
    """Open a way to ask and to hear, for as long as the block runs; the stream stands before it begins."""
    heard = trio.Event()
    async with open_rest(door) as rest, follow(door, _WATCHED, say=_nothing, opened=heard.set) as events:
        await heard.wait()
        yield Asking(rest, events)


def _check_delivered(event: StreamEvent) -> None:
    facts = facts_of(event.data)
    if facts.get("state") == "failed":
        raise DeliveryFailed(f"it did not reach the seller: {facts.get('reason')}", retryable=True)


def _read(event: StreamEvent) -> Facts:
    facts = facts_of(event.data)
    if facts.get("recordId") == "REFUSED":
        back = f" ({event.amount_sat} sat came back)" if event.amount_sat > 1 else ""
        raise SellerRefused(f"the seller refuses: {facts.get('reason')}{back}")
    return facts


def _nothing(_line: str) -> None:
    return
