import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.lnd.fake import bake

from impervious.cli.main import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").write_bytes(bake(("info", "read")))
    (tmp_path / "c.yml").write_text("sqlite3: {password: hunter22}\nlightning: {lnd_node: {admin_macaroon: m}}\n")
    return tmp_path


def test_show_prints_what_is_in_effect_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPERVIOUS_VPN__PRICE", "77")
    assert main(["--config", "c.yml", "config", "show"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# c.yml and the environment\nserver:\n")
    assert "  price: 77\n" in out
    assert "hunter22" not in out
    assert main(["--config", "c.yml", "config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sqlite3"]["password"] == "***"


def test_show_works_before_the_credentials_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "m").unlink()
    assert main(["config", "show", "--config", "c.yml"]) == 0
    assert "admin_macaroon: m\n" in capsys.readouterr().out


def test_check_of_a_good_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yml").rename("c.yaml")
    assert main(["config", "check", "--config", "c.yaml"]) == 0
    assert capsys.readouterr().out == "warning: c.yaml: the documented ending is .yml: rename the file\nc.yaml: ok\n"
    assert main(["config", "check", "--config", "c.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "ok": True,
        "file": "c.yaml",
        "warnings": ["c.yaml: the documented ending is .yml: rename the file"],
    }


def test_check_of_a_bad_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "m").unlink()
    line = "lightning.lnd_node.admin_macaroon: cannot read m: No such file or directory"
    line += "; put the path of LND's admin.macaroon there"
    assert main(["config", "check", "--config", "c.yml"]) == 2
    assert capsys.readouterr() == ("", f"impervious: {line}\n")
    assert main(["config", "check", "--config", "c.yml", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"ok": False, "error": line}


def test_check_looks_for_the_services_as_run_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "c.yml").open("a") as file:
        file.write("service_list:\n- {service_type: chess, active: true, custom_record_number: 70001}\n")
    assert main(["config", "check", "--config", "c.yml"]) == 2
    assert "chess" in capsys.readouterr().err


def test_check_looks_at_the_database_as_run_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(each.name for each in folder.iterdir())
    path = folder / "foreign.db"
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute("CREATE VIEW v AS SELECT 1")
    content = path.read_bytes()
    with (folder / "c.yml").open("w") as file:
        file.write("sqlite3: {path: foreign.db}\nlightning: {lnd_node: {admin_macaroon: m}}\n")
    assert main(["config", "check", "--config", "c.yml"]) == 2
    assert "is a database of another program" in capsys.readouterr().err
    path.write_bytes(bytes(100) + content[100:])
    assert main(["config", "check", "--config", "c.yml", "--json"]) == 1
    assert "its first bytes are zero" in json.loads(capsys.readouterr().out)["error"]
    path.unlink()
    assert main(["config", "check", "--config", "c.yml"]) == 0
    assert sorted(each.name for each in folder.iterdir()) == before
