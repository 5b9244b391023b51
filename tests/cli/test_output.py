"""Standard output as people have it: another locale, a full disk, a closed pipe, no descriptor at all."""

import errno
import json
import os
import subprocess
import sys

import pytest

from impervious.cli import output

ASTRAL = "é € 𝄞 \udc80"
PROGRAM = f"""
import json
from impervious.cli import output
output.prepare()
print(json.dumps({ASTRAL!r}, ensure_ascii=False))
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
@pytest.mark.slow
def test_json_stays_json_in_every_locale(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert json.loads(done.stdout.decode(encoding)) == ASTRAL
    assert done.stderr == b""


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["config", "show"], ["--version"]])
def test_a_full_disk_is_one_line(verb: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "impervious", "--config", os.devnull, *verb],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "impervious: the output cannot be written: No space left on device\n"


@pytest.mark.slow
def test_no_standard_output_at_all() -> None:
    command = f"exec {sys.executable} -m impervious --config {os.devnull} config show >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_what_a_write_can_fail_with_is_about_the_output() -> None:
    full, pipe = OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError()
    assert output.problem(full) == "the output cannot be written: No space left on device"
    assert output.problem(pipe) == ""
    assert output.problem(BaseExceptionGroup("", [pipe, pipe])) == ""
    assert output.problem(BaseExceptionGroup("", [full, BaseExceptionGroup("", [pipe])])) == output.problem(full)
    assert output.problem(OSError(errno.ENOSPC, "No space left on device", "file")) is None
    assert output.problem(BaseExceptionGroup("", [pipe, ValueError()])) is None
    assert output.problem(KeyboardInterrupt()) is None
