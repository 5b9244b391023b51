import os
import sys
from pathlib import Path

import pytest

from impervious.cli.main import main
from impervious.config_file import read_config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "platform", "linux")
    return home


def test_the_file_it_writes_is_found_and_can_be_loaded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    out = capsys.readouterr().out
    assert "wrote config/config.yml" in out
    assert "  impervious config check\n" in out
    assert Path("config/config.yml").stat().st_mode & 0o777 == 0o600
    found = read_config(None, needs_lnd=False, environ={})
    assert found.path == Path("config/config.yml")
    assert found.warnings == ()
    assert found.config.lightning.lnd.tls_cert == home / ".lnd/tls.cert"
    assert found.config.lightning.lnd.macaroon == home / ".lnd/data/chain/bitcoin/mainnet/admin.macaroon"
    password = found.config.store.password
    assert password is not None
    assert len(password) >= 32
    assert password not in out


def test_each_file_has_its_own_password() -> None:
    assert main(["init", "a.yml"]) == main(["init", "--config", "b.yml"]) == 0
    one, other = (read_config(name, needs_lnd=False, environ={}).config.store for name in ("a.yml", "b.yml"))
    assert one.password != other.password


def test_it_points_at_the_network_that_lnd_here_is_on(home: Path) -> None:
    macaroon = home / ".lnd/data/chain/bitcoin/regtest/admin.macaroon"
    macaroon.parent.mkdir(parents=True)
    macaroon.touch()
    assert main(["init", "a.yml"]) == 0
    assert read_config("a.yml", needs_lnd=False, environ={}).config.lightning.lnd.macaroon == macaroon


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # of whom the password database knows nothing
    assert main(["init", "a.yml"]) == 0
    assert "~/.lnd/tls.cert" in Path("a.yml").read_text()


def test_where_lnd_lives_on_macos(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert main(["init", "a.yml"]) == 0
    found = read_config("a.yml", needs_lnd=False, environ={})
    assert found.config.lightning.lnd.tls_cert == home / "Library/Application Support/Lnd/tls.cert"


def test_a_file_is_replaced_only_when_told_to_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yml").write_text("mine")
    assert main(["init", "a.yml"]) == 2
    assert "a.yml: exists already; --force replaces it and keeps the old one as a.yml.bak" in capsys.readouterr().err
    assert Path("a.yml").read_text() == "mine"
    assert main(["init", "a.yml", "--force"]) == 0
    assert Path("a.yml.bak").read_text() == "mine"
    second = Path("a.yml").read_text()
    assert main(["init", "a.yml", "--force"]) == 0
    out = capsys.readouterr().out
    assert "kept the old one as a.yml.bak2: it holds the password" in out
    assert "  impervious --config a.yml config check\n" in out
    assert Path("a.yml.bak2").read_text() == second
    assert main(["init", "new.yml", "--force"]) == 0


def test_a_place_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    for path in ("file/a.yml", "file/b/a.yml"):
        assert main(["init", path]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"impervious: {path}: cannot be written: ")
        assert err.count("\n") == 1
