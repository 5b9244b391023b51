import sys
from pathlib import Path

import pytest
import trio
from sqlcipher3 import dbapi2
from tests.conftest import inline
from tests.store.test_maintenance import event, fill

from impervious.errors import StoreError, StoreKeyWrong, StoreLocked
from impervious.store import log, open_store
from impervious.store import rekey as module
from impervious.store.connection import in_hands, locked
from impervious.store.maintenance import look
from impervious.store.rekey import COPY_ENDING, rekey

pytestmark = pytest.mark.slow  # SQLCipher takes its time to make a key of a password


def extent(path: Path, password: str | None) -> tuple[int, int]:
    found = look(path, password, log.extent)[0]
    return found.events, found.newest


@pytest.mark.parametrize(
    ("old", "new"), [(None, "first"), ("first", 'it\'s "another"'), ("first", None)], ids=["set", "change", "remove"]
)
async def test_all_is_there_under_the_new_password_only(tmp_path: Path, old: str | None, new: str | None) -> None:
    path = tmp_path / "imp.db"
    await fill(path, password=old)
    path.chmod(0o640)
    rekey(path, old, new)
    assert extent(path, new) == (10, 10)
    assert (path.read_bytes()[:15] == b"SQLite format 3") == (new is None)
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(StoreKeyWrong):
        look(path, old, log.extent)
    assert {each.name for each in tmp_path.iterdir()} == {"imp.db", "imp.db.lock", "imp.db.db-command.lock"}
    async with open_store(path, new, run_sync=inline) as store:  # and a daemon goes on with it
        await store.write(lambda tx: tx.emit(event()))
        assert await store.read(log.newest) == 11


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    await fill(tmp_path / "disk/real.db")
    link = tmp_path / "imp.db"
    link.symlink_to(tmp_path / "disk/real.db")
    rekey(link, None, "new")
    assert link.is_symlink()
    assert extent(tmp_path / "disk/real.db", "new") == (10, 10)


async def test_who_else_has_it_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    await fill(path)
    with locked(path), pytest.raises(StoreLocked, match="in use by another daemon"):
        rekey(path, None, "new")
    with in_hands(path), pytest.raises(StoreLocked, match="another `impervious db`"):
        rekey(path, None, "new")
    other = dbapi2.connect(str(path))
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM event").fetchone()
    with pytest.raises(StoreError, match="open in another program"):
        rekey(path, None, "new")
    other.close()
    with pytest.raises(StoreKeyWrong):
        rekey(path, "wrong", "new")
    assert extent(path, None) == (10, 10)


async def test_a_copy_that_is_not_like_it_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "imp.db"
    await fill(path)
    contents = iter(range(2))
    monkeypatch.setattr(module, "_contents", lambda _: {"rows": next(contents)})
    with pytest.raises(StoreError, match="is not like it: nothing was changed"):
        rekey(path, None, "new")
    assert extent(path, None) == (10, 10)
    assert not path.with_name(path.name + COPY_ENDING).exists()


KILLED = """
import os, sys
from pathlib import Path
from impervious.store import rekey as module
step, path = sys.argv[1:]
before, name = step.split()
target = Path if name == "replace" else module
original = getattr(target, name)
def killed(*args, **kwargs):
    if before == "after":
        original(*args, **kwargs)
    os._exit(9)
setattr(target, name, killed)
module.rekey(Path(path), None, "new")
"""


@pytest.mark.parametrize(
    ("step", "password"),
    [
        ("after _claim", None),
        ("after _make", None),
        ("after _export", None),
        ("after _compare", None),
        ("before replace", None),
        ("after replace", "new"),
    ],
)
async def test_killed_at_any_moment_it_opens_with_one_of_both(tmp_path: Path, step: str, password: str | None) -> None:
    path = tmp_path / "imp.db"
    await fill(path)
    killed = await trio.run_process([sys.executable, "-c", KILLED, step, str(path)], check=False)
    assert killed.returncode == 9
    assert extent(path, password) == (10, 10)
    rekey(path, password, None)  # what was left behind is in nobody's way
    assert extent(path, None) == (10, 10)
    assert not list(tmp_path.glob(f"*{COPY_ENDING}*"))
