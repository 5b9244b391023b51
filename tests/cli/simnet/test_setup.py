from pathlib import Path

import pytest

from impervious.cli.simnet.layout import NodePorts
from impervious.cli.simnet.setup import FILE, set_up
from impervious.config_file import read_config
from impervious.errors import ConfigError
from impervious.model import NodePubkey
from impervious.sim.engine.identity import Identity
from impervious.sim.face import Credentials, ServedLnd

PORTS = NodePorts.at(9000, 0)


def served(folder: Path, *, port: int = PORTS.lnd, secret: int = 1) -> ServedLnd:
    pubkey: NodePubkey = Identity(bytes([secret]) * 32).pubkey
    return ServedLnd(name="alice", pubkey=pubkey, host="127.0.0.1", port=port, credentials=Credentials.kept(folder))


def test_a_daemon_can_start_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lnd = served(Path("net/alice"))
    setup = set_up(lnd, PORTS)
    assert setup.problems == ()
    monkeypatch.chdir("/")  # a daemon may be started anywhere
    found = read_config(str(tmp_path / setup.path), environ={})
    assert found.warnings == ()
    assert found.config == setup.config
    config = found.config
    assert (config.server.grpc_addr.port, config.server.http_addr.port) == (9000, 9001)
    assert config.server.http_text_addr is not None
    assert config.server.http_text_addr.port == 9002
    assert config.store.path == tmp_path / "net/alice/imp.db"
    assert config.lightning.lnd.pubkey == lnd.pubkey.hex
    assert (config.lightning.lnd.host, config.lightning.lnd.port) == ("127.0.0.1", 9009)
    assert (config.socket.server_ip, config.socket.ports) == ("127.0.0.1", PORTS.relay)
    assert found.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = set_up(served(tmp_path), PORTS).path
    text = path.read_text().replace(":9001", ":9777")
    path.write_text(text)
    setup = set_up(served(tmp_path), PORTS)
    assert path.read_text() == text
    assert setup.config is not None
    assert setup.config.server.http_addr.port == 9777
    assert setup.problems == ()


def test_what_no_longer_fits_is_told(tmp_path: Path) -> None:
    set_up(served(tmp_path), PORTS)
    port, key = set_up(served(tmp_path, port=9999, secret=2), PORTS).problems
    assert f"{tmp_path / FILE}: lightning.lnd_node.port is 9009, but the LND of alice listens on 9999" in port
    assert "pub_key is another node's than alice" in key


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("servre: 1\n")
    setup = set_up(served(tmp_path), PORTS)
    assert setup.config is None
    assert "did you mean server?" in setup.problems[0]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    lnd = served(tmp_path)
    (tmp_path / "config.new").mkdir()
    with pytest.raises(ConfigError, match=r"config\.yml cannot be written: Is a directory"):
        set_up(lnd, PORTS)
