"""Tunnels bought with satoshis, for real: two daemons as processes on a simulated Lightning network, the real `wg` on
real interfaces, the file that the buyer's daemon gives, packets through it; and `kill -9` where it hurts most.
"""

import base64
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.daemons import Daemon, Town, next_event, town
from tests.wireguard.lab import SELLER, Machine, TwoMachines, transfer, two_machines

from impervious.config import Config, StoreConfig
from impervious.model import NodePubkey
from impervious.services.vpn.payloads import ContractRequest, write
from impervious.services.vpn.service import VpnService
from impervious.sim import SimNetwork
from impervious.supervisor import open_node
from impervious.units import Msat
from impervious.wireguard import PrivateKey, write_private

pytestmark = pytest.mark.slow

SERVER = PrivateKey.generate()
INSIDE = "10.0.0.1"
PERIOD_S = 2
GRACE_S = 8


@dataclass
class Market:
    """carol sells on one machine, alice buys for the other."""

    machines: TwoMachines
    there: Town
    folder: Path

    @property
    def alice(self) -> Daemon:
        return self.there.daemons["alice"]

    @property
    def carol(self) -> Daemon:
        return self.there.daemons["carol"]

    @property
    def hold(self) -> Path:
        """While this file is there, adding a peer hangs."""
        return self.folder / "hold"

    async def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Call alice's daemon about carol's tunnels."""
        return await self.alice.post(f"/v1/vpn/{path}", {"pubkey": self.carol.pubkey.hex, **body})

    async def outcome(self, request: dict[str, Any]) -> dict[str, Any]:
        """Wait for what alice's stream says about a request."""
        assert "id" in request, request
        async with self.alice.events() as stream:
            while True:
                event = await next_event(stream)
                if event["replyToId"] == request["id"]:
                    return {**json.loads(base64.b64decode(event["data"])), "amount": int(event["amount"])}

    async def quoted(self, hours: int) -> dict[str, Any]:
        return await self.outcome(await self.ask("quote", hours=hours))

    async def up(self, nonce: str) -> None:
        """Bring the tunnel up from what alice's daemon gives."""
        given = await self.ask("config", nonce=nonce)
        path = self.folder / f"{given['interface']}.conf"
        write_private(path, given["config"])
        await trio.run_process([str(self.folder / "wg-quick"), "up", str(path)], capture_stderr=True)

    async def cli(self, *arguments: str, daemon: Daemon | None = None) -> str:
        """Run `impervious vpn …` as the buyer's user, and give what it prints."""
        command = [sys.executable, "-m", "impervious", "vpn", *arguments, "--url", (daemon or self.alice).http]
        environ = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        with trio.fail_after(60):
            done = await trio.run_process(
                command, stdin=b"", capture_stdout=True, capture_stderr=True, check=False, env=environ
            )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout.decode()

    async def peers(self) -> list[str]:
        return (await self.machines.seller.run("wg", "show", "wg0", "peers")).split()

    async def sold(self) -> list[dict[str, Any]]:
        return list((await self.carol.get("/v1/vpn/contracts"))["contracts"])

    async def seen_sold(self, state: str) -> dict[str, Any]:
        """Wait until carol's only contract has come to some point."""
        with trio.fail_after(20):
            while [each["state"] for each in await self.sold()] != [state]:  # noqa: ASYNC110 - another process
                await trio.sleep(0.02)
        [contract] = await self.sold()
        return contract

    async def silent(self) -> None:
        """Wait until no echo comes through the tunnel."""
        with trio.fail_after(20):
            while await self.machines.buyer.ping(INSIDE, within_s=0.4):  # noqa: ASYNC110 - the machine does it
                pass

    async def payments(self, name: str) -> list[int]:
        """What a node has paid so far, in msat, the largest first."""
        paid = await self.there.network.lnd(name).rpcs.list_payments(limit=1000)
        return sorted((each.order.amount for each in paid), reverse=True)


def quick(buyer: Machine, folder: Path) -> None:
    """Make `wg-quick` of the folder act on the buyer's machine, where it changes no resolver."""
    real = shutil.which("wg-quick")
    assert real is not None
    there = shlex.join(buyer.bound("env", f"PATH={folder}:" + os.environ["PATH"], real))
    for name, does in (("resolvconf", "cat > /dev/null"), ("wg-quick", f'exec {there} "$@"')):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o700)


