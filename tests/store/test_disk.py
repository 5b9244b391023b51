import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from tests.conftest import inline
from tests.store.test_maintenance import event

from impervious.store import open_store
from impervious.store.disk import LOOK_S, Disk


async def test_the_room_is_measured_in_a_thread_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, threads = tmp_path / "imp.db", []

    async def counting(function, /, *, limiter):  # type: ignore[no-untyped-def]
        threads.append(limiter)
        return await inline(function, limiter=limiter)

    async with open_store(path, run_sync=inline) as store:
        disk = Disk(store, path, run_sync=counting)
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=5))
        await disk.look()
        assert (disk.free_bytes, disk.replaced, len(threads)) == (5, None, 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=6))
        assert disk.free_bytes == 5


async def test_what_happens_to_the_file_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "imp.db"
    async with open_store(path, run_sync=inline) as store, trio.open_nursery() as nursery:
        disk = Disk(store, path, run_sync=inline)
        nursery.start_soon(lambda: disk.keep_looking(every_s=LOOK_S))
        await trio.sleep(2.5)
        assert disk.replaced is None
        path.rename(tmp_path / "elsewhere")
        await trio.sleep(5)
        assert disk.replaced
        assert "was deleted or moved" in disk.replaced
        os.rename(tmp_path / "elsewhere", path)  # noqa: ASYNC240
        await trio.sleep(5)
        assert disk.replaced is None
        await store.write(lambda tx: tx.emit(event()))
        nursery.cancel_scope.cancel()
    told = [record.levelno for record in caplog.records if record.name == "impervious.store.disk"]
    assert told == [logging.ERROR, logging.WARNING]


async def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "imp.db"
    async with open_store(path, run_sync=inline) as store:
        disk = Disk(store, path, run_sync=inline)
        await disk.look()
        path.parent.rename(tmp_path / "elsewhere")
        await disk.look()
        assert disk.replaced
        assert "cannot be looked at" in disk.replaced
