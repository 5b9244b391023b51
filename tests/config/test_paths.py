from pathlib import Path

from impervious.config import Config, LightningConfig, LndConfig, ServerConfig, StoreConfig, expand_home

HOME = Path("/home/alice")


def test_home_goes_in_front_wherever_a_path_begins_with_it() -> None:
    lnd = LndConfig(tls_cert=Path("~/.lnd/tls.cert"), macaroon=Path("/lnd/admin.macaroon"))
    config = Config(
        server=ServerConfig(tls_cert=Path("~"), tls_key=Path("a/~/b")),
        store=StoreConfig(path=Path("~bob/imp.db")),
        lightning=LightningConfig(lnd=lnd),
    )
    found = expand_home(config, HOME)
    assert found.lightning.lnd == LndConfig(
        tls_cert=Path("/home/alice/.lnd/tls.cert"), macaroon=Path("/lnd/admin.macaroon")
    )
    assert found.server == ServerConfig(tls_cert=HOME, tls_key=Path("a/~/b"))
    assert found.store == StoreConfig(path=Path("~bob/imp.db"))
    assert found.vpn == config.vpn


def test_the_default_database_is_at_home() -> None:
    assert expand_home(Config(), HOME).store.path == HOME / ".imp" / "imp.db"
