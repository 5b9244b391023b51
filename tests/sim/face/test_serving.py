import socket
from pathlib import Path

import pytest
import trio

from impervious.config import LndConfig
from impervious.errors import ConfigError
from impervious.lnd import open_lnd
from impervious.model import NodeState
from impervious.sim import SimNetwork
from impervious.sim.face import ServedLnd, open_lnds


def network() -> SimNetwork:
    return SimNetwork.line("alice", "bob", seed=1, latency_s=(0, 0))


def config(lnd: ServedLnd) -> LndConfig:
    files = lnd.credentials
    return LndConfig(
        host=lnd.host, port=lnd.port, pubkey=lnd.pubkey.hex, tls_cert=files.certificate, macaroon=files.macaroon
    )


async def test_each_node_is_an_lnd_of_its_own_until_the_end(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with network().open() as net:
            async with open_lnds(net, tmp_path) as lnds:
                assert [*lnds] == ["alice", "bob"]
                assert lnds["alice"].port != lnds["bob"].port
                async with open_lnd(config(lnds["alice"])) as alice, open_lnd(config(lnds["bob"])) as bob:
                    assert (await alice.wait_ready()).pubkey == lnds["alice"].pubkey
                    assert (await bob.wait_ready()).pubkey == lnds["bob"].pubkey
                    net.lnd("bob").lock()
                    while bob.status.state is not NodeState.LOCKED:
                        await bob.status_after(bob.status)
                    assert alice.status.ready
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream("127.0.0.1", lnds["alice"].port)


async def test_ports_are_as_told(tmp_path: Path) -> None:
    async with network().open() as net:
        async with open_lnds(net, tmp_path) as lnds:
            ports = {name: lnd.port for name, lnd in lnds.items()}
    async with network().open() as net:
        async with open_lnds(net, tmp_path, ports) as lnds:
            assert {name: lnd.port for name, lnd in lnds.items()} == ports


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with network().open() as net:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"LND of bob cannot listen on .*:{port} "):
                async with open_lnds(net, tmp_path, {"bob": port}):
                    pass


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "alice").touch()
    async with network().open() as net:
        with pytest.raises(ConfigError, match="alice cannot be used: File exists"):
            async with open_lnds(net, tmp_path):
                pass


async def test_cancelled_from_outside_they_serve_until_the_block_has_ended(tmp_path: Path) -> None:
    async with network().open() as net:
        with trio.fail_after(20), trio.CancelScope() as scope:
            async with open_lnds(net, tmp_path) as lnds:
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(10, shield=True):
                        async with open_lnd(config(lnds["alice"])) as alice:
                            assert (await alice.wait_ready()).pubkey == lnds["alice"].pubkey
        assert scope.cancelled_caught


async def test_what_the_block_raises_comes_out_as_it_went_in(tmp_path: Path) -> None:
    error = ValueError("body")
    async with network().open() as net:
        with pytest.raises(ValueError, match="body") as caught:
            async with open_lnds(net, tmp_path):
                raise error
    assert caught.value is error
