from pathlib import Path
from uuid import uuid4

import pytest
from sqlcipher3 import dbapi2
from tests.conftest import inline

from impervious.errors import ConfigError, StoreError, StoreKeyWrong, StoreLocked
from impervious.model import EventKind, NewEvent, ServiceType
from impervious.store import Tx, log, open_store, upkeep
from impervious.store.connection import in_hands, locked
from impervious.store.maintenance import change, change_in_steps, is_served, look, shrink
from impervious.units import Msat


def event(data: bytes = b"x") -> NewEvent:
    return NewEvent(
        kind=EventKind.MESSAGE,
        id=uuid4(),
        reply_to=None,
        sender=None,
        service_type=ServiceType("message"),
        topic=ServiceType("message"),
        data=data,
        amount=Msat(0),
        sent_at_ms=0,
        verified=True,
    )


async def fill(path: Path, *, password: str | None = None, events: int = 10, size: int = 10_000) -> None:
    """What a daemon leaves behind."""

    def emit(tx: Tx) -> None:
        for _ in range(events):
            tx.emit(event(b"x" * size))

    async with open_store(path, password, run_sync=inline) as store:
        await store.write(emit)


def forget(tx: Tx) -> int:
    return log.prune(tx, max_bytes=50_000)


@pytest.mark.slow
async def test_looking_beside_a_daemon(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    async with open_store(path, "secret", now_ms=lambda: 7_000, run_sync=inline) as store:
        await store.write(lambda tx: tx.emit(event()))
        summary, size = look(path, "secret", upkeep.summary)
        assert (summary.events, summary.oldest_at_ms, summary.newest_at_ms) == (1, 7_000, 7_000)
        assert summary.by_type == {"message": 1}
        assert summary.unfinished_since_ms is None
        assert size.file_bytes > 4096
        assert is_served(path)
    assert not is_served(path)


async def test_pruning_beside_a_daemon_and_seeing_first(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    async with open_store(path, run_sync=inline) as store:
        await store.write(lambda tx: [tx.emit(event(b"x" * 10_000)) for _ in range(10)])
        assert change(path, None, forget, keep=False) == 6
        assert (await store.read(log.extent)).events == 10
        assert change(path, None, forget, keep=True) == 6
        assert (await store.read(log.extent)).events == 4
        assert not shrink(path, None)  # the daemon has it
        await store.write(lambda tx: tx.emit(event()))
        assert await store.read(log.newest) == 11


async def test_changing_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"

    def step(tx: Tx) -> int:
        return log.prune(tx, max_bytes=50_000, limit=2)

    async with open_store(path, run_sync=inline) as store:
        await store.write(lambda tx: [tx.emit(event(b"x" * 10_000)) for _ in range(10)])
        assert change_in_steps(path, None, step) == 6
        await store.write(lambda tx: tx.emit(event(b"x" * 10_000)))
    assert change_in_steps(path, None, step) == 1


async def test_an_error_undoes_everything(tmp_path: Path) -> None:
    await fill(tmp_path / "imp.db")

    def fail(tx: Tx) -> None:
        forget(tx)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        change(tmp_path / "imp.db", None, fail, keep=True)
    assert look(tmp_path / "imp.db", None, log.extent)[0].events == 10


async def test_shrinking(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    await fill(path, events=200)
    before = look(path, None, forget_nothing)[1]
    change(path, None, forget, keep=True)
    pruned = look(path, None, forget_nothing)[1]
    assert pruned.free_bytes > 900_000
    assert shrink(path, None)
    after = look(path, None, forget_nothing)[1]
    assert after.free_bytes == 0
    assert after.file_bytes < before.file_bytes / 4


def forget_nothing(_tx: Tx) -> None:
    return


@pytest.mark.slow
async def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    with pytest.raises(ConfigError, match=r"there is no database at .* yet"):
        look(path, None, upkeep.summary)
    assert not path.exists()
    await fill(path, password="secret")
    with pytest.raises(StoreKeyWrong):
        look(path, "other", upkeep.summary)
    with in_hands(path), pytest.raises(StoreLocked, match="another `impervious db` works on"):
        look(path, "secret", upkeep.summary)
    with locked(path):
        assert look(path, "secret", log.extent)[0].events == 10
    for version, words in ((0, "of an older version: start the daemon once"), (99, "made by a newer version")):
        connection = dbapi2.connect(str(path))
        connection.execute("PRAGMA key = 'secret'")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        with pytest.raises(StoreError, match=words):
            look(path, "secret", upkeep.summary)


async def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    await fill(path, events=200)
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff" * 500_000)
    with pytest.raises(StoreError, match="the database cannot be used"):
        look(path, None, lambda tx: tx.all("SELECT * FROM event"))
