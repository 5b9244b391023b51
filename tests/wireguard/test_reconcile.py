from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wireguard.memory import MemoryWireGuard

from impervious.errors import WireGuardNoInterface
from impervious.wireguard import (
    Conflict,
    Host,
    Peer,
    PresharedKey,
    PrivateKey,
    PublicKey,
    Reconciler,
    Report,
    Wanted,
    WantedPeer,
    Wg,
    foreign_networks,
    plan,
)
from impervious.wireguard.peers import only
from impervious.wireguard.program import Finished

SERVER = PrivateKey(bytes(range(32)))
KEYS = tuple(PrivateKey(bytes([number]) * 32).public for number in range(1, 9))
ADDRESSES: tuple[Host, ...] = tuple(IPv4Address(f"10.0.0.{last}") for last in range(2, 8))
SECRETS = (None, PresharedKey(bytes([1]) * 32), PresharedKey(bytes([2]) * 32))
A, B, C = KEYS[:3]
TWO, THREE = ADDRESSES[:2]


def peer(key: PublicKey, address: Host | None, secret: PresharedKey | None = None) -> WantedPeer:
    return WantedPeer(key=key, address=address, preshared_key=secret)


def there(address: Host | None, secret: PresharedKey | None = None) -> Peer:
    return Peer(allowed=only(address), preshared_key=secret)


async def reconciled(wireguard: MemoryWireGuard, wanted: Wanted) -> Report:
    async def read() -> Wanted:
        await trio.lowlevel.checkpoint()
        return wanted

    return await Reconciler(wireguard, read).reconcile()


def test_nothing_to_do() -> None:
    assert not plan(Wanted(peers=[peer(A, TWO), peer(B, None)]), {A: there(TWO), B: there(None)})


def test_the_least_is_done() -> None:
    secret = PresharedKey.generate()
    todo = plan(
        Wanted(peers=[peer(A, TWO), peer(B, None), peer(C, THREE, secret)], ours={KEYS[3], KEYS[4]}),
        {A: there(TWO), B: there(THREE), KEYS[3]: there(ADDRESSES[2]), KEYS[5]: there(ADDRESSES[3])},
    )
    assert todo.remove == (KEYS[3],)
    assert todo.set_addresses == {B: None}
    assert todo.add == (peer(C, THREE, secret),)
    assert todo.conflicts == ()


def test_another_preshared_key_is_put_right() -> None:
    todo = plan(Wanted(peers=[peer(A, TWO, SECRETS[1])]), {A: there(TWO, SECRETS[2])})
    assert todo.add == (peer(A, TWO, SECRETS[1]),)
    assert not todo.set_addresses


def test_more_than_its_address_is_taken_away() -> None:
    wide = Peer(allowed=only(TWO) | {ip_network("0.0.0.0/0")}, preshared_key=None)
    assert plan(Wanted(peers=[peer(A, TWO)]), {A: wide}).set_addresses == {A: TWO}


def test_an_address_of_somebody_elses_peer_is_not_taken() -> None:
    todo = plan(Wanted(peers=[peer(A, TWO), peer(B, THREE)]), {C: there(TWO), B: there(TWO)})
    assert todo.conflicts == (Conflict(key=A, address=TWO, owner=C),)
    assert todo.add == (peer(A, None),)
    assert todo.set_addresses == {B: THREE}


def test_two_peers_cannot_want_the_same() -> None:
    for same in ([peer(A, TWO), peer(A, THREE)], [peer(A, TWO), peer(B, TWO)]):
        with pytest.raises(ValueError, match="share a key or an address"):
            Wanted(peers=same)
    Wanted(peers=[peer(A, None), peer(B, None)])


def test_what_others_have_is_told() -> None:
    actual = {A: there(TWO), B: there(THREE), C: there(None)}
    assert foreign_networks(actual, {A}) == only(THREE)


async def test_a_renewal_does_not_touch_the_peer() -> None:
    wireguard = MemoryWireGuard()
    await reconciled(wireguard, Wanted(peers=[peer(A, TWO)]))
    await reconciled(wireguard, Wanted(peers=[peer(A, TWO)]))
    assert wireguard.changes == [("add", {A})]


