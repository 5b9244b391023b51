"""The real `wg` on real interfaces; the one in memory goes through the same tests."""

import stat
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest
import trio
from tests.wireguard.lab import Machine, open_lab, require_lab
from tests.wireguard.memory import MemoryWireGuard

from impervious.errors import (
    WireGuardDenied,
    WireGuardMissing,
    WireGuardNoInterface,
    WireGuardRefused,
    WireGuardStuck,
)
from impervious.wireguard import (
    Host,
    Peer,
    PresharedKey,
    PrivateKey,
    PublicKey,
    Reconciler,
    Transfer,
    Wanted,
    WantedPeer,
    Wg,
    WireGuard,
)
from impervious.wireguard.peers import only

SERVER = PrivateKey.generate()
A, B, C = (PrivateKey.generate().public for _ in range(3))
TWO, THREE = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
SIX = IPv6Address("fd00::2")
SECRET = PresharedKey.generate()


def peer(key: PublicKey, address: Host | None, secret: PresharedKey | None = None) -> WantedPeer:
    return WantedPeer(key=key, address=address, preshared_key=secret)


def there(address: Host | None, secret: PresharedKey | None = None) -> Peer:
    return Peer(allowed=only(address), preshared_key=secret)


@pytest.fixture
async def seller(lab_folder: Path) -> AsyncIterator[Machine]:
    async with open_lab(lab_folder) as lab:
        machine = await lab.add("seller")
        await machine.add_wireguard(SERVER, "10.0.0.1/24", listen_port=51820)
        yield machine


@pytest.fixture(params=["memory", "real"])
def implementation(request: pytest.FixtureRequest) -> str:
    if request.param == "real":
        require_lab()
    return str(request.param)


@pytest.fixture
async def wireguard(implementation: str, tmp_path: Path) -> AsyncIterator[WireGuard]:
    if implementation == "memory":
        yield MemoryWireGuard(SERVER, listen_port=51820)
        return
    async with open_lab(tmp_path) as lab:
        machine = await lab.add("seller")
        await machine.add_wireguard(SERVER, "10.0.0.1/24", listen_port=51820)
        yield Wg("wg0", machine.wg)


# --- What every implementation does -----------------------------------------------------------------------------------


async def test_the_interface_says_what_it_is(wireguard: WireGuard) -> None:
    interface = await wireguard.interface()
    assert interface.public_key == SERVER.public
    assert interface.listen_port == 51820
    assert await wireguard.peers() == {}


async def test_peers_come_and_go(wireguard: WireGuard) -> None:
    await wireguard.add([peer(A, TWO, SECRET), peer(B, SIX), peer(C, None)])
    assert await wireguard.peers() == {A: there(TWO, SECRET), B: there(SIX), C: there(None)}
    await wireguard.remove([A, C])
    assert await wireguard.peers() == {B: there(SIX)}
    await wireguard.remove([A])  # long gone


async def test_adding_again_makes_it_just_so(wireguard: WireGuard) -> None:
    await wireguard.add([peer(A, TWO, SECRET)])
    await wireguard.add([peer(A, THREE)])
    assert await wireguard.peers() == {A: there(THREE)}


async def test_suspending_keeps_the_preshared_key(wireguard: WireGuard) -> None:
    await wireguard.add([peer(A, TWO, SECRET)])
    await wireguard.set_addresses({A: None})
    assert await wireguard.peers() == {A: there(None, SECRET)}
    await wireguard.set_addresses({A: TWO})
    assert await wireguard.peers() == {A: there(TWO, SECRET)}


async def test_an_address_is_taken_from_whoever_had_it(wireguard: WireGuard) -> None:
    await wireguard.add([peer(A, TWO)])
    await wireguard.add([peer(B, TWO)])
    assert await wireguard.peers() == {A: there(None), B: there(TWO)}
    await wireguard.set_addresses({A: TWO})
    assert await wireguard.peers() == {A: there(TWO), B: there(None)}


