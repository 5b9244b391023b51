"""A seller's machine with an internet, a LAN and two buyers around it."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.wireguard.lab import Lab, Machine, open_lab

from impervious.wireguard import ClientConfig, Host, PrivateKey, PublicKey, WantedPeer, Wg

SOMEWHERE: Final = "9.9.9.9"
"""An address on the internet, which is one machine here."""
SOMEWHERE_6: Final = "2620:fe::fe"
SELLER: Final = "198.51.100.1"
NAS: Final = "192.168.9.9"

Found = dict[str, tuple[str, str, str]]
"""Name of a finding -> state, sentence and command."""

_ROOT: Final = Path(__file__).parents[2]


@dataclass
class Town:
    """198.51.100.0/24 leads to the internet, 192.168.9.0/24 is the seller's LAN, and buyers are elsewhere."""

    lab: Lab
    seller: Machine
    world: Machine
    nas: Machine
    buyers: tuple[Machine, Machine]
    folder: Path

    async def sudo(self, script: str) -> str:
        """Run lines of shell on the seller's machine, which need no password."""
        return await self.seller.run("env", f"PATH={self.folder}:{os.environ['PATH']}", "sh", "-euc", script)

    async def check(self, settings: Mapping[str, str | int], *, rounds: int = 1) -> list[Found]:
        """Give what `check` finds there, running every command it gives before it looks again.

        Args:
          settings: below `vpn`.
          rounds: how often it looks.
        """
        path = f"PATH={self.folder}:{os.environ['PATH']}"
        said = await self.seller.run("env", path, sys.executable, "-c", _CHECK, str(rounds), json.dumps(dict(settings)))
        return [{each[0]: (each[1], each[2], each[3]) for each in found} for found in json.loads(said)]

    async def sell(self, buyer: Machine, server: PublicKey, address: Host, **changed: str) -> None:
        """Give a buyer a tunnel, as the service would."""
        key = PrivateKey.generate()
        await Wg("wg0", self.seller.wg).add([WantedPeer(key=key.public, address=address)])
        config = ClientConfig.received(
            key,
            address=str(address),
            dns="",
            server_key=server.text,
            preshared_key="",
            allowed_ips=changed.get("allowed_ips", "0.0.0.0/0, ::/0"),
            endpoint=f"{SELLER}:51820",
        )
        path = self.folder / f"imp-{buyer.name}.conf"
        path.write_text(config.text())
        await buyer.run("wg-quick", "up", str(path))


_CHECK: Final = """
import json, subprocess, sys, trio
from pathlib import Path
from impervious.config import VpnConfig
from impervious.wireguard.check import check
config = VpnConfig(**json.loads(sys.argv[2]), binary_path=Path("/usr/bin/wg"))
looks = []
for round in range(int(sys.argv[1])):
    for name, state, says, fix in looks[-1] if looks else ():
        if fix:
            subprocess.run(fix, shell=True, check=True, stdout=subprocess.DEVNULL)
    looks.append([(each.name, each.state.value, each.says, each.fix) for each in trio.run(check, config)])
print(json.dumps(looks))
"""


def documented(page: str) -> str:
    """Give the commands of a page of the documentation, except those that need what no namespace has."""
    text = (_ROOT / "docs" / page).read_text()
    blocks = re.findall(r"(<!-- needs [^\n]* -->\n)?```sh\n(.*?)```", text, re.DOTALL)
    return "\n".join(block for needs, block in blocks if not needs)


@asynccontextmanager
async def open_town(folder: Path) -> AsyncIterator[Town]:
    """Build the town; the seller's machine has no WireGuard, forwards nothing and has no firewall."""
    sudo = folder / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o700)
    async with open_lab(folder) as lab:
        seller, world, nas = [await lab.add(name) for name in ("seller", "world", "nas")]
        buyers = (await lab.add("buyer"), await lab.add("other"))
        await lab.join(seller, f"{SELLER}/24", world, "198.51.100.254/24")
        await lab.join(seller, "192.168.9.1/24", nas, f"{NAS}/24", names=("lan0", "eth0"))
        for number, buyer in enumerate(buyers, start=1):
            await lab.join(buyer, f"192.0.{number}.2/24", world, f"192.0.{number}.1/24", names=("eth0", f"eth{number}"))
            await buyer.sh(f"ip -6 address add 2001:db8:{number}::2/64 dev eth0 nodad")
            await world.sh(f"ip -6 address add 2001:db8:{number}::1/64 dev eth{number} nodad")
            await buyer.sh(
                f"ip route add default via 192.0.{number}.1; ip -6 route add default via 2001:db8:{number}::1"
            )
        await world.sh(f"ip address add {SOMEWHERE}/32 dev lo; ip -6 address add {SOMEWHERE_6}/128 dev lo nodad")
        await world.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        await seller.sh("ip route add default via 198.51.100.254; sysctl -qw net.ipv4.ip_forward=0")
        # Whoever forgets to translate addresses must not be saved by a route back; the LAN even has one.
        await nas.sh("ip route add default via 192.168.9.1")
        yield Town(lab=lab, seller=seller, world=world, nas=nas, buyers=buyers, folder=folder)
