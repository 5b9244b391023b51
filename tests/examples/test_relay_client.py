"""Two processes of the example talk through a relay of ours."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from tests.relay.endpoint import needs_ipv6

from impervious.relay import Opened, Paired, Relay, SessionOptions, open_relay

CLIENT = "examples/relay_client.py"


@asynccontextmanager
async def client(*arguments: str) -> AsyncIterator[trio.Process]:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, CLIENT, *arguments]
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        yield process
        nursery.cancel_scope.cancel()


async def say(process: trio.Process, text: str) -> None:
    assert process.stdin is not None
    await process.stdin.send_all(text.encode())


async def hear(process: trio.Process, text: str) -> None:
    """Read until all of `text` has come."""
    assert process.stdout is not None
    heard = b""
    while len(heard) < len(text.encode()):
        chunk = await process.stdout.receive_some()
        assert chunk, f"the client ended after {heard!r}"
        heard += bytes(chunk)
    assert heard.decode() == text


async def fact(relay: Relay) -> object:
    return await relay.facts.receive()


@pytest.mark.slow
@pytest.mark.parametrize("with_tokens", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_two_clients_talk(host: str, with_tokens: bool) -> None:
    async with open_relay() as relay:
        session = relay.open("default", SessionOptions(ports=(0, 0), bind=host, require_token=with_tokens))
        tokens = [[token.hex] for token in session.tokens] if session.tokens else [[], []]
        commands = [(host, str(port), *token) for port, token in zip(session.ports, tokens, strict=True)]
        with trio.fail_after(20):
            async with client(*commands[0]) as one, client(*commands[1]) as other:
                assert isinstance(await fact(relay), Opened)
                assert isinstance(await fact(relay), Paired)
                await say(one, "hello\nhow are you?\n")
                await hear(other, "hello\nhow are you?\n")
                await say(other, "Grüße\n")
                await hear(one, "Grüße\n")
                assert one.stdin is not None
                await one.stdin.aclose()
                assert await one.wait() == 0


@pytest.mark.slow
async def test_a_wrong_token_is_told() -> None:
    async with open_relay() as relay:
        session = relay.open("default", SessionOptions(ports=(0, 0), bind="127.0.0.1", require_token=True))
        # The example waits for almost 8 s in all; here it may give up sooner.
        shortened = (
            f"import re; text = open({CLIENT!r}).read(); "
            "exec(re.sub(r'\\(0.25, .*?\\)', '(0.1,)', text))"  # the tuple of waits
        )
        with trio.fail_after(20):
            done = await trio.run_process(
                [sys.executable, "-c", shortened, "127.0.0.1", str(session.ports[0]), "00" * 32],
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 1
        assert b"do port and token belong together?" in done.stderr
        assert relay.statistics()[0].sides[0].dropped.stranger == 1
