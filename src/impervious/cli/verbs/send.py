"""`impervious send`: a text, a file or standard input to another node, through a running daemon."""

import base64
import json
import sys
import uuid
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

import trio
from grpclib.const import Status

from impervious.cli.client.answers import DaemonRefused
from impervious.cli.client.calls import Message, open_calls
from impervious.cli.client.door import Door, add_door_arguments, find_door
from impervious.cli.client.progress import shown_progress
from impervious.cli.client.rest import NoAnswer
from impervious.cli.exits import OK, UsageError, exit_code, report
from impervious.cli.nodes import node_named
from impervious.errors import ImperviousError

LARGEST_BYTES: Final = 8 << 20
"""What message.max_bytes can be set to; more is not even read."""
_NOT_DELIVERED: Final = (Status.ABORTED.value, Status.FAILED_PRECONDITION.value)
"""How the daemon answers who waits for a message that failed; ABORTED: sending it again may work."""
LARGE_BYTES: Final = 32 << 10
"""From here on a bar is worth its line."""


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pubkey", metavar="PUBKEY", help="the far node's key, 66 hex digits, or @ and a peer's imp id")
    parser.add_argument("what", metavar="TEXT|@FILE|-", help="a text, the file of that name, or standard input")
    add_door_arguments(parser)
    parser.add_argument("--amount", type=int, default=0, metavar="SAT", help="what it gets; 0: the least for the size")
    parser.add_argument("--reply-to", default="", metavar="ID", help="the message that this one answers")
    parser.add_argument("--wait", action="store_true", help="wait until it is delivered; exit code 1 if it is not")
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        help="the same message with the same key is sent and paid once, however often this is called (one is made up)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Prints the id of the message, and with --wait how it ended. When the connection to the daemon breaks, the "
        "call is repeated with the same key, so nothing is paid twice. A text that begins with @ or - can be piped in."
    )


def run(args: Namespace) -> int:
    """Send, and return the exit code."""
    payload = _payload(args.what)
    message = Message(body=_body(args, payload), key=args.idempotency_key or str(uuid.uuid4()))
    told = _Told(message.key, as_json=args.json)
    try:
        trio.run(_send, find_door(args), message, told, args.wait)
    except ImperviousError as error:
        return told.problem(error)
    return told.end()


async def _send(door: Door, message: Message, told: "_Told", wait: bool) -> None:
    large = wait or len(message.body) >= LARGE_BYTES
    wanted = large and not told.as_json and sys.stderr.isatty()
    async with open_calls(door) as calls, shown_progress(len(message.body), wanted=wanted) as bar:
        told.accepted(await calls.send(message, uploaded=bar.uploaded))
        if wait:
            bar.waiting()
            await calls.wait(message)
            told.delivered()


class _Told:
    """What the caller is told: in lines as it happens, or as one object at the end."""

    def __init__(self, key: str, *, as_json: bool) -> None:
        self.as_json = as_json
        self._key = key
        self._facts: dict[str, str | bool] = {"idempotencyKey": key}

    def accepted(self, message_id: str) -> None:
        """It has an id."""
        self._facts |= {"id": message_id, "state": "accepted"}
        if not self.as_json:
            print(message_id, flush=True)  # at once: who stops waiting keeps it

    def delivered(self) -> None:
        """It has arrived."""
        self._facts["state"] = "delivered"
        if not self.as_json:
            print("delivered")

    def end(self) -> int:
        """All went well."""
        if self.as_json:
            print(json.dumps(self._facts))
        return OK

    def problem(self, error: ImperviousError) -> int:
        """Something went wrong; return the exit code."""
        unsure = isinstance(error, NoAnswer) or "id" in self._facts
        if "id" in self._facts and isinstance(error, DaemonRefused) and error.code in _NOT_DELIVERED:
            self._facts |= {"state": "failed", "retryable": error.code == Status.ABORTED.value}
            unsure = False
        if not self.as_json:
            code = report(error)
            if unsure:
                print(f"impervious: to ask again: the same with --idempotency-key {self._key}", file=sys.stderr)
            return code
        self._facts["error"] = str(error)
        print(json.dumps(self._facts))
        return exit_code(error)


def _payload(what: str) -> bytes:
    """Read what is to be sent.

    Raises:
      UsageError: it cannot be read, or is too much.
    """
    try:
        if what == "-":
            data = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        elif what.startswith("@"):
            with Path(what[1:]).open("rb") as file:
                data = file.read(LARGEST_BYTES + 1)
        else:
            data = what.encode()
    except OSError as error:
        raise UsageError(f"{what[1:]}: cannot be read: {error.strerror}") from None
    except UnicodeEncodeError:
        raise UsageError("the text is not valid in this locale: put it into a file and send @FILE") from None
    if not data:
        raise UsageError("there is nothing to send: give a text, @FILE, or - with something on standard input")
    if len(data) > LARGEST_BYTES:
        raise UsageError(f"it has more than {LARGEST_BYTES:,} bytes, the most that a message can have")
    return data


def _body(args: Namespace, payload: bytes) -> bytes:
    return json.dumps(
        {
            "pubkey": node_named(args.pubkey, "PUBKEY"),
            "msg": base64.b64encode(payload).decode(),
            "amount": str(args.amount),
            "replyToId": args.reply_to,
        }
    ).encode()
