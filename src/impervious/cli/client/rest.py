"""A daemon's REST door from outside: one request, one answer, and what its refusals and its silence mean."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx2
import trio

from impervious.cli.client.answers import DaemonUnavailable, refusal_of_body, unreachable
from impervious.cli.client.door import Door
from impervious.cli.exits import UsageError

ANSWER_S: Final = 60.0
"""How long the daemon has to accept something: it may ask LND first."""

_LACKS: Final = "the daemon's answer has no {}: does --url name an impervious daemon, and of this version?"

Facts: TypeAlias = dict[str, object]
"""A JSON object."""


class NoAnswer(DaemonUnavailable):
    """Whether the call was made is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A client of a daemon's REST door. Made by `open_rest`."""

    door: Door
    http: httpx2.AsyncClient

    async def ask(self, path: str, body: Mapping[str, object] | None = None, *, key: str = "") -> Facts:
        """Make a call.

        Args:
          path: with the query, if there is one.
          body: the request message; None: GET.
          key: Idempotency-Key; empty: none.

        Raises:
          DaemonUnavailable: nobody answers there, or LND cannot serve.
          NoAnswer: whether it was done is unknown.
          UsageError, DaemonRefused: the daemon's answer, or what answers is no daemon of ours.
        """
        content = b"" if body is None else json.dumps(dict(body)).encode()
        headers = {"idempotency-key": key} if key else {}
        try:
            with trio.fail_after(ANSWER_S):
                return facts_of(await self.request("GET" if body is None else "POST", path, content, headers=headers))
        except trio.TooSlowError:
            raise NoAnswer(f"{self.door.url} does not answer") from None

    async def request(
        self, method: str, path: str, content: bytes | AsyncIterable[bytes], *, headers: Mapping[str, str]
    ) -> bytes:
        """Make a request, however long it takes, and return the body of its answer.

        Raises: as `ask`.
        """
        try:
            answer = await self.http.request(method, f"{self.door.url}{path}", content=content, headers=dict(headers))
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise unreachable(self.door, error) from error
        except httpx2.TransportError as error:
            raise NoAnswer(f"{self.door.url} went away before it answered") from error
        if answer.status_code != httpx2.codes.OK:
            raise refusal_of_body(answer.content, self.door, answer.status_code)
        return answer.content


def facts_of(data: bytes) -> Facts:
    """Read a JSON object that a daemon gave.

    Raises:
      UsageError: it is none.
    """
    try:
        facts: object = json.loads(data)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise UsageError("what the daemon says is not JSON: does --url name an impervious daemon?")
    return facts


def text(facts: Facts, name: str) -> str:
    """Read a fact that is a text.

    Raises:
      UsageError: it is not there.
    """
    value = facts.get(name)
    if not isinstance(value, str):
        raise UsageError(_LACKS.format(name))
    return value


def number(facts: Facts, name: str) -> int:
    """Read a fact that is a whole number; the REST door writes large ones as text.

    Raises:
      UsageError: it is not there.
    """
    value = facts.get(name)
    try:
        if isinstance(value, str | int):
            return int(value)
    except ValueError:
        pass
    raise UsageError(_LACKS.format(name))


@asynccontextmanager
async def open_rest(door: Door, *, transport: httpx2.AsyncBaseTransport | None = None) -> AsyncIterator[Rest]:
    """Open a client for as long as the block runs.

    Args:
      door: of the daemon.
      transport: another way to it than TCP.
    """
    async with httpx2.AsyncClient(
        verify=door.tls or False,  # plain HTTP needs no context, and making one takes longer than the call
        timeout=None,  # deadlines are Trio's
        trust_env=False,  # never through a proxy that the environment names: it would see the message
        transport=transport,
    ) as http:
        yield Rest(door=door, http=http)