async def test_a_peer_that_is_not_there_is_added_bare(wireguard: WireGuard) -> None:
    await wireguard.set_addresses({A: TWO})
    assert await wireguard.peers() == {A: there(TWO)}


async def test_its_own_key_is_no_peer(wireguard: WireGuard) -> None:
    with pytest.raises(WireGuardRefused):
        await wireguard.add([peer(A, TWO), peer(SERVER.public, THREE)])
    with pytest.raises(WireGuardRefused):
        await wireguard.set_addresses({SERVER.public: THREE})
    assert await wireguard.peers() == {A: there(TWO)}


async def test_nothing_is_nothing(wireguard: WireGuard) -> None:
    await wireguard.add([])
    await wireguard.set_addresses({})
    await wireguard.remove([])
    assert await wireguard.peers() == {}


async def test_a_peer_that_never_spoke_has_counted_nothing(wireguard: WireGuard) -> None:
    await wireguard.add([peer(A, TWO)])
    assert await wireguard.transfer() == {A: Transfer(received_bytes=0, sent_bytes=0)}
    assert await wireguard.handshakes() == {}


# --- What only the real one does --------------------------------------------------------------------------------------


async def test_250_contracts_and_what_is_not_ours(seller: Machine) -> None:
    wg = Wg("wg0", seller.wg)
    theirs = PrivateKey.generate().public
    await seller.run("wg", "set", "wg0", "peer", theirs.text, "allowed-ips", "192.168.7.0/24,10.0.3.1/32")
    peers = [
        peer(PrivateKey.generate().public, IPv4Address("10.0.1.0") + number, PresharedKey.generate())
        for number in range(250)
    ]
    wanted = Wanted(peers=peers)

    async def read() -> Wanted:
        await trio.lowlevel.checkpoint()
        return wanted

    reconciler = Reconciler(wg, read)
    assert len((await reconciler.reconcile()).plan.add) == 250
    assert not (await reconciler.reconcile()).plan
    actual = await wg.peers()
    foreign = Peer(allowed=frozenset({ip_network("192.168.7.0/24"), ip_network("10.0.3.1/32")}), preshared_key=None)
    assert actual == {theirs: foreign} | {each.key: there(each.address, each.preshared_key) for each in peers}

    kept = [*peers[:100], *(peer(each.key, None, each.preshared_key) for each in peers[100:150])]
    wanted = Wanted(peers=kept, ours=frozenset(each.key for each in peers))
    todo = (await reconciler.reconcile()).plan
    assert (len(todo.remove), len(todo.set_addresses), len(todo.add)) == (100, 50, 0)
    assert await wg.peers() == {theirs: foreign} | {each.key: there(each.address, each.preshared_key) for each in kept}


async def test_more_peers_than_one_run_takes(seller: Machine) -> None:
    wg = Wg("wg0", seller.wg)
    peers = [peer(PublicKey(number.to_bytes(32, "big")), IPv4Address("10.1.0.0") + number) for number in range(1, 1102)]
    await wg.add(peers)
    await wg.set_addresses({each.key: None for each in peers})
    assert len(await wg.peers()) == 1101
    await wg.remove([each.key for each in peers])
    assert await wg.peers() == {}


async def test_no_secret_is_an_argument_or_in_the_environment(
    seller: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPERVIOUS_SQLITE3__PASSWORD", "the database's")
    seen = tmp_path / "seen"
    spy = script(tmp_path, f'echo "$0 $@" >> {seen}; env >> {seen}; exec {seller.wg} "$@"')
    wg = Wg("wg0", spy)
    await wg.add([peer(A, TWO, SECRET)])
    await wg.set_addresses({A: None})
    await wg.remove([A])
    text = seen.read_text()
    assert A.text in text
    assert SECRET.text not in text
    assert "the database's" not in text
    for word in ("dump", "syncconf", "showconf"):
        assert word not in text


def script(folder: Path, line: str) -> Path:
    path = folder / "a-wg"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o700)
    return path


