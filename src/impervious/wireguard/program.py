"""Running one of the system's programs: arguments as a list, bounded in time, with an environment of its own."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where `ip`, `nft` and `iptables` are, though not for an ordinary user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a program left."""

    code: int
    """0: it did what was asked."""
    output: str
    complaint: str
    """What it wrote to stderr, without white space around it."""


def search_path() -> str:
    """Say where programs are looked for."""
    return f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"


async def run_program(argv: Sequence[str], *, stdin: str = "", patience_s: float) -> Finished:
    """Run a program to its end.

    Args:
      argv: its path and arguments.
      stdin: what it reads.
      patience_s: how long it may take, in seconds; then it is killed.

    Raises:
      OSError: it cannot be started.
      trio.TooSlowError: it took too long.

    Cancellation:
      The program is ended; what it had begun may be done in part.
    """
    with trio.fail_after(patience_s):
        done = await trio.run_process(
            list(argv),
            stdin=stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            # Not ours: it may hold the database's password. Untranslated complaints are the ones we know.
            env={"PATH": search_path(), "LC_ALL": "C"},
        )
    return Finished(
        code=done.returncode,
        output=done.stdout.decode(errors="replace"),
        complaint=done.stderr.decode(errors="replace").strip(),
    )
