"""The `wg` program: the real implementation of the port.

Arguments are a list and never meet a shell; preshared keys travel on stdin alone. Every call is bounded in time, and
every change is read back, because WireGuard drops some without a word (a peer with the interface's own key) and takes
an address from the peer that had it. `wg show dump` would print the interface's private key: never used. Nor is
`syncconf`, which wipes that key when it is not told it again.
"""

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import trio

from impervious.errors import (
    InvalidArgument,
    WireGuardDenied,
    WireGuardError,
    WireGuardMissing,
    WireGuardNoInterface,
    WireGuardRefused,
    WireGuardStuck,
)
from impervious.wireguard.keys import KEY_BYTES, PresharedKey, PublicKey
from impervious.wireguard.peers import Host, Interface, Peer, Transfer, WantedPeer, only
from impervious.wireguard.program import run_program

T = TypeVar("T")

PATIENCE_S: Final = 10.0
"""For one run of `wg`, which takes milliseconds. A kernel lock or a userspace WireGuard that hangs can hold it up."""

BATCH: Final = 500
"""Peers in one run: 40 kB of arguments, where execve(2) takes 128 kB at least."""

_NONE: Final = "(none)"
_NO_SECRET: Final = base64.b64encode(bytes(KEY_BYTES)).decode()
"""How WireGuard is told that there is no preshared key."""


