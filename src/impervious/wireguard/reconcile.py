"""What must change so that the interface has the peers that the database wants.

The database is the truth and the interface a cache of it, so there is one way to change peers: store what is wanted,
then reconcile. A peer that is right is not touched, because a peer that is removed and added again is cut off for some
15 s. Peers whose key the database does not call ours are somebody else's: they are never removed, and an address that
one of them has is not taken from it, though WireGuard would.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from impervious.errors import WireGuardRefused
from impervious.wireguard.keys import PublicKey
from impervious.wireguard.peers import Host, Network, Peer, WantedPeer, WireGuard, only


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the database says."""

    peers: Collection[WantedPeer] = ()
    """Keys are unique, and so are addresses."""
    ours: AbstractSet[PublicKey] = frozenset()
    """Every key that may be on the interface because of us: those of ended contracts too, until they are gone."""

    def __post_init__(self) -> None:
        for what in ([peer.key for peer in self.peers], [peer.address for peer in self.peers if peer.address]):
            if len(set(what)) != len(what):
                raise ValueError("two wanted peers share a key or an address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A peer of ours whose address somebody else's peer has. It stays suspended until that one gives it up."""

    key: PublicKey
    address: Host
    owner: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The least that must change, in the order of its fields. What a peer of ours should be is in one of them."""

    remove: tuple[PublicKey, ...] = ()
    """First, because it frees addresses."""
    set_addresses: Mapping[PublicKey, Host | None] = field(default_factory=dict)
    """Peers that are there, with the right preshared key: suspended (None), restored or moved."""
    add: tuple[WantedPeer, ...] = ()
    """Peers that are not there, or have another preshared key."""
    conflicts: tuple[Conflict, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remove or self.set_addresses or self.add)


def plan(wanted: Wanted, actual: Mapping[PublicKey, Peer]) -> Plan:
    """Compare what should be with what is.

    Args:
      wanted: the database's peers.
      actual: the interface's.
    """
    keys = {peer.key for peer in wanted.peers}
    taken = {network: key for key, peer in actual.items() if key not in keys | wanted.ours for network in peer.allowed}
    conflicts = tuple(
        Conflict(key=peer.key, address=peer.address, owner=taken[network])
        for peer in wanted.peers
        if peer.address is not None
        for network in only(peer.address)
        if network in taken
    )
    without = {conflict.key for conflict in conflicts}
    peers = [replace(peer, address=None) if peer.key in without else peer for peer in wanted.peers]
    wrong = [peer for peer in peers if not peer.is_met_by(actual.get(peer.key))]
    return Plan(
        remove=tuple(sorted(key for key in actual if key in wanted.ours and key not in keys)),
        set_addresses={peer.key: peer.address for peer in wrong if _is_keyed(peer, actual)},
        add=tuple(peer for peer in wrong if not _is_keyed(peer, actual)),
        conflicts=conflicts,
    )


def _is_keyed(peer: WantedPeer, actual: Mapping[PublicKey, Peer]) -> bool:
    return peer.key in actual and actual[peer.key].preshared_key == peer.preshared_key


def foreign_networks(actual: Mapping[PublicKey, Peer], ours: AbstractSet[PublicKey]) -> frozenset[Network]:
    """List what the peers of others have: none of it can be a buyer's address."""
    return frozenset(network for key, peer in actual.items() if key not in ours for network in peer.allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What reconciling did."""

    plan: Plan
    peers: Mapping[PublicKey, Peer]
    """What is on the interface now."""
    refused: tuple[WireGuardRefused, ...] = ()
    """Steps after which some peers were not as asked; the others were still taken."""


class Reconciler:
    """Makes an interface follow the database."""

    def __init__(self, wireguard: WireGuard, read: Callable[[], Awaitable[Wanted]]) -> None:
        """Tie an interface to a database.

        Args:
          wireguard: the interface.
          read: reads what is wanted. It is called after everybody before has finished, so that whoever stored
            something and then calls `reconcile` finds it done at the return.
        """
        self._wireguard = wireguard
        self._read = read
        self._turn = trio.Lock()

    async def reconcile(self) -> Report:
        """Look, change what must change, and see that it has.

        Raises:
          WireGuardError: the interface cannot be programmed; some of it may be done.

        Cancellation:
          Part of the plan may be done. The next call does the rest.
        """
        async with self._turn:
            wanted = await self._read()
            actual = await self._wireguard.peers()
            todo = plan(wanted, actual)
            refused: list[WireGuardRefused] = []
            for step in (
                partial(self._wireguard.remove, todo.remove),
                partial(self._wireguard.set_addresses, todo.set_addresses),
                partial(self._wireguard.add, todo.add),
            ):
                try:
                    await step()
                except WireGuardRefused as error:
                    refused.append(error)  # one peer that cannot be must not keep the others out
            if todo:
                actual = await self._wireguard.peers()
            return Report(plan=todo, peers=actual, refused=tuple(refused))
