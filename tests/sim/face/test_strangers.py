"""Programs made for LND, on simulated nodes: lncli, where it is on PATH, and ln-service, where npm can bring it.

What is expected of ln-service is what the same script prints on real lnd nodes.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from tests.sim.face.serving import Served, on_network

from impervious.sim import SimNetwork

pytestmark = [pytest.mark.interop, pytest.mark.slow]

LN_SERVICE: Final = "ln-service@58.1.0"
SCRIPT: Final = Path(__file__).with_name("ln_service.js")
PATIENCE_S: Final = 120


def described() -> SimNetwork:
    channels = ["alice-bob:5000000:3400000", "bob-carol:5000000:3400000"]
    return SimNetwork(["alice", "bob", "carol"], channels, latency_s=(0, 0))


async def output_of(command: list[str], *, text: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; what it prints."""
    with trio.fail_after(PATIENCE_S):
        done = await trio.run_process(
            command,
            stdin=text.encode(),
            env={**os.environ, **(env or {})},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


# --- lncli ---


@dataclass(frozen=True)
class Lncli:
    """lncli on one node."""

    world: Served
    name: str
    options: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        files = self.world.credentials[self.name]
        return [
            "lncli",
            "--network=regtest",
            f"--rpcserver=127.0.0.1:{self.world.ports[self.name]}",
            f"--tlscertpath={files.certificate}",
            f"--macaroonpath={files.macaroon}",
            *self.options,
            *arguments,
        ]

    async def __call__(self, *arguments: str, text: str = "") -> Any:
        output = await output_of(self.command(*arguments), text=text)
        return json.loads(output) if output.startswith(("{", "[")) else output

    async def refusal(self, *arguments: str) -> str:
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(self.command(*arguments), capture_stderr=True, check=False)
        assert done.returncode == 1
        return done.stderr.decode()


LNCLI: Final = pytest.mark.skipif(shutil.which("lncli") is None, reason="lncli is not on PATH")


@LNCLI
async def test_lncli_looks_around(tmp_path: Path) -> None:
    async with on_network(described(), tmp_path, "alice", "bob", "carol") as world:
        alice, bob = Lncli(world, "alice"), Lncli(world, "bob")
        info = await alice("getinfo")
        assert (info["alias"], info["chains"]) == ("alice", [{"chain": "bitcoin", "network": "regtest"}])
        assert (await alice("state"))["state"] == "SERVER_ACTIVE"
        assert (await alice("version"))["lnd"]["app_minor"] == 21
        assert len((await bob("listpeers"))["peers"]) == 2
        graph = await alice("describegraph")
        assert (len(graph["nodes"]), len(graph["edges"])) == (3, 2)
        assert (await alice("getnetworkinfo"))["num_channels"] == 2
        assert (await alice("getchaninfo", graph["edges"][0]["channel_id"])) == graph["edges"][0]
        carol = world.lnd("carol").pubkey.hex
        assert (await alice("getnodeinfo", carol, "--include_channels"))["num_channels"] == 1
        assert [fees["fee_per_mil"] for fees in (await bob("feereport"))["channel_fees"]] == ["1", "1"]
        assert (await alice("pendingchannels"))["total_limbo_balance"] == "0"
        assert (await alice("closedchannels")) == {"channels": []}
        assert (await alice("newaddress", "p2tr"))["address"].startswith("bcrt1p")
        assert (await alice("listchannels"))["channels"][0]["commitment_type"] == "ANCHORS"
        assert (await alice("channelbalance"))["balance"] == "3400000"
        assert (await alice("walletbalance"))["total_balance"] == "0"
        signed = (await alice("signmessage", "hello"))["signature"]
        assert (await bob("verifymessage", "--msg=hello", f"--sig={signed}"))["valid"] is True


@LNCLI
async def test_lncli_pays_and_is_paid(tmp_path: Path) -> None:
    async with on_network(described(), tmp_path, "alice", "bob", "carol") as world:
        alice, bob, carol = (Lncli(world, name) for name in ("alice", "bob", "carol"))
        dest = world.lnd("carol").pubkey.hex
        invoice = await carol("addinvoice", "--amt=7")
        request = invoice["payment_request"]
        assert (await alice("decodepayreq", request))["num_satoshis"] == "7"
        pay = ("payinvoice", "--force", "--json", "--fee_limit=10")
        assert (await alice(*pay, request))["status"] == "SUCCEEDED"
        assert "invoice is already paid" in await alice.refusal(*pay, request)
        assert (await carol("lookupinvoice", invoice["r_hash"]))["state"] == "SETTLED"
        assert (await alice("trackpayment", "--json", invoice["r_hash"]))["status"] == "SUCCEEDED"
        keysend = ("sendpayment", "--keysend", f"--dest={dest}", "--amt=5", "--force", "--json", "--fee_limit=10")
        assert (await alice(*keysend))["status"] == "SUCCEEDED"
        other = await carol("addinvoice", "--amt=9")
        route = await alice("queryroutes", f"--dest={dest}", "--amt=9")
        decoded = await alice("decodepayreq", other["payment_request"])
        for each in route["routes"]:
            each["hops"][-1]["mpp_record"] = {"total_amt_msat": "9000", "payment_addr": decoded["payment_addr"]}
        sent = await alice("sendtoroute", f"--payment_hash={other['r_hash']}", "-", text=json.dumps(route))
        assert sent["status"] == "SUCCEEDED"
        assert (await alice("estimateroutefee", f"--dest={dest}", "--amt=5"))["routing_fee_msat"] == "1000"
        until = int(time.time()) + 60  # by default lncli leaves out the second that has not ended
        history = await bob("fwdinghistory", "--start_time=-1h", f"--end_time={until}")
        assert len(history["forwarding_events"]) == 3
        assert (await bob("feereport"))["day_fee_sum"] == "3"
        assert len((await alice("listpayments"))["payments"]) == 3
        assert len((await carol("listinvoices"))["invoices"]) == 3
        assert len((await alice("querymc"))["pairs"]) == 2
        await alice("resetmc")
        assert (await alice("querymc")) == {"pairs": []}


@LNCLI
async def test_lncli_holds_invoices(tmp_path: Path) -> None:
    async with on_network(described(), tmp_path, "alice", "carol") as world:
        alice, carol = Lncli(world, "alice"), Lncli(world, "carol")
        preimage = b"\x07" * 32
        hashed = hashlib.sha256(preimage).hexdigest()
        made = await carol("addholdinvoice", hashed, "--amt=11")
        assert "invoice still open" in await carol.refusal("settleinvoice", preimage.hex())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(alice, "payinvoice", "--force", "--json", "--fee_limit=9", made["payment_request"])
            )
            with trio.fail_after(PATIENCE_S):
                while (await carol("lookupinvoice", hashed))["state"] != "ACCEPTED":  # noqa: ASYNC110 - a program asks
                    await trio.sleep(0.05)
            await carol("settleinvoice", preimage.hex())
        assert (await alice("trackpayment", "--json", hashed))["payment_preimage"] == preimage.hex()
        assert "invoice already settled" in await carol.refusal("cancelinvoice", hashed)
        other = "11" * 32
        await carol("addholdinvoice", other, "--amt=11")
        await carol("cancelinvoice", other)
        assert (await carol("lookupinvoice", other))["state"] == "CANCELED"


