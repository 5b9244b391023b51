import sqlite3
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.sim.reader import Reader, pay, pay_invoice, preimage_of, settled_at

from impervious.errors import PaymentFailure, StoreError, StoreLocked
from impervious.model import InvoiceState, PaymentStatus
from impervious.sim import ChannelSpec, NodeSpec, Policy, SimNetwork
from impervious.sim.engine.addresses import AddressKind
from impervious.sim.state import FILE
from impervious.units import Msat, Sat

CHANNELS: list[str | ChannelSpec] = [
    "alice-bob:1000000",
    ChannelSpec(first="bob", second="carol", first_policy=Policy(base_fee=Msat(7)), private=True),
]


def network(
    folder: Path, nodes: tuple[str | NodeSpec, ...] = ("alice", "bob", "carol"), *, latency_s: float = 0
) -> SimNetwork:
    return SimNetwork(nodes, CHANNELS, latency_s=(latency_s, latency_s), folder=folder)


def everything(net: SimNetwork) -> dict[str, object]:
    """All that a network is, as values."""
    state: dict[str, object] = {
        name: (
            net.lnd(name).pubkey,
            list(net.lnd(name).node.invoices),
            list(net.lnd(name).node.payments),
            net.lnd(name).node.invoices.settled,
            net.lnd(name).node.invoices.added,
            net.lnd(name).node.invoices.backend,
            net.lnd(name).node.payments.started,
            list(net.lnd(name).node.forwards),
            net.lnd(name).node.addresses,
        )
        for name in net.names
    }
    graph = net.lnd("alice")._engine.world.graph
    state["channels"] = list(graph.channels.values())
    return state


