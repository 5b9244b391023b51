"""A WireGuard interface in memory, with the manners of the real one: `test_wg` puts both through the same tests."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

import trio

from impervious.errors import WireGuardError, WireGuardRefused
from impervious.wireguard import Host, Interface, Peer, PrivateKey, PublicKey, Transfer, WantedPeer
from impervious.wireguard.peers import only


class MemoryWireGuard:
    """Programs nothing but itself."""

    def __init__(self, key: PrivateKey | None = None, *, listen_port: int = 51820) -> None:
        self._interface = Interface(public_key=(key or PrivateKey.generate()).public, listen_port=listen_port)
        self._peers: dict[PublicKey, Peer] = {}
        self._transfer: dict[PublicKey, Transfer] = {}
        self._handshakes: dict[PublicKey, int] = {}
        self.broken: WireGuardError | None = None
        """Raised by every call while it is set."""
        self.changes: list[tuple[str, AbstractSet[PublicKey]]] = []
        """What was done, in order: `add`, `set_addresses` or `remove`, and to whom."""
        self.looks = 0
        """How often it was asked for its peers."""

    async def interface(self) -> Interface:
        await self._answer()
        return self._interface

    async def peers(self) -> dict[PublicKey, Peer]:
        self.looks += 1
        await self._answer()
        return self.snapshot()

    async def add(self, peers: Collection[WantedPeer], /) -> None:
        await self._answer()
        self._record("add", [peer.key for peer in peers])
        for peer in peers:
            if peer.key == self._interface.public_key:
                continue  # dropped without a word, as WireGuard does; the real one sees it when it reads back
            self.place(peer.key, Peer(allowed=only(peer.address), preshared_key=peer.preshared_key))
        self._confirm(peer.key for peer in peers if not peer.is_met_by(self._peers.get(peer.key)))

    async def set_addresses(self, addresses: Mapping[PublicKey, Host | None], /) -> None:
        await self._answer()
        self._record("set_addresses", addresses)
        for key, address in addresses.items():
            before = self._peers.get(key, Peer(allowed=frozenset(), preshared_key=None))
            if key != self._interface.public_key:
                self.place(key, replace(before, allowed=only(address)))
        self._confirm(
            key for key, to in addresses.items() if key not in self._peers or self._peers[key].allowed != only(to)
        )

    async def remove(self, keys: Collection[PublicKey], /) -> None:
        await self._answer()
        self._record("remove", keys)
        for key in keys:
            self._peers.pop(key, None)
            self._transfer.pop(key, None)
            self._handshakes.pop(key, None)

    async def transfer(self) -> dict[PublicKey, Transfer]:
        await self._answer()
        nothing = Transfer(received_bytes=0, sent_bytes=0)
        return {key: self._transfer.get(key, nothing) for key in self._peers}

    async def handshakes(self) -> dict[PublicKey, int]:
        await self._answer()
        return dict(self._handshakes)

    # --- What happens behind the daemon's back -----------------------------------------------------------------------

    def place(self, key: PublicKey, peer: Peer) -> None:
        """Set a peer by hand. What it may speak as is taken from whoever had it, exactly that and no more."""
        for other, theirs in self._peers.items():
            self._peers[other] = replace(theirs, allowed=theirs.allowed - peer.allowed)
        self._peers[key] = peer

    def exchange(self, key: PublicKey, *, received_bytes: int, sent_bytes: int, handshake_s: int) -> None:
        """Let a peer that is there use its tunnel."""
        assert self._peers[key].allowed, "nothing gets through for a peer without an address"
        before = self._transfer.get(key, Transfer(received_bytes=0, sent_bytes=0))
        self._transfer[key] = Transfer(
            received_bytes=before.received_bytes + received_bytes, sent_bytes=before.sent_bytes + sent_bytes
        )
        self._handshakes[key] = handshake_s

    def make_again(self) -> None:
        """Lose everything but the key, as after a reboot."""
        self._peers.clear()
        self._transfer.clear()
        self._handshakes.clear()

    def snapshot(self) -> dict[PublicKey, Peer]:
        """Look without asking."""
        return dict(self._peers)

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken

    def _record(self, verb: str, keys: Collection[PublicKey]) -> None:
        if keys:
            self.changes.append((verb, frozenset(keys)))

    def _confirm(self, failed: Iterable[PublicKey]) -> None:
        keys = tuple(failed)
        if keys:
            raise WireGuardRefused(f"{len(keys)} peers are not as asked, {keys[0]} first")
