"""Real lnd nodes on a regtest chain of a real btcd, on loopback, for tests that have the binaries on PATH.

Everything is synchronous: a network outlives single tests, and Trio's runs do not. Processes are ended by their id.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from impervious.config import LndConfig
from impervious.model import NodePubkey

NO_PASSWORD, KEYSEND = "--noseedbackup", "--accept-keysend"
"""Options of nodes."""

PROGRAMS = ("btcd", "btcctl", "lnd", "lncli")
_USER, _PASSWORD = "test", "test-password"
_ACTIVATION_BLOCKS = 450
"""btcd's regtest activates segwit after three windows of 144 blocks; it is also more than coinbase maturity."""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def wait_until(what: str, ready: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


class Process:
    """A program that runs in the background, its output in a file."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str]) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen([name, *arguments], stdout=output, stderr=output)

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def check(self) -> None:
        if not self.running:
            raise RuntimeError(f"it ended:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait(10)


class Btcd:
    """The chain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.rpc_port, self._listen_port = free_port(), free_port()
        self._process: Process | None = None

    def start(self, *, mining_address: str | None = None) -> None:
        arguments = [
            "--regtest",
            "--txindex",
            "--nodnsseed",
            f"--datadir={self.folder / 'data'}",
            f"--logdir={self.folder / 'logs'}",
            f"--configfile={self.folder / 'none.conf'}",
            f"--rpccert={self.folder / 'rpc.cert'}",
            f"--rpckey={self.folder / 'rpc.key'}",
            f"--rpcuser={_USER}",
            f"--rpcpass={_PASSWORD}",
            f"--rpclisten=127.0.0.1:{self.rpc_port}",
            f"--listen=127.0.0.1:{self._listen_port}",
        ]
        if mining_address is not None:
            arguments.append(f"--miningaddr={mining_address}")
        self._process = Process("btcd", self.folder, arguments)
        wait_until("btcd answers", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        self._process.check()
        return self._call("getblockcount").returncode == 0

    def _call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        options = [
            "--regtest",
            f"--configfile={self.folder / 'none.conf'}",
            f"--rpccert={self.folder / 'rpc.cert'}",
            f"--rpcuser={_USER}",
            f"--rpcpass={_PASSWORD}",
            f"--rpcserver=127.0.0.1:{self.rpc_port}",
        ]
        return subprocess.run(["btcctl", *options, *arguments], capture_output=True, text=True, check=False, timeout=60)

    def height(self) -> int:
        return int(self._call("getblockcount").stdout)

    def mine(self, blocks: int) -> None:
        done = self._call("generate", str(blocks))
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()


class Lnd:
    """One lnd."""

    def __init__(self, name: str, folder: Path, chain: Btcd, options: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = folder
        self.options = options
        """Besides those that every node here has."""
        folder.mkdir(parents=True)
        self.rpc_port, self.peer_port = free_port(), free_port()
        self._chain = chain
        self._process: Process | None = None
        self.pubkey = NodePubkey(b"\x02" + bytes(32))

    @property
    def config(self) -> LndConfig:
        """How a client reaches it."""
        return LndConfig(host="127.0.0.1", port=self.rpc_port, tls_cert=self.certificate, macaroon=self.macaroon)

    @property
    def certificate(self) -> Path:
        return self.folder / "tls.cert"

    @property
    def macaroon(self) -> Path:
        return self.folder / "data/chain/bitcoin/regtest/admin.macaroon"

    def start(self, *, wait: bool = True) -> None:
        """Run it."""
        arguments = [
            f"--lnddir={self.folder}",
            f"--configfile={self.folder / 'none.conf'}",
            "--bitcoin.regtest",
            "--bitcoin.node=btcd",
            f"--btcd.rpchost=127.0.0.1:{self._chain.rpc_port}",
            f"--btcd.rpcuser={_USER}",
            f"--btcd.rpcpass={_PASSWORD}",
            f"--btcd.rpccert={self._chain.folder / 'rpc.cert'}",
            f"--rpclisten=127.0.0.1:{self.rpc_port}",
            f"--listen=127.0.0.1:{self.peer_port}",
            f"--alias={self.name}",
            "--norest",
            "--nobootstrap",
            "--bitcoin.defaultchanconfs=1",
            "--bitcoin.defaultremotedelay=4",
            "--trickledelay=50",
            "--gossip.sub-batch-delay=5ms",
            *self.options,
        ]
        (self.folder / "none.conf").touch()
        self._process = Process("lnd", self.folder, arguments)
        if wait:
            self.wait_active()

    def wait_active(self) -> None:
        wait_until(f"{self.name} is active", lambda: self.state() == "SERVER_ACTIVE")

    def state(self) -> str:
        assert self._process is not None
        self._process.check()
        done = self._lncli("state")
        return str(json.loads(done.stdout)["state"]) if done.returncode == 0 else ""

    def _lncli(self, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        options = [f"--lnddir={self.folder}", "--network=regtest", f"--rpcserver=127.0.0.1:{self.rpc_port}"]
        return subprocess.run(
            ["lncli", *options, *arguments], capture_output=True, text=True, check=False, timeout=60, input=text
        )

    def call(self, *arguments: str) -> Any:
        """Run an lncli command; what it prints."""
        done = self._lncli(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return json.loads(done.stdout)

    def stop(self) -> None:
        """Let it shut down."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()

    def connect(self, peer: "Lnd") -> None:
        """Connect to a peer, if it is not connected yet."""
        self._lncli("connect", f"{peer.pubkey.hex}@127.0.0.1:{peer.peer_port}")

    def has_coins(self) -> bool:
        return int(self.call("walletbalance")["confirmed_balance"]) > 0

    def has_channel(self, peer: "Lnd") -> bool:
        channels = self.call("listchannels", "--active_only")["channels"]
        return any(channel["remote_pubkey"] == peer.pubkey.hex for channel in channels)

    def knows(self, channels: int, nodes: int) -> bool:
        """Whether its graph has that many channels, both ways, and nodes that have announced themselves."""
        graph = self.call("describegraph")
        edges = [edge for edge in graph["edges"] if edge["node1_policy"] and edge["node2_policy"]]
        announced = [node for node in graph["nodes"] if node["last_update"]]
        return len(edges) >= channels and len(announced) >= nodes

    def synced(self, height: int) -> bool:
        info = self.call("getinfo")
        return bool(info["synced_to_chain"]) and info["block_height"] >= height


class Regtest:
    """A chain and some nodes on it.

    Args:
      folder: where everything is kept.
      nodes: name -> options of its lnd.
    """

    def __init__(self, folder: Path, nodes: Mapping[str, Sequence[str]]) -> None:
        self.chain = Btcd(folder / "btcd")
        self.nodes = {name: Lnd(name, folder / name, self.chain, options) for name, options in nodes.items()}

    def __getitem__(self, name: str) -> Lnd:
        return self.nodes[name]

    def start(self) -> None:
        """Start everything and give the first node coins."""
        first = next(iter(self.nodes.values()))
        self.chain.start()
        first.start(wait=False)
        wait_until("the first node has a wallet", lambda: first.state() in ("RPC_ACTIVE", "SERVER_ACTIVE"))
        address = first.call("newaddress", "p2wkh")["address"]
        first.stop()
        self.chain.stop()
        self.chain.start(mining_address=address)
        self.chain.mine(_ACTIVATION_BLOCKS)
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_active()
            node.pubkey = NodePubkey.parse(node.call("getinfo")["identity_pubkey"])
        self.settle_down()

    def settle_down(self) -> None:
        """Wait until every node has seen the whole chain."""
        height = self.chain.height()
        for node in self.nodes.values():
            wait_until(f"{node.name} is synced", partial(node.synced, height))

    def open_channels(self, *pairs: tuple[str, str]) -> None:
        """Open channels of 5,000,000 sat, a third of it on the far side, and wait until everybody can use them."""
        funder = next(iter(self.nodes.values()))
        others = [self[name] for name in {left for left, _ in pairs} - {funder.name}]
        for node in others:
            address = node.call("newaddress", "p2wkh")["address"]
            funder.call("sendcoins", f"--addr={address}", "--amt=100000000", "--force")
        self.chain.mine(1)
        self.settle_down()
        for node in others:
            wait_until(f"{node.name} has coins", node.has_coins)
        for left, right in pairs:
            one, other = self[left], self[right]
            one.connect(other)
            options = ("--local_amt=5000000", "--push_amt=1600000", "--min_confs=0")  # the change of the one before
            one.call("openchannel", f"--node_key={other.pubkey.hex}", *options)
        self.chain.mine(6)  # so many until a channel is announced
        self.settle_down()
        for left, right in pairs:
            for node, peer in ((self[left], self[right]), (self[right], self[left])):
                wait_until(f"{left}-{right} is active", partial(node.has_channel, peer))
        for node in self.nodes.values():
            wait_until(f"{node.name} knows the graph", partial(node.knows, len(pairs), len(self.nodes)))

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()
        self.chain.stop()


@contextmanager
def running(folder: Path, nodes: Mapping[str, Sequence[str]]) -> Iterator[Regtest]:
    network = Regtest(folder, nodes)
    try:
        network.start()
        yield network
    finally:
        network.stop()