async def test_a_network_is_found_as_it_was_left(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with network(tmp_path).open() as net:
        for number in range(5):
            await pay(net.node("alice"), net.node("bob").pubkey, number, records={400000: bytes([number])})
        await pay(net.node("bob"), net.node("carol").pubkey, 50)
        await pay(net.node("alice"), net.node("carol").pubkey, 60)  # private: fails
        invoice = net.lnd("carol").add_invoice(Msat(3000), memo="coffee")
        await pay_invoice(net, "bob", "carol", invoice)
        net.lnd("carol").add_invoice(Msat(1))
        hinted = net.lnd("carol").add_invoice(Msat(2000), private=True)
        await net.node("alice").pay_invoice(
            await net.node("alice").decode_invoice(hinted.payment_request), fee_limit=Msat(5000), timeout_s=5
        )
        assert len(net.lnd("bob").node.forwards) == 1
        await net.lnd("bob").rpcs.new_address(AddressKind.WITNESS, unused=False)
        net.lnd("bob").renumber()
        net.lnd("bob").skip_indexes(settled=3)
        await pay(net.node("alice"), net.node("bob").pubkey, 70)
        before, total = everything(net), net.total()
    async with network(tmp_path).open() as net:
        assert everything(net) == before
        assert net.total() == total
        with pytest.raises(Exception, match="already paid"):
            await pay(net.node("alice"), net.node("bob").pubkey, 1)
        await pay(net.node("alice"), net.node("bob").pubkey, 71)
        assert net.lnd("bob").node.invoices.lookup(preimage_of(71).payment_hash).settle_index == 5


async def test_what_hangs_for_ever_hangs_after_a_restart_too(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with network(tmp_path).open() as net:
        net.lnd("alice").strand_next_payment()
        with trio.move_on_after(1):
            await pay(net.node("alice"), net.node("bob").pubkey, 1)
    async with network(tmp_path).open() as net:
        await trio.sleep(80_000)
        payment = await net.node("alice").lookup_payment(preimage_of(1).payment_hash)
        assert payment.status is PaymentStatus.IN_FLIGHT


@pytest.mark.parametrize("passed_s", [0.1, 0.5, 1.0, 1.9])
async def test_what_was_under_way_goes_on_and_ends_once(
    passed_s: float, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with network(tmp_path, latency_s=2).open() as net:
        total = net.total()
        with trio.move_on_after(passed_s):
            await pay(net.node("alice"), net.node("bob").pubkey, 1)
    async with network(tmp_path, latency_s=2).open() as net:
        payment = await net.node("alice").track(preimage_of(1).payment_hash)
        assert payment.status is PaymentStatus.SUCCEEDED
        assert settled_at(net, "bob") == {preimage_of(1).payment_hash}
        assert net.total() == total
        reader = Reader(net.node("bob"))
        with trio.move_on_after(1):
            await reader.read()
        assert reader.told == 1


async def test_what_was_held_is_still_held(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    nodes = ("alice", NodeSpec(name="bob", keysend_hold_s=100), "carol")
    async with network(tmp_path, nodes).open() as net:
        with trio.move_on_after(1):
            await pay(net.node("alice"), net.node("bob").pubkey, 1)
    async with network(tmp_path, nodes).open() as net:
        assert [i.state for i in net.lnd("bob").node.invoices] == [InvoiceState.ACCEPTED]
        with trio.fail_after(110):
            payment = await net.node("alice").track(preimage_of(1).payment_hash)
        assert payment.failure is PaymentFailure.INCORRECT_PAYMENT_DETAILS


async def test_open_invoices_expire_when_they_would_have(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with network(tmp_path).open() as net:
        net.lnd("bob").add_invoice(Msat(1), expiry_s=600)
        await trio.sleep(1)
    async with network(tmp_path).open() as net:
        await trio.sleep(590)
        assert [i.state for i in net.lnd("bob").node.invoices] == [InvoiceState.OPEN]
        await trio.sleep(20)
        assert [i.state for i in net.lnd("bob").node.invoices] == [InvoiceState.CANCELED]


async def test_a_larger_description_adds_to_what_is_there(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with network(tmp_path).open() as net:
        await pay(net.node("alice"), net.node("bob").pubkey, 1)
        keys = [net.node(name).pubkey for name in net.names]
    more = SimNetwork(
        ["alice", "bob", "carol", "dave"],
        [*CHANNELS, "alice-bob:50000", ChannelSpec(first="dave", second="alice", capacity=Sat(70_000))],
        folder=tmp_path,
        latency_s=(0, 0),
    )
    async with more.open() as net:
        assert [net.node(name).pubkey for name in ("alice", "bob", "carol")] == keys
        assert net.total() == 2_120_000_000
        assert (await pay(net.node("dave"), net.node("alice").pubkey, 2)).status is PaymentStatus.SUCCEEDED
        assert len(net.lnd("bob").node.invoices) == 1


async def test_nothing_is_lost_when_the_process_dies(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """What was told was saved before: another reader of the file finds it at once."""
    net = network(tmp_path)
    async with net.open():
        await pay(net.node("alice"), net.node("bob").pubkey, 1)
        for name in (FILE, FILE + "-wal"):
            (tmp_path / "copy").mkdir(exist_ok=True)
            (tmp_path / "copy" / name).write_bytes((tmp_path / name).read_bytes())
        before = everything(net)
    async with network(tmp_path / "copy").open() as again:
        assert everything(again) == before


def test_two_networks_cannot_share_a_folder(tmp_path: Path) -> None:
    first = network(tmp_path)
    try:
        with pytest.raises(StoreLocked, match="another simulated network"):
            network(tmp_path)
    finally:
        first.close()


@pytest.mark.parametrize(
    ("content", "says"), [(b"not a database, but text that is long enough", "cannot be read"), (None, "layout 99")]
)
def test_another_file_is_left_alone(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    if content is None:
        file = sqlite3.connect(path)
        file.execute("PRAGMA user_version = 99").close()
        file.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=says):
        network(tmp_path)
    assert path.read_bytes() == before


def test_the_file_with_the_keys_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    network(folder).close()
    assert (folder.stat().st_mode & 0o777, (folder / FILE).stat().st_mode & 0o777) == (0o700, 0o600)
