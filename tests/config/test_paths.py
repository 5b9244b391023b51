from pathlib import Path

from impervious.config import Config, LightningConfig, LndConfig, ServerConfig, StoreConfig, expand_home

HOME = Path("/home/alice")


def at_home(path: Path) -> Path:
    return Path("/home") / (path.parts[0][1:] or "alice") / Path(*path.parts[1:])


def test_home_goes_in_front_wherever_a_path_begins_with_it() -> None:
    lnd = LndConfig(tls_cert=Path("~/.lnd/tls.cert"), macaroon=Path("/lnd/admin.macaroon"))
    config = Config(
        server=ServerConfig(tls_cert=Path("~"), tls_key=Path("a/~/b")),
        store=StoreConfig(path=Path("~bob/imp.db")),
        lightning=LightningConfig(lnd=lnd),
    )
    found = expand_home(config, at_home)
    assert found.lightning.lnd == LndConfig(
        tls_cert=Path("/home/alice/.lnd/tls.cert"), macaroon=Path("/lnd/admin.macaroon")
    )
    assert found.server == ServerConfig(tls_cert=HOME, tls_key=Path("a/~/b"))
    assert found.store == StoreConfig(path=Path("/home/bob/imp.db"))
    assert found.vpn == config.vpn


def test_the_default_database_is_at_home() -> None:
    assert expand_home(Config(), at_home).store.path == HOME / ".imp" / "imp.db"


def test_without_such_a_path_no_home_is_looked_for() -> None:
    def homeless(path: Path) -> Path:
        raise AssertionError(path)

    config = Config(store=StoreConfig(path=Path("/var/imp.db")), server=ServerConfig(tls_cert=Path("a~b")))
    assert expand_home(config, homeless) == config