@LNCLI
async def test_lncli_bakes_and_constrains_macaroons(tmp_path: Path) -> None:
    async with on_network(described(), tmp_path, "alice") as world:
        alice = Lncli(world, "alice")
        small, bound = tmp_path / "small.macaroon", tmp_path / "bound.macaroon"
        await alice("bakemacaroon", f"--save_to={small}", "--root_key_id=3", "info:read")
        limited = Lncli(world, "alice", (f"--macaroonpath={small}",))
        assert (await limited("getinfo"))["alias"] == "alice"
        assert "permission denied" in await limited.refusal("listinvoices")
        here = Lncli(world, "alice", ("--macaroonip=127.0.0.1",))
        assert (await here("getinfo"))["alias"] == "alice"
        there = Lncli(world, "alice", ("--macaroonip=10.0.0.1",))
        assert "macaroon locked to different IP address" in await there.refusal("getinfo")
        await alice("constrainmacaroon", "--custom_caveat_name=moon", str(small), str(bound))
        custom = Lncli(world, "alice", (f"--macaroonpath={bound}",))
        assert "no middleware registered to handle it" in await custom.refusal("getinfo")


# --- ln-service ---


@pytest.fixture(scope="session")
def ln_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ln-service and what it needs."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not on PATH")
    folder = tmp_path_factory.mktemp("ln-service")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", LN_SERVICE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not bring {LN_SERVICE} within {PATIENCE_S} s")
    if done.returncode:
        pytest.skip(f"npm cannot bring {LN_SERVICE}: {done.stderr.strip()[-300:]}")
    return folder / "node_modules"


async def test_a_program_made_with_ln_service_works(ln_service: Path, tmp_path: Path) -> None:
    arguments = []
    async with on_network(described(), tmp_path, "alice", "carol") as world:
        for name in ("alice", "carol"):
            files = [world.credentials[name].certificate, world.credentials[name].macaroon]
            arguments += [f"127.0.0.1:{world.ports[name]}"]
            arguments += [base64.b64encode(path.read_bytes()).decode() for path in files]
        saw = json.loads(await output_of(["node", str(SCRIPT), *arguments], env={"NODE_PATH": str(ln_service)}))
    assert saw == {
        "info": ["alice", 1, True, 1, 1],
        "peers": 1,
        "graph": [3, 2, 2],
        "network": [2, 3],
        "node": 1,
        "channels": [[True, False, 5_000_000, 50_000, "anchor"]],
        "channel": 2,
        "fees": [[1, 1]],
        "balance": 3_400_000,
        "coins": 0,
        "pending": 0,
        "closed": 0,
        "address": "bcrt1q",
        "decoded": [12, "tea", True],
        "paid": [True, 13, 1, 2],
        "again": [503, "UnexpectedPaymentError"],
        "invoice": [True, 12, 1],
        "invoices": 1,
        "keysend": [6, 1],
        "early": [404, "SecretDoesNotMatchAnyExistingHodlInvoice"],
        "hold": True,
        "canceled": True,
        "route": [2, 1, 10],
        "routed": True,
        "payments": 4,
        "forwards": True,
        "forgotten": 0,
        "small": ["alice", [503, "UnexpectedGetInvoicesError"]],
        "signed": True,
    }