def holding(machine: Machine, hold: Path) -> Path:
    """Make a `wg` that hangs while it should add a peer."""
    program = hold.with_name("wg-held")
    wait = f'if [ "$1" = addconf ]; then while [ -e {hold} ]; do sleep 0.02; done; fi'
    program.write_text(f'#!/bin/sh\n{wait}\nexec {machine.wg} "$@"\n')
    program.chmod(0o700)
    return program


@asynccontextmanager
async def market(folder: Path, **settings: Any) -> AsyncIterator[Market]:
    network = SimNetwork(
        ["alice", "bob", "carol"], ["alice-bob:2000000", "bob-carol:2000000"], seed=3, latency_s=(0.001, 0.004)
    )
    async with two_machines(folder) as machines, town(folder, "alice", "carol", network=network) as there:
        await machines.seller.add_wireguard(SERVER, f"{INSIDE}/24", listen_port=51820)
        place = Market(machines, there, folder)
        quick(machines.buyer, folder)
        place.carol.settings["vpn"] = {
            "price": 100,
            "server_ip": SELLER,
            "server_port": 51820,
            "server_pub_key": SERVER.public.text,
            "allowed_ips": "10.0.0.0/24",
            "dns": INSIDE,
            "binary_path": str(holding(machines.seller, place.hold)),
            "period_s": PERIOD_S,
            "grace_s": GRACE_S,
            **settings,
        }
        await there.start("alice")
        await there.start("carol")
        yield place


async def test_bought_used_renewed_suspended_restored_and_ended(lab_folder: Path) -> None:
    async with market(lab_folder) as place:
        seller, buyer = place.machines.seller, place.machines.buyer
        bought = json.loads(
            await place.cli(
                "buy", place.carol.pubkey.hex, "--hours=4", "--max-price=400", "--up", "--json", f"--dir={lab_folder}"
            )
        )
        assert (bought["price"], bought["address"]) == (400, "10.0.0.2")
        assert Path(bought["file"]).stat().st_mode & 0o777 == 0o600
        nonce = bought["nonce"]
        assert await buyer.ping(INSIDE)
        await transfer(buyer, seller, INSIDE, 20_000_000)
        async with buyer.pinging(INSIDE) as pings:
            renewed = json.loads(await place.cli("renew", nonce, "--json"))
            for _ in range(20):
                await pings.fresh.wait()
        assert renewed["expiresAt"] == bought["expiresAt"] + 4 * PERIOD_S
        assert pings.answered
        assert pings.lost == []
        refused = await place.outcome(await place.ask("refresh", nonce=nonce, price="399"))
        assert (refused["recordId"], refused["amount"]) == ("REFUSED", 396)

        await place.silent()
        [peer] = await place.peers()
        assert (await place.seen_sold("active"))["reason"] == ""
        again = await place.outcome(await place.ask("refresh", nonce=nonce, price="400"))
        assert again["recordId"] == "REFRESH"
        assert await buyer.ping(INSIDE, within_s=20), "no new handshake is needed"
        assert await place.peers() == [peer]

        back = json.loads(await place.cli("cancel", nonce, "--reason=that was it", "--json", daemon=place.carol))
        assert 0 < int(back["refunded"]) < 400
        ended = await place.seen_sold("gone")
        assert ended["reason"] == "that was it"
        assert int(ended["receivedBytes"]) > 20_000_000
        assert await place.peers() == []
        assert await place.payments("alice") == [400_000, 400_000, 400_000, 399_000, 2_000]
        await place.cli("down", nonce, f"--dir={lab_folder}")
        assert (await buyer.run("wg", "show", "interfaces")).strip() == ""
        listed = await place.cli("list")
        assert nonce in listed
        assert "over" in listed
        assert "that was it" in listed


