import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.lnd.fake import bake
from tests.rpc.certificates import make_certificate

from impervious.config import Config, LightningConfig, LndConfig, ServerConfig
from impervious.config_file import check_files, find_config, read_config
from impervious.errors import ConfigError

MACAROON = bake(("info", "read"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "config").mkdir()
    return tmp_path


def error(named: str | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read_config(named, environ=environ)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestFinding:
    def test_the_places_in_their_order(self, folder: Path) -> None:
        for name in ("config.yaml", "local.config.yaml", "config.yml", "local.config.yml"):
            (folder / "config" / name).touch()
            assert find_config(None) == Path("config") / name

    def test_the_named_one_comes_first(self, folder: Path) -> None:
        (folder / "config" / "config.yml").touch()
        (folder / "mine").touch()
        assert find_config("mine") == Path("mine")

    def test_none_lists_the_places_and_the_way_out(self) -> None:
        line = error()
        for word in ("--config", "config/local.config.yml", "config/config.yml", "impervious init"):
            assert word in line

    def test_a_named_one_that_is_not_there(self) -> None:
        assert error("nope.yml") == "nope.yml: there is no such file; `impervious init nope.yml` writes a first one"

    def test_the_other_ending_is_warned_about(self, folder: Path) -> None:
        (folder / "a.yaml").write_text("vpn: {price: 5}")
        found = read_config("a.yaml", needs_lnd=False, environ={})
        assert found.warnings == ("a.yaml: the documented ending is .yml: rename the file",)
        assert found.config.vpn.price_sat == 5


class TestReading:
    def test_what_cannot_be_read(self, folder: Path) -> None:
        assert error("config") == "config: cannot be read: Is a directory"
        (folder / "latin.yml").write_bytes(b"a: \xe4\n")
        assert error("latin.yml") == "latin.yml: is not UTF-8 text (byte 4)"

    def test_errors_name_the_file(self, folder: Path) -> None:
        (folder / "c.yml").write_text("\ufeffserver:\n  grpc_adr: x\n", "utf-8")
        assert error("c.yml") == "c.yml:2: server.grpc_adr is not a known key; did you mean server.grpc_addr?"

    def test_the_environment_and_home(self, folder: Path) -> None:
        home = folder / "home"
        home.mkdir()
        (home / "m").write_bytes(MACAROON)
        (folder / "c.yml").touch()
        environ = {"IMPERVIOUS_LIGHTNING__LND_NODE__ADMIN_MACAROON": "~/m", "IMPERVIOUS_SQLITE3__PASSWORD": "hunter22"}
        found = read_config("c.yml", environ=environ)
        assert found.path == Path("c.yml")
        assert found.config.lightning.lnd.macaroon == home / "m"
        assert found.config.store.path == home / ".imp" / "imp.db"
        assert found.warnings == ()
        assert "hunter22" in found.secrets

    def test_a_user_without_a_home_needs_none_where_no_path_begins_with_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # of whom the password database knows nothing
        (folder / "c.yml").write_text("sqlite3: {path: a.db}")
        assert read_config("c.yml", needs_lnd=False, environ={}).config.store.path == Path("a.db")
        for text in ("", "sqlite3: {path: ~/a.db}", "sqlite3: {path: ~no-such-user/a.db}"):
            (folder / "c.yml").write_text(text)
            with pytest.raises(ConfigError, match="begins with ~, and this user has no home directory"):
                read_config("c.yml", needs_lnd=False, environ={})

    def test_those_who_only_look_need_no_credentials(self, folder: Path) -> None:
        (folder / "c.yml").write_text("lightning: {lnd_node: {tls_cert: nowhere}}")
        assert read_config("c.yml", needs_lnd=False, environ={}).config.lightning.lnd.tls_cert == Path("nowhere")
        assert "admin_macaroon is not set" in error("c.yml")


class TestCredentials:
    @pytest.fixture
    def good(self, folder: Path) -> Config:
        files = make_certificate(folder)
        files.certificate.rename(folder / "c")
        files.key.rename(folder / "k")
        (folder / "m").write_bytes(MACAROON)
        lnd = LndConfig(macaroon=Path("m"), tls_cert=Path("c"))
        return Config(lightning=LightningConfig(lnd=lnd), server=ServerConfig(tls_cert=Path("c"), tls_key=Path("k")))

    def test_good_ones(self, good: Config) -> None:
        check_files(good)
        check_files(Config())

    @pytest.mark.parametrize(
        ("name", "content", "line"),
        [
            ("m", b"", "lightning.lnd_node.admin_macaroon: m holds no macaroon, it is empty: copy LND's"),
            ("m", MACAROON.hex().encode() + b"\n", "put that into lightning.lnd_node.admin_macaroon_hex instead"),
            ("m", base64.b64encode(MACAROON), "m holds no macaroon but its text in base64: copy LND"),
            ("m", base64.urlsafe_b64encode(MACAROON).rstrip(b"="), "m holds no macaroon but its text in base64"),
            ("m", b"lndconnect://a", "put its text into lightning.lnd_node.lndconnect instead"),
            ("c", b"0\x82", "lightning.lnd_node.tls_cert: c holds no certificate"),
            ("k", b"0\x82", "server.tls_key: k is not a PEM private key"),
            ("m", None, "lightning.lnd_node.admin_macaroon: cannot read m: No such file or directory"),
            ("c", None, "lightning.lnd_node.tls_cert: cannot read c: No such file or directory"),
            ("k", None, "server.tls_key: cannot read k: No such file or directory"),
        ],
    )
    def test_bad_ones_name_the_setting_and_the_path(
        self, good: Config, folder: Path, name: str, content: bytes | None, line: str
    ) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            check_files(good)
        assert line in str(raised.value)

    def test_a_key_with_a_password_or_of_another_certificate(self, good: Config, folder: Path) -> None:
        key = serialization.load_pem_private_key((folder / "k").read_bytes(), None)
        hidden = serialization.BestAvailableEncryption(b"secret")
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / "k").write_bytes(key.private_bytes(pem, pkcs8, hidden))
        with pytest.raises(ConfigError, match=r"server\.tls_key k is encrypted"):
            check_files(good)
        make_certificate(folder).key.rename(folder / "k")
        with pytest.raises(ConfigError, match="cannot be used together"):
            check_files(good)

    def test_an_lndconnect_address_that_holds_hex(self) -> None:
        lnd = LndConfig(lndconnect=f"lndconnect://127.0.0.1?macaroon={MACAROON.hex()}")
        with pytest.raises(ConfigError, match="holds no macaroon"):
            check_files(Config(lightning=LightningConfig(lnd=lnd)))

    def test_hex_in_the_place_of_a_path_is_not_repeated(self, good: Config) -> None:
        text = MACAROON.hex() * 20
        with pytest.raises(ConfigError) as raised:
            check_files(Config(lightning=LightningConfig(lnd=LndConfig(macaroon=Path(text)))))
        assert "not its contents in hex: lightning.lnd_node.admin_macaroon_hex takes hex" in str(raised.value)
        assert MACAROON.hex() not in str(raised.value)
        with pytest.raises(ConfigError, match=r"^server\.tls_key must be the path of a file, not its contents in hex$"):
            check_files(Config(server=ServerConfig(tls_cert=good.server.tls_cert, tls_key=Path(text))))

    def test_the_certificate_of_doors_that_are_off_is_not_read(self) -> None:
        check_files(Config(server=ServerConfig(enabled=False, tls_cert=Path("x"), tls_key=Path("y"))))