async def test_suspending_and_restoring_does_not_remove() -> None:
    wireguard = MemoryWireGuard()
    for address in (TWO, None, TWO):
        await reconciled(wireguard, Wanted(peers=[peer(A, address, SECRETS[1])]))
        assert await wireguard.peers() == {A: there(address, SECRETS[1])}
    assert wireguard.changes == [("add", {A}), ("set_addresses", {A}), ("set_addresses", {A})]


async def test_addresses_can_change_hands() -> None:
    wireguard = MemoryWireGuard()
    await reconciled(wireguard, Wanted(peers=[peer(A, TWO), peer(B, THREE)]))
    report = await reconciled(wireguard, Wanted(peers=[peer(A, THREE), peer(B, TWO)]))
    assert not report.refused
    assert await wireguard.peers() == {A: there(THREE), B: there(TWO)}


async def test_what_was_lost_comes_back() -> None:
    wireguard = MemoryWireGuard()
    wanted = Wanted(peers=[peer(A, TWO), peer(B, None)])
    await reconciled(wireguard, wanted)
    wireguard.make_again()
    await reconciled(wireguard, wanted)
    assert await wireguard.peers() == {A: there(TWO), B: there(None)}


async def test_one_impossible_peer_does_not_keep_the_others_out() -> None:
    wireguard = MemoryWireGuard(SERVER)
    report = await reconciled(wireguard, Wanted(peers=[peer(SERVER.public, TWO), peer(A, THREE)]))
    assert len(report.refused) == 1
    assert await wireguard.peers() == {A: there(THREE)}


async def test_an_interface_that_is_gone_is_an_error() -> None:
    wireguard = MemoryWireGuard()
    wireguard.broken = WireGuardNoInterface("gone")
    with pytest.raises(WireGuardNoInterface):
        await reconciled(wireguard, Wanted(peers=[peer(A, TWO)]))


async def test_what_is_stored_before_the_call_is_done_at_its_return(autojump_clock: trio.testing.MockClock) -> None:
    wireguard = MemoryWireGuard()
    stored: list[WantedPeer] = []

    async def read() -> Wanted:
        snapshot = list(stored)
        await trio.sleep(1)  # a slow database: what is stored meanwhile is not in the snapshot
        return Wanted(peers=snapshot)

    reconciler = Reconciler(wireguard, read)

    async def buy(key: PublicKey, address: Host, after_s: float) -> None:
        await trio.sleep(after_s)
        stored.append(peer(key, address))
        await reconciler.reconcile()
        assert key in await wireguard.peers()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number, (key, address) in enumerate(zip(KEYS, ADDRESSES, strict=False)):
                nursery.start_soon(buy, key, address, number / 4)
    assert len(await wireguard.peers()) == len(ADDRESSES)


secrets = st.sampled_from(SECRETS)
networks = st.frozensets(
    st.sampled_from(
        [*(ip_network(address) for address in ADDRESSES), ip_network("0.0.0.0/0"), ip_network("10.0.0.0/29")]
    )
)


@st.composite
def wanteds(draw: st.DrawFn) -> Wanted:
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    addresses = draw(st.permutations([*ADDRESSES, *[None] * len(KEYS)]))
    peers = [peer(key, address, draw(secrets)) for key, address in zip(keys, addresses, strict=False)]
    return Wanted(peers=peers, ours=draw(st.frozensets(st.sampled_from(KEYS))))


@st.composite
def interfaces(draw: st.DrawFn) -> Mapping[PublicKey, Peer]:
    """What WireGuard can hold: no two peers have the same network."""
    wireguard = MemoryWireGuard(SERVER)
    for key in draw(st.lists(st.sampled_from(KEYS), unique=True)):
        wireguard.place(key, Peer(allowed=draw(networks), preshared_key=draw(secrets)))
    return wireguard.snapshot()


