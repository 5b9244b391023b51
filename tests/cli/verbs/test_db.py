import json
import re
import time
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import inline
from tests.store.test_maintenance import fill
from tests.store.test_upkeep import POLICY

from impervious.cli.main import main
from impervious.model import MessageId, NodePubkey, OutboundMessage, PaymentHash, RecordType, ServiceType
from impervious.outbound import accept
from impervious.store import Tx, inbox, log, open_store, quarantine
from impervious.store.connection import locked
from impervious.store.maintenance import change, look
from impervious.units import Msat


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yml"
    path.write_text(f"sqlite3: {{path: {tmp_path}/imp.db}}\n")
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    async def make() -> None:
        await fill(tmp_path / "imp.db", events=150)

    trio.run(make)
    return tmp_path / "imp.db"


@pytest.fixture
def encrypted(tmp_path: Path, config: Path) -> Path:
    """A database with a password; few tests need one, because opening it takes a third of a second."""

    async def make() -> None:
        await fill(tmp_path / "imp.db", password="present", events=150)

    trio.run(make)
    config.write_text(f"sqlite3: {{path: {tmp_path}/imp.db, password: present}}\n")
    return tmp_path / "imp.db"


def send(path: Path) -> MessageId:
    """Accept a message, an hour ago as it were, that is never sent."""
    message = OutboundMessage(
        id=uuid4(),
        recipient=NodePubkey(b"\2" + bytes(32)),
        service_type=ServiceType("message"),
        payload=b"x",
        amount=Msat(1000),
    )

    def store(tx: Tx) -> None:
        accept(tx, message, POLICY)
        tx.run("UPDATE outbound SET accepted_at_ms = accepted_at_ms - 3600000")

    change(path, None, store, keep=True)
    return message.id