async def test_no_interface(seller: Machine) -> None:
    wg = Wg("wg9", seller.wg)
    for call in (wg.peers, wg.interface, wg.transfer, wg.handshakes):
        with pytest.raises(WireGuardNoInterface, match=r"no WireGuard interface wg9: `wg-quick up wg9`"):
            await call()
    with pytest.raises(WireGuardNoInterface):
        await wg.add([peer(A, TWO)])


async def test_a_kernel_without_wireguard_says_it_otherwise(tmp_path: Path) -> None:
    for said in ("access interface: No such device", "modify interface: Protocol not supported"):
        wg = Wg("wg0", script(tmp_path, f"echo 'Unable to {said}' >&2; exit 1"))
        with pytest.raises(WireGuardNoInterface, match=said):
            await wg.peers()


async def test_not_allowed(tmp_path: Path) -> None:
    for said in ("Operation not permitted", "Permission denied"):
        wg = Wg("wg0", script(tmp_path, f"echo 'Unable to access interface: {said}' >&2; exit 1"))
        with pytest.raises(WireGuardDenied, match="CAP_NET_ADMIN"):
            await wg.peers()


async def test_no_wg(tmp_path: Path) -> None:
    with pytest.raises(WireGuardMissing, match=r"cannot run .*: No such file.*apt install wireguard-tools"):
        await Wg("wg0", tmp_path / "no-wg").peers()
    plain = tmp_path / "plain"
    plain.write_text("")
    plain.chmod(stat.S_IRUSR)
    with pytest.raises(WireGuardMissing, match="Permission denied"):
        await Wg("wg0", plain).peers()


async def test_a_refusal_says_why_and_hides_preshared_keys(tmp_path: Path) -> None:
    wg = Wg("wg0", script(tmp_path, "echo 'Line unrecognized:' >&2; cat >&2; exit 1"))
    with pytest.raises(WireGuardRefused, match="Line unrecognized") as caught:
        await wg.add([peer(A, TWO, SECRET)])
    assert A.text in str(caught.value)
    assert SECRET.text not in str(caught.value)
    with pytest.raises(WireGuardRefused, match="exit code 3"):
        await Wg("wg0", script(tmp_path, "exit 3")).peers()


async def test_what_is_not_wgs_output_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for said in ("hello", f"{A.text}", f"{A.text}\\t10.0.0.300/32", f"{A.text}\\t(none)\\n{SECRET.text} 1"):
        with pytest.raises(WireGuardRefused, match="not WireGuard's") as caught:
            await Wg("wg0", script(tmp_path, f"printf '{said}\\n'")).peers()
        assert SECRET.text not in str(caught.value)
    with pytest.raises(WireGuardRefused, match="not WireGuard's"):
        await Wg("wg0", script(tmp_path, "echo 5")).transfer()


async def test_a_change_that_was_not_made_is_an_error(tmp_path: Path) -> None:
    wg = Wg("wg0", script(tmp_path, "exit 0"))
    with pytest.raises(WireGuardRefused, match=r"would add 2 peers and did not"):
        await wg.add([peer(A, TWO), peer(B, None)])
    with pytest.raises(WireGuardRefused, match=r"would change 1 peers"):
        await wg.set_addresses({A: TWO})
    still = Wg("wg0", script(tmp_path, f"[ $1 = set ] || printf '{A.text}\\t(none)\\n'"))
    with pytest.raises(WireGuardRefused, match=r"would remove 1 peers"):
        await still.remove([A])


async def test_a_wg_that_hangs_is_given_up(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    wg = Wg("wg0", script(tmp_path, f"echo $$ > {pid}; exec sleep 60"), patience_s=0.1)
    with trio.fail_after(5):
        with pytest.raises(WireGuardStuck, match=r"no answer in 0\.1 s"):
            await wg.peers()
    with pytest.raises(FileNotFoundError):
        Path(f"/proc/{pid.read_text().strip()}").stat()
