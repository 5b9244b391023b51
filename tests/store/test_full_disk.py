"""A disk that is really full: a small file system in a mount namespace of its own, in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import os, sys
from pathlib import Path
import trio
from impervious.errors import StoreFull
from impervious.store import log, open_store, schema
from tests.store.test_maintenance import event

path, case = Path(sys.argv[1]) / "imp.db", sys.argv[2]
password = "secret" if case == "encrypted" else None
filler = path.with_name("filler")


def fill():
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


async def refused(store):
    try:
        await store.write(lambda tx: tx.emit(event(b"x" * 1_500_000)))
    except StoreFull as error:
        return "the disk is full" in str(error)
    return False


async def main():
    if case == "first":
        fill()
        try:
            async with open_store(path, password):
                pass
        except StoreFull as error:
            print("the disk is full" in str(error))
        return
    if case == "old":
        newest, schema.MIGRATIONS = schema.MIGRATIONS, schema.MIGRATIONS[:-1]
        async with open_store(path):
            pass
        schema.MIGRATIONS = newest
        fill()
        try:
            async with open_store(path):
                pass
        except StoreFull as error:
            print("has to be brought up to date first: make room" in str(error))
        return
    async with open_store(path, password) as store:
        await store.write(lambda tx: tx.emit(event(b"before")))
        if case == "running":
            fill()
            print(await refused(store), (await store.read(log.extent)).events)
            filler.unlink()
            await store.write(lambda tx: tx.emit(event(b"after")))
            print((await store.read(log.extent)).events)
            return
    fill()
    async with open_store(path, password) as store:
        print((await store.read(log.extent)).events, await refused(store))
        try:
            await store.check()
        except StoreFull:
            print("still full")
        filler.unlink()
        await store.write(lambda tx: tx.emit(event(b"after")))
        await store.check()
        print((await store.read(log.extent)).events)
    async with open_store(path, password) as store:
        print((await store.read(log.extent)).events)


trio.run(main)
"""


@pytest.mark.skipif(not shutil.which("unshare") or os.getuid() != 0, reason="mounting takes an administrator")
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("start", "1 True\nstill full\n2\n2\n"),
        ("encrypted", "1 True\nstill full\n2\n2\n"),
        ("running", "True 1\n2\n"),
        ("first", "True\n"),
        ("old", "True\n"),
    ],
)
def test_a_full_disk(tmp_path: Path, case: str, says: str) -> None:
    script = f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" && exec "$0" "$@"'
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, "-c", PROGRAM, str(tmp_path), case]
    ran = subprocess.run(
        command, check=False, timeout=60, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    if "mount" in ran.stderr and not ran.stdout:
        pytest.skip(f"cannot mount here: {ran.stderr}")
    assert ran.stdout == says, ran.stderr