def test_show(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    send(database)
    assert main(["db", "show", "--config", "c.yml"]) == 0
    out = capsys.readouterr().out
    assert re.match(re.escape(str(database)) + r": 1\.\d MiB, not encrypted, no daemon has it\n", out)
    assert "  events      150 (150 message), 1.4 MiB of data\n" in out
    assert "  seq         1 to 150\n" in out
    assert "  to send     1 messages neither delivered nor failed, the oldest accepted 1 hour ago\n" in out
    assert "  spent       4 of 100,000 sat in 24 hours" in out
    with locked(database):
        assert main(["--config", "c.yml", "db", "show", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["events"], told["oldest_seq"], told["newest_seq"]) == (150, 1, 150)
    assert (told["served"], told["encrypted"], told["unfinished_messages"]) == (True, False, 1)
    assert told["newest_at_ms"] >= told["oldest_at_ms"] > 0


def test_prune(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "prune", "--mb", "1", "--config", "c.yml"]) == 0
    assert capsys.readouterr().out == "48 events would go and 102 stay; --yes does it\n"
    assert look(database, None, log.extent)[0].events == 150
    with locked(database):
        assert main(["db", "prune", "--mb", "1", "--yes", "--config", "c.yml"]) == 0
    assert capsys.readouterr().out == (
        "48 events are gone and 102 stay\n"
        "the file keeps its size while a daemon has it; the space is used for new events\n"
    )
    assert main(["db", "prune", "--days", "0", "--yes", "--json", "--config", "c.yml"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 102, "kept": 0, "done": True, "shrunk": True}
    assert main(["db", "show", "--config", "c.yml"]) == 0
    assert "  events      none kept; the last seq was 150\n" in capsys.readouterr().out


def test_prune_with_a_clock_that_is_ahead(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ahead_ns = time.time_ns() + 400 * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: ahead_ns)
    assert main(["db", "prune", "--days", "30", "--yes", "--json", "--config", "c.yml"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 0


def test_prune_as_the_daemon_would(database: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "prune", "--config", "c.yml"]) == 0  # it is far from the default
    assert capsys.readouterr().out.startswith("0 events would go and 150 stay")
    text = config.read_text()
    config.write_text(text + "limits: {events_mb: 0}\n")
    assert main(["db", "prune", "--config", "c.yml"]) == 2
    assert "say what is to go" in capsys.readouterr().err
    config.write_text(text + "limits: {events_mb: 1}\n")
    assert main(["db", "prune", "--config", "c.yml"]) == 0
    assert capsys.readouterr().out.startswith("48 events would go")
    assert main(["db", "prune", "--days", "-1", "--config", "c.yml"]) == 2


@pytest.mark.slow
def test_rekey_by_every_way_a_password_comes(
    encrypted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").write_text("from a file\n")
    assert main(["db", "rekey", "--new-password-file", "new", "--config", "c.yml"]) == 0
    assert capsys.readouterr().out == (
        f"{encrypted} is encrypted with the new password\n"
        "Now put it at sqlite3.password in c.yml, or into IMPERVIOUS_SQLITE3__PASSWORD, "
        "or the daemon cannot open it.\n"
    )
    assert look(encrypted, "from a file", log.extent)[0].events == 150

    monkeypatch.setenv("IMPERVIOUS_NEW_PASSWORD", "from the environment")
    assert main(["db", "rekey", "--config", "c.yml"]) == 2  # the configuration's password is not its own any more
    assert "sqlite3.password does not open" in capsys.readouterr().err
    assert main(["db", "rekey", "--old-password-file", "new", "--config", "c.yml"]) == 0
    monkeypatch.setenv("IMPERVIOUS_OLD_PASSWORD", "from the environment")
    assert main(["db", "rekey", "--remove", "--config", "c.yml"]) == 0
    assert "take sqlite3.password out of c.yml" in capsys.readouterr().out
    assert look(encrypted, None, log.extent)[0].events == 150


@pytest.mark.slow
def test_rekey_at_a_terminal(
    encrypted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["one", "other", "typed", "typed"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    assert main(["db", "rekey", "--config", "c.yml"]) == 2
    assert "the two are not the same" in capsys.readouterr().err
    assert main(["db", "rekey", "--config", "c.yml"]) == 0
    assert look(encrypted, "typed", log.extent)[0].events == 150
    assert "typed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (None, "give the new password in IMPERVIOUS_NEW_PASSWORD"),
        ("", "is empty; --remove is how"),
        ("supersecretpassword", "everybody knows"),
        ("a\nb", "cannot be printed"),
        ("present", "that is the present password"),
    ],
)
def test_passwords_that_are_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    new: str | None,
    words: str,
) -> None:
    (tmp_path / "imp.db").touch()
    monkeypatch.setenv("IMPERVIOUS_SQLITE3__PASSWORD", "present")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    if new is not None:
        monkeypatch.setenv("IMPERVIOUS_NEW_PASSWORD", new)
    assert main(["db", "rekey", "--config", "c.yml"]) == 2
    assert words in capsys.readouterr().err


def test_rekey_leaves_a_daemon_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "imp.db").touch()
    monkeypatch.setenv("IMPERVIOUS_NEW_PASSWORD", "new")
    with locked(tmp_path / "imp.db"):
        assert main(["db", "rekey", "--config", "c.yml"]) == 2
    assert "is in use by another daemon: stop it" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["show", "prune --days 1", "rekey --remove"])
def test_without_a_database(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", *line.split(), "--config", "c.yml"]) == 2
    assert "there is no database at" in capsys.readouterr().err
    assert not (tmp_path / "imp.db").exists()


def test_contradictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "imp.db").touch()
    assert main(["db", "rekey", "--remove", "--new-password-file", "x", "--config", "c.yml"]) == 2
    assert main(["db", "rekey", "--new-password-file", "gone", "--config", "c.yml"]) == 2
    err = capsys.readouterr().err
    assert "contradict each other" in err
    assert "--new-password-file gone: cannot be read" in err


# --- quarantine -------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_quarantine(tmp_path: Path) -> Path:
    async def make() -> None:
        def put(tx: Tx) -> None:
            for number in range(3):
                inbox.quarantine(
                    tx,
                    PaymentHash(bytes([number]) * 32),
                    f"reason {number}",
                    record_type=RecordType(400_000),
                    value=b"hello\n\x1b",
                    amount=Msat(2000),
                    service_type=ServiceType("message"),
                )

        async with open_store(tmp_path / "imp.db", run_sync=inline) as store:
            await store.write(put)

    trio.run(make)
    return tmp_path / "imp.db"


def test_quarantine_is_listed(with_quarantine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "quarantine", "list", "--config", "c.yml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines] == ["reason 0", "reason 1", "reason 2"]
    assert main(["db", "quarantine", "list", "--limit", "1", "--json", "--config", "c.yml"]) == 0
    [shape] = json.loads(capsys.readouterr().out)
    assert (shape["number"], shape["amount_msat"], shape["service"], shape["bytes"]) == (3, 2000, "message", 7)
    assert main(["db", "quarantine", "list", "--limit", "0", "--config", "c.yml"]) == 2


def test_quarantine_is_looked_at(with_quarantine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "quarantine", "show", "2", "--config", "c.yml"]) == 0
    out = capsys.readouterr().out
    assert "reason 1" in out
    assert b"hello\n\x1b".hex() in out
    assert "\x1b" not in out  # what strangers wrote does not reach the terminal
    assert main(["db", "quarantine", "show", "2", "--json", "--config", "c.yml"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == b"hello\n\x1b".hex()
    assert main(["db", "quarantine", "show", "9", "--config", "c.yml"]) != 0
    assert "there is no payment 9 in quarantine" in capsys.readouterr().err


def test_quarantine_is_released_by_the_daemon(with_quarantine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "quarantine", "release", "1", "3", "--config", "c.yml"]) == 0
    assert "when it starts" in capsys.readouterr().out
    assert look(with_quarantine, None, lambda tx: quarantine.wanted(tx, limit=9))[0] == [1, 3]
    with locked(with_quarantine):
        assert main(["db", "quarantine", "release", "2", "--json", "--config", "c.yml"]) == 0
        assert json.loads(capsys.readouterr().out) == {"releasing": [2], "served": True}
    assert main(["db", "quarantine", "release", "2", "9", "--config", "c.yml"]) != 0