class Wg:
    """One interface, programmed with `wg`, be it the kernel's or a userspace WireGuard's."""

    def __init__(self, interface: str, binary: Path, *, patience_s: float = PATIENCE_S) -> None:
        """Name the interface; nothing is run yet.

        Args:
          interface: `vpn.interface`.
          binary: `vpn.binary_path`.
          patience_s: how long one run of `wg` may take, in seconds.
        """
        self._interface = interface
        self._binary = binary
        self._patience_s = patience_s

    async def interface(self) -> Interface:
        """See `WireGuard.interface`."""
        key = (await self._show("public-key")).strip()
        port = (await self._show("listen-port")).strip()
        return self._read(
            lambda: Interface(
                public_key=None if key == _NONE else PublicKey.parse(key),
                listen_port=int(port),
            )
        )

    async def peers(self) -> dict[PublicKey, Peer]:
        """See `WireGuard.peers`."""
        allowed = await self._column("allowed-ips", lambda text: frozenset(map(ip_network, _listed(text))))
        secrets = await self._column("preshared-keys", lambda text: None if text == _NONE else PresharedKey.parse(text))
        # A peer that came between the two looks is for the next one.
        return {key: Peer(allowed=allowed[key], preshared_key=secrets[key]) for key in allowed if key in secrets}

    async def add(self, peers: Collection[WantedPeer], /) -> None:
        """See `WireGuard.add`."""
        for batch in _batches(peers):
            text = "".join(map(_section, batch))
            await self._run("addconf", self._interface, "/dev/stdin", stdin=text, secrets=_secrets(batch))
        there = await self.peers() if peers else {}
        self._confirm("add", (peer.key for peer in peers if not peer.is_met_by(there.get(peer.key))))

    async def set_addresses(self, addresses: Mapping[PublicKey, Host | None], /) -> None:
        """See `WireGuard.set_addresses`."""
        for batch in _batches(addresses.items()):
            await self._set(*(("peer", key.text, "allowed-ips", _allowed(address)) for key, address in batch))
        there = await self.peers() if addresses else {}
        self._confirm(
            "change", (key for key, to in addresses.items() if key not in there or there[key].allowed != only(to))
        )

    async def remove(self, keys: Collection[PublicKey], /) -> None:
        """See `WireGuard.remove`."""
        for batch in _batches(keys):
            await self._set(*(("peer", key.text, "remove") for key in batch))
        there = await self.peers() if keys else {}
        self._confirm("remove", (key for key in keys if key in there))

    async def transfer(self) -> dict[PublicKey, Transfer]:
        """See `WireGuard.transfer`."""
        return await self._column("transfer", _transfer)

    async def handshakes(self) -> dict[PublicKey, int]:
        """See `WireGuard.handshakes`."""
        seconds = await self._column("latest-handshakes", int)
        return {key: second for key, second in seconds.items() if second}

    async def _show(self, what: str) -> str:
        return await self._run("show", self._interface, what)

    async def _column(self, what: str, parse: Callable[[str], T]) -> dict[PublicKey, T]:
        text = await self._show(what)
        return self._read(lambda: dict(_rows(text, parse)))

    async def _set(self, *changes: tuple[str, ...]) -> None:
        await self._run("set", self._interface, *(word for change in changes for word in change))

    async def _run(self, *arguments: str, stdin: str = "", secrets: Sequence[PresharedKey] = ()) -> str:
        """Run `wg` and give what it printed.

        Raises:
          WireGuardError: what is wrong, and what to do about it.
        """
        try:
            done = await run_program([str(self._binary), *arguments], stdin=stdin, patience_s=self._patience_s)
        except OSError as error:
            raise WireGuardMissing(_missing(self._binary, error)) from None
        except trio.TooSlowError:
            raise WireGuardStuck(
                f"{self._binary} {arguments[0]} {self._interface} gave no answer in {self._patience_s:g} s: see "
                f"whether `wg show {self._interface}` answers; a userspace WireGuard that hangs must be started again"
            ) from None
        if done.code:
            raise self._explained(_without(secrets, done.complaint), done.code)
        return done.output

    def _explained(self, text: str, code: int) -> WireGuardError:
        reason = text.lower()
        if "operation not permitted" in reason or "permission denied" in reason:
            return WireGuardDenied(
                f"{self._binary} may not touch {self._interface}: run the daemon as root, or with "
                f"AmbientCapabilities=CAP_NET_ADMIN in its systemd unit ({text})"
            )
        if "unable to access interface" in reason or "unable to modify interface" in reason:
            return WireGuardNoInterface(
                f"there is no WireGuard interface {self._interface}: `wg-quick up {self._interface}` brings it up, "
                f"or set vpn.interface to one that `wg show interfaces` lists ({text})"
            )
        return WireGuardRefused(f"{self._binary} on {self._interface}: {text or f'exit code {code}'}")

    def _confirm(self, verb: str, failed: Iterable[PublicKey]) -> None:
        keys = tuple(failed)
        if keys:
            raise WireGuardRefused(
                f"{self._interface}: wg said it would {verb} {len(keys)} peers and did not, {keys[0]} first: "
                f"see whether something else changes `wg show {self._interface}`"
            )

    def _read(self, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except (ValueError, InvalidArgument):
            # Not repeated: it may be a preshared key.
            raise WireGuardRefused(
                f"{self._binary} printed what is not WireGuard's: set vpn.binary_path to the `wg` of wireguard-tools"
            ) from None


def _missing(binary: Path, error: OSError) -> str:
    return (
        f"cannot run {binary}: {error.strerror}: install it (apt install wireguard-tools), "
        "or set vpn.binary_path to what `command -v wg` prints"
    )


def _rows(text: str, parse: Callable[[str], T]) -> Iterator[tuple[PublicKey, T]]:
    for line in text.splitlines():
        key, _, value = line.partition("\t")
        yield PublicKey.parse(key), parse(value)


def _listed(text: str) -> list[str]:
    return [] if text == _NONE else text.split()


def _transfer(text: str) -> Transfer:
    received, sent = map(int, text.split("\t"))
    return Transfer(received_bytes=received, sent_bytes=sent)


def _allowed(address: Host | None) -> str:
    return ",".join(map(str, only(address)))


def _section(peer: WantedPeer) -> str:
    """Write a peer as wg(8) reads it. Allowed IPs that are left out are emptied; a preshared key would be kept."""
    secret = _NO_SECRET if peer.preshared_key is None else peer.preshared_key.text
    lines = ["[Peer]", f"PublicKey = {peer.key.text}", f"PresharedKey = {secret}"]
    if peer.address is not None:
        lines.append(f"AllowedIPs = {_allowed(peer.address)}")
    return "\n".join((*lines, ""))


def _secrets(peers: Iterable[WantedPeer]) -> tuple[PresharedKey, ...]:
    return tuple(peer.preshared_key for peer in peers if peer.preshared_key is not None)


def _without(secrets: Iterable[PresharedKey], text: str) -> str:
    """Hide preshared keys: `wg` repeats a line that it cannot read."""
    for secret in secrets:
        text = text.replace(secret.text, "(preshared key)")
    return text


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
