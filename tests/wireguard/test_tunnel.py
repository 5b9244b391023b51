"""Tunnels as buyers and sellers have them: the file we write, the real `wg-quick`, packets through it."""

import os
from ipaddress import ip_address
from pathlib import Path

import trio
from tests.wireguard.lab import BUYER, SELLER, Machine, TwoMachines, transfer

from impervious.wireguard import (
    ClientConfig,
    Host,
    PresharedKey,
    PrivateKey,
    Reconciler,
    Traffic,
    Wanted,
    WantedPeer,
    Wg,
    interface_name,
    write_private,
)

SERVER = PrivateKey.generate()
MINE = PrivateKey.generate()
SECRET = PresharedKey.generate()
NAME = interface_name("a contract")


def bought(*, address: str = "10.0.0.2", endpoint: str = f"{SELLER}:51820", **changed: str) -> ClientConfig:
    received = {"dns": "", "preshared_key": SECRET.text, "allowed_ips": "0.0.0.0/0", **changed}
    return ClientConfig.received(MINE, address=address, endpoint=endpoint, server_key=SERVER.public.text, **received)


class Seller:
    """A seller's interface and what its database would say."""

    def __init__(self, machine: Machine) -> None:
        self.wg = Wg("wg0", machine.wg)
        self._wanted = Wanted()
        self._reconciler = Reconciler(self.wg, self._read)

    async def sell(self, address: Host | None) -> None:
        self._wanted = Wanted(peers=[WantedPeer(key=MINE.public, address=address, preshared_key=SECRET)])
        await self._reconciler.reconcile()

    async def end(self) -> None:
        self._wanted = Wanted(ours={MINE.public})
        await self._reconciler.reconcile()

    async def _read(self) -> Wanted:
        await trio.lowlevel.checkpoint()
        return self._wanted


async def up(machine: Machine, folder: Path, config: ClientConfig) -> None:
    path = folder / f"{NAME}.conf"
    write_private(path, config.text())
    await machine.run("wg-quick", "up", str(path))


async def test_the_file_makes_a_tunnel_and_its_life_goes_on(machines: TwoMachines, tmp_path: Path) -> None:
    seller, buyer = machines.seller, machines.buyer
    await seller.add_wireguard(SERVER, "10.0.0.1/24", listen_port=51820)
    shop, address = Seller(seller), ip_address("10.0.0.2")
    await shop.sell(address)
    await up(buyer, tmp_path, bought())
    assert await buyer.ping("10.0.0.1")
    await transfer(buyer, seller, "10.0.0.1", 20_000_000)
    await transfer(seller, buyer, "10.0.0.2", 1_000_000, port=7778)

    # A renewal changes nothing, and neither does a look.
    async with buyer.pinging("10.0.0.1") as pings:
        for _ in range(5):
            await shop.sell(address)
            await pings.fresh.wait()
    assert pings.answered
    assert pings.lost == []

    # Suspended and restored: nothing through, then everything, without a new handshake.
    handshakes = await shop.wg.handshakes()
    await shop.sell(None)
    assert not await buyer.ping("10.0.0.1", within_s=0.3)
    await shop.sell(address)
    with trio.fail_after(2):
        assert await buyer.ping("10.0.0.1")
    assert await shop.wg.handshakes() == handshakes

    # What was used is known, also after the interface was made again.
    used = Traffic().counting((await shop.wg.transfer())[MINE.public])
    assert used.received_bytes > 20_000_000
    assert used.sent_bytes > 1_000_000
    await shop.end()
    assert not await buyer.ping("10.0.0.1", within_s=0.3)
    await shop.sell(address)
    again = (await shop.wg.transfer())[MINE.public]
    assert again.received_bytes < used.received_bytes
    assert used.counting(again).received_bytes >= used.received_bytes


async def test_another_preshared_key_opens_nothing(machines: TwoMachines, tmp_path: Path) -> None:
    await machines.seller.add_wireguard(SERVER, "10.0.0.1/24", listen_port=51820)
    await Seller(machines.seller).sell(ip_address("10.0.0.2"))
    await up(machines.buyer, tmp_path, bought(preshared_key=PresharedKey.generate().text))
    assert not await machines.buyer.ping("10.0.0.1", within_s=0.5)


async def test_an_ipv6_subnet_and_endpoint(machines: TwoMachines, tmp_path: Path) -> None:
    seller, buyer = machines.seller, machines.buyer
    for machine, address in ((seller, "2001:db8::1/64"), (buyer, "2001:db8::2/64")):
        await machine.run("ip", "address", "add", address, "dev", "eth0", "nodad")
    await seller.add_wireguard(SERVER, "fd00::1/64", listen_port=51820)
    await Seller(seller).sell(ip_address("fd00::2"))
    config = bought(address="fd00::2", endpoint="[2001:db8::1]:51820", allowed_ips="::/0")
    await up(buyer, tmp_path, config)
    assert await buyer.ping("fd00::1")


async def test_wg_quick_is_told_the_resolver(machines: TwoMachines, tmp_path: Path) -> None:
    told = tmp_path / "told"
    resolvconf = tmp_path / "resolvconf"
    resolvconf.write_text(f"#!/bin/sh\ncat > {told}\n")
    resolvconf.chmod(0o700)
    path = tmp_path / f"{NAME}.conf"
    write_private(path, bought(dns="10.0.0.1,9.9.9.9").text())
    await machines.buyer.run("env", f"PATH={tmp_path}:{os.environ['PATH']}", "wg-quick", "up", str(path))
    assert told.read_text() == "nameserver 10.0.0.1\nnameserver 9.9.9.9\n"


async def test_a_cable_is_not_a_tunnel(machines: TwoMachines) -> None:
    """What the other tests stand on: the machines see each other, and nothing else answers in the tunnel's place."""
    assert await machines.buyer.ping(SELLER)
    assert await machines.seller.ping(BUYER)
    assert not await machines.buyer.ping("10.0.0.1", within_s=0.2)
