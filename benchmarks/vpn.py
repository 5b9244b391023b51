"""A seller with 250 contracts starts: how long until its WireGuard interface is as the database says?

The daemon is opened as at any start, on an encrypted database; the interface is the kernel's or wireguard-go's, in a
network namespace, programmed with the real `wg`. Where this machine can have none, it is one in memory, and the title
says so: what is left is the daemon's own share. The rival changes one peer at a time.
"""

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from uuid import UUID

import trio
from tests.wireguard.lab import open_lab, why_not
from tests.wireguard.memory import MemoryWireGuard

from impervious.config import Config, StoreConfig, VpnConfig
from impervious.model import NodePubkey
from impervious.services.vpn.contract import Phase, Sold, Term
from impervious.services.vpn.seller_books import SqlSellerBooks
from impervious.services.vpn.service import VpnService
from impervious.sim import SimNetwork
from impervious.supervisor import open_node
from impervious.units import Msat
from impervious.wireguard import Peer, PresharedKey, PrivateKey, PublicKey, Transfer, Wg, WireGuard

from .options import Options, print_table

CONTRACTS: Final = 250
TARGET: Final = "1,000"
"""Milliseconds, for the reconciling alone."""
SERVER: Final = PrivateKey.generate()
YEAR_MS: Final = 365 * 86_400_000


@dataclass
class Look:
    """One start of a seller, as its interface sees it."""

    first_s: float = 0.0
    """When it was asked for the first time."""
    done: trio.Event = field(default_factory=trio.Event)
    """The first look was over, with all that it had to change."""

    def begins(self) -> None:
        self.first_s = self.first_s or time.perf_counter()


class WatchedWg(Wg):
    """The real program."""

    look = Look()

    async def peers(self) -> dict[PublicKey, Peer]:
        self.look.begins()
        return await super().peers()

    async def transfer(self) -> dict[PublicKey, Transfer]:
        transfers = await super().transfer()
        self.look.done.set()
        return transfers


class WatchedMemory(MemoryWireGuard):
    """An interface that costs nothing."""

    look = Look()

    async def peers(self) -> dict[PublicKey, Peer]:
        self.look.begins()
        return await super().peers()

    async def transfer(self) -> dict[PublicKey, Transfer]:
        transfers = await super().transfer()
        self.look.done.set()
        return transfers


Watched = WatchedWg | WatchedMemory


def run(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_measure, Path(folder), options)


async def _measure(folder: Path, options: Options) -> None:
    settings = VpnConfig(server_pub_key=SERVER.public.text, server_ip="203.0.113.1", subnet="10.0.0.0/24")
    config = Config(store=StoreConfig(path=folder / "imp.db"), vpn=settings)
    network = SimNetwork.line("alice", "bob")
    async with network.open(), _interface(folder) as wireguard:
        VpnService.open_interface = staticmethod(lambda _config: wireguard)
        async with open_node(config, lightning=network.node("alice")) as node:
            await node.service(VpnService).context.transaction(lambda tx: _fill(SqlSellerBooks(tx)))
        lost, there, one_by_one = [], [], []
        for _ in range(options.rounds):
            await wireguard.remove(list(await wireguard.peers()))
            lost.append(await _start(config, network, wireguard))
            there.append(await _start(config, network, wireguard))
            assert len(await wireguard.peers()) == CONTRACTS
            one_by_one.append(await _one_by_one(wireguard))
    rows = [
        ["the interface lost them, as by a reboot", *_row(lost), TARGET],
        ["they are all there", *_row(there), TARGET],
        ["a change of each by itself, read back", f"{statistics.median(one_by_one):,.0f}", "", ""],
    ]
    why = why_not()
    where = f"an interface in memory ({why})" if why else "the real wg on a real interface"
    title = f"{CONTRACTS} contracts reconcile at start, ms (medians of {options.rounds}, {where})"
    print_table(title, ["", "reconciling", "since the daemon's start", "target"], rows)


def _row(seconds: list[tuple[float, float]]) -> list[str]:
    return [f"{statistics.median(each) * 1e3:,.0f}" for each in zip(*seconds, strict=True)]


@asynccontextmanager
async def _interface(folder: Path) -> AsyncIterator[Watched]:
    if why_not():
        yield WatchedMemory(SERVER)
        return
    async with open_lab(folder) as lab:
        seller = await lab.add("seller")
        await seller.add_wireguard(SERVER, "10.0.0.1/24", listen_port=51820)
        yield WatchedWg("wg0", seller.wg)


def _fill(books: SqlSellerBooks) -> None:
    now_ms = books.tx.now_ms
    for number in range(CONTRACTS):
        contract = Sold(
            nonce=f"{number:032x}",
            buyer=NodePubkey(b"\x02" + bytes(32)),
            request=UUID(int=number),
            key=PrivateKey.generate().public,
            preshared_key=PresharedKey.generate(),
            address=IPv4Address("10.0.0.2") + number,
            hours=1,
            price=Msat(100_000),
            paid_ms=now_ms,
            term=Term(expires_ms=now_ms + YEAR_MS, span_ms=YEAR_MS),
            phase=Phase.ACTIVE,
        )
        books.keep_sold(contract)


async def _start(config: Config, network: SimNetwork, wireguard: Watched) -> tuple[float, float]:
    """Start the daemon; say how long reconciling took, and how long it was until then, in seconds."""
    wireguard.look = look = Look()
    began_s = time.perf_counter()
    async with open_node(config, lightning=network.node("alice")):
        await look.done.wait()
        now_s = time.perf_counter()
        return now_s - look.first_s, now_s - began_s


async def _one_by_one(wireguard: WireGuard) -> float:
    """Suspend each peer with a call of its own; give milliseconds."""
    peers: Mapping[PublicKey, Peer] = await wireguard.peers()
    began_s = time.perf_counter()
    for key in peers:
        await wireguard.set_addresses({key: None})
    return (time.perf_counter() - began_s) * 1e3