async def test_it_renews_itself_until_the_budget_is_used_then_runs_out(lab_folder: Path) -> None:
    async with market(lab_folder, grace_s=3) as place:
        bought = json.loads(
            await place.cli(
                "buy",
                place.carol.pubkey.hex,
                "--hours=2",
                "--max-price=200",
                "--auto-renew",
                "--budget=450",
                "--up",
                "--json",
                f"--dir={lab_folder}",
            )
        )
        last = bought["expiresAt"] + 2 * 2 * PERIOD_S
        assert await place.machines.buyer.ping(INSIDE)
        async with place.machines.buyer.pinging(INSIDE) as pings:
            with trio.fail_after(20):
                while (await place.seen_sold("active"))["expiresAt"] != str(last):
                    await pings.fresh.wait()
            # Past the end of what was renewed first, with what was renewed last.
            with trio.fail_after(20):
                while time.time() < last - 2 * PERIOD_S + 0.5:  # noqa: ASYNC110 - the clock of other processes
                    await trio.sleep(0.05)
        assert pings.lost == []

        await place.silent()
        assert time.time() >= last
        [peer] = await place.peers()
        ended = await place.seen_sold("gone")
        assert time.time() >= last + 3, "not before its time of grace was over"
        assert await place.peers() == [], peer
        assert (ended["reason"], ended["expiresAt"]) == ("its time is over", str(last))
        assert await place.payments("alice") == [200_000, 200_000, 200_000, 2_000], "450 sat pay for two renewals"


async def test_the_seller_killed_between_payment_and_peer_charges_once(lab_folder: Path) -> None:
    async with market(lab_folder, period_s=3600, subnet="10.0.0.0/30") as place:
        quote = await place.quoted(hours=1)
        place.hold.touch()
        request = await place.ask("contract", nonce=quote["nonce"], price="100", wait=True)
        await place.seen_sold("paid")
        assert await place.peers() == []
        await place.carol.stop(signal.SIGKILL)
        place.hold.unlink()
        await place.there.start("carol")
        contract = await place.outcome(request)
        assert contract["recordId"] == "CONTRACT"
        await place.up(quote["nonce"])
        assert await place.machines.buyer.ping(INSIDE)
        await place.seen_sold("active")
        assert await place.payments("alice") == [100_000, 2_000]

        refused = await place.quoted(hours=1)
        assert (refused["recordId"], "is full" in refused["reason"]) == ("REFUSED", True)
        assert await place.payments("alice") == [100_000, 2_000, 2_000], "nothing but the question was paid"


async def test_the_buyer_killed_between_payment_and_answer_gets_its_tunnel(lab_folder: Path) -> None:
    async with market(lab_folder, period_s=3600) as place:
        quote = await place.quoted(hours=1)
        place.hold.touch()
        request = await place.ask("contract", nonce=quote["nonce"], price="100", wait=True)
        await place.alice.stop(signal.SIGKILL)
        place.hold.unlink()
        await place.seen_sold("active")
        await place.there.start("alice")
        assert (await place.outcome(request))["recordId"] == "CONTRACT"
        await place.up(quote["nonce"])
        assert await place.machines.buyer.ping(INSIDE)
        assert await place.payments("alice") == [100_000, 2_000]


async def test_a_stolen_quote_is_refused_and_refunded(lab_folder: Path) -> None:
    async with market(lab_folder, period_s=3600) as place:
        quote = await place.quoted(hours=1)
        mine = Config(store=StoreConfig(path=lab_folder / "bob.db"))
        async with open_node(mine, lightning=place.there.network.node("bob")) as bob:
            stolen = ContractRequest(nonce=quote["nonce"], public_key=PrivateKey.generate().public.text)
            await bob.wait_ready()
            await send(bob.service(VpnService), place.carol.pubkey, stolen)
            with trio.fail_after(20):
                while 97_000 not in await place.payments("carol"):  # noqa: ASYNC110 - another process pays
                    await trio.sleep(0.02)
        assert await place.sold() == []
        assert await place.peers() == []
        contract = await place.outcome(await place.ask("contract", nonce=quote["nonce"], price="100"))
        assert contract["recordId"] == "CONTRACT", "the quote is still its owner's"


async def send(thief: VpnService, seller: NodePubkey, request: ContractRequest) -> None:
    """Pay for somebody else's quote."""
    await thief.context.send(seller, write(request), amount=Msat(100_000))