@given(wanteds(), interfaces())
@settings(max_examples=300)
def test_afterwards_the_interface_is_as_wanted_and_others_are_as_before(
    wanted: Wanted, before: Mapping[PublicKey, Peer]
) -> None:
    wireguard = MemoryWireGuard(SERVER)
    for key, value in before.items():
        wireguard.place(key, value)
    report = trio.run(reconciled, wireguard, wanted)
    after = wireguard.snapshot()

    keys = {each.key for each in wanted.peers}
    foreign = {key: value for key, value in before.items() if key not in keys | wanted.ours}
    suspended = {conflict.key for conflict in report.plan.conflicts}
    assert not report.refused
    assert {key: after[key] for key in foreign} == foreign
    assert set(after) == keys | set(foreign)
    for each in wanted.peers:
        expected = replace(each, address=None) if each.key in suspended else each
        assert expected.is_met_by(after[each.key])
        taken = each.address is not None and any(only(each.address) <= value.allowed for value in foreign.values())
        assert (each.key in suspended) == taken

    right = {each.key for each in wanted.peers if each.is_met_by(before.get(each.key))} - suspended
    touched = {key for _, changed in wireguard.changes for key in changed}
    assert not touched & right
    assert not touched & set(foreign)
    assert not plan(wanted, after)


@given(st.lists(wanteds(), min_size=1, max_size=4))
def test_whatever_came_before_the_last_wish_counts(wishes: list[Wanted]) -> None:
    """With every key known as ours, only the last wish shows."""

    async def follow() -> Mapping[PublicKey, Peer]:
        wireguard = MemoryWireGuard(SERVER)
        for wish in wishes:
            await reconciled(wireguard, replace(wish, ours=set(KEYS)))
        return wireguard.snapshot()

    assert trio.run(follow) == {
        each.key: Peer(allowed=only(each.address), preshared_key=each.preshared_key) for each in wishes[-1].peers
    }


class Program:
    """As much of the `wg` program as a seller needs, which counts how often it is run."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.peers: dict[str, tuple[str, str]] = {}

    async def run(self, argv: Sequence[str], *, stdin: str = "", patience_s: float) -> Finished:
        await trio.lowlevel.checkpoint()
        _, verb, _, *rest = argv
        self.runs.append(verb)
        if verb == "show":
            column = {"allowed-ips": 0, "preshared-keys": 1}[rest[0]]
            output = "".join(f"{key}\t{values[column]}\n" for key, values in self.peers.items())
            return Finished(code=0, output=output, complaint="")
        if verb == "addconf":
            for section in stdin.split("[Peer]")[1:]:
                values = dict(line.split(" = ") for line in section.strip().splitlines())
                self.peers[values["PublicKey"]] = (values.get("AllowedIPs", "(none)"), values["PresharedKey"])
        else:
            words = iter(rest)
            for _ in words:
                key, what = next(words), next(words)
                if what == "remove":
                    del self.peers[key]
                else:
                    self.peers[key] = (next(words) or "(none)", self.peers[key][1])
        return Finished(code=0, output="", complaint="")


@pytest.mark.parametrize("number", [1, 250])
async def test_wg_runs_as_often_for_250_contracts_as_for_one(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    program = Program()
    monkeypatch.setattr("impervious.wireguard.wg.run_program", program.run)
    first = IPv4Address("10.0.0.2")
    all_of_them = [
        peer(PublicKey((each + 1).to_bytes(32, "big")), first + each, PresharedKey.generate()) for each in range(number)
    ]
    ours = frozenset(each.key for each in all_of_them)
    look = ["show", "show"]

    async def runs(wanted: Wanted) -> list[str]:
        program.runs.clear()

        async def read() -> Wanted:
            await trio.lowlevel.checkpoint()
            return wanted

        report = await Reconciler(Wg("wg0", Path("/usr/bin/wg")), read).reconcile()
        assert report.refused == ()
        assert {key: value.allowed for key, value in report.peers.items()} == {
            each.key: only(each.address) for each in wanted.peers
        }
        return list(program.runs)

    # Each change is read back where it is made; the last look is the report's.
    assert await runs(Wanted(peers=all_of_them, ours=ours)) == [*look, "addconf", *look, *look]
    assert await runs(Wanted(peers=all_of_them, ours=ours)) == look
    suspended = [replace(each, address=None) for each in all_of_them]
    assert await runs(Wanted(peers=suspended, ours=ours)) == [*look, "set", *look, *look]
    assert await runs(Wanted(ours=ours)) == [*look, "set", *look, *look]
