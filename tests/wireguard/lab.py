"""Machines that are network namespaces, joined by cables: where tests meet the real `wg`, `ping` and `nft`.

A lab is one process in a PID namespace of its own, and every machine lives inside it. When the test process ends,
however it ends, the pipe to that process closes and the kernel takes everything down: machines, interfaces, userspace
WireGuards. Names are private to a machine, so each can have its own `wg0`, and so are `/run` and the folders that
commands of the documentation write to. Works as root, and as any user where user namespaces are allowed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import pytest
import trio

from impervious.wireguard import PrivateKey

TOOLS: Final = {
    "wg": "wireguard-tools",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "nft": "nftables",
    "iptables": "iptables",
    "sysctl": "procps",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""What is run, and the Debian package that has it."""

COMMAND_S: Final = 10.0
"""No command of a test takes longer."""

_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"  # ip and nft of an ordinary user

_PRIVATE_FOLDERS: Final = ("/run", "/etc/wireguard", "/etc/sysctl.d")
_SAY_PID: Final = "read pid rest < /proc/self/stat; echo $pid"
"""The shell's number as the test process sees it, because this /proc is the outer one."""
_LAB: Final = f"{_SAY_PID}; exec cat"
_MACHINE: Final = f"""
for folder in {" ".join(_PRIVATE_FOLDERS)}; do [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done
mkdir -m 700 /run/wireguard
ip link set lo up
{_SAY_PID}
exec sleep infinity
"""

_RECEIVER: Final = """
import hashlib, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], int(sys.argv[2])), family=family) as server:
    print("ready", flush=True)
    digest = hashlib.sha256()
    connection = server.accept()[0]
    while chunk := connection.recv(1 << 18):
        digest.update(chunk)
print(digest.hexdigest(), flush=True)
"""
_LISTENER: Final = """
import socket, sys
servers = [socket.create_server(("0.0.0.0", int(port))) for port in sys.argv[1:]]
print("ready", flush=True)
while True:
    servers[0].accept()
"""
_SENDER: Final = """
import hashlib, os, socket, sys
digest = hashlib.sha256()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
    left = int(sys.argv[3])
    while left:
        chunk = os.urandom(min(left, 1 << 18))
        connection.sendall(chunk)
        digest.update(chunk)
        left -= len(chunk)
print(digest.hexdigest())
"""


@cache
def why_not() -> str:
    """Say what keeps this machine from building a lab; nothing if it can."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"missing: apt-get install --no-install-recommends {' '.join(missing)}"
    if problem := _complaint("true"):
        return f"not root, and no user namespaces: {problem}" if os.geteuid() else problem
    if not _complaint("ip", "link", "add", "wg0", "type", "wireguard"):
        return ""
    if shutil.which("wireguard-go") is None:
        return "the kernel has no WireGuard, and there is no other: apt-get install wireguard-go"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"the kernel has no WireGuard, and wireguard-go needs /dev/net/tun: {error.strerror}"
    return ""


def _complaint(*command: str) -> str:
    """Run a command in namespaces of its own; say what it has against that, or nothing."""
    tried = subprocess.run(alone(*command), capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else tried.stderr.strip() or f"{command[0]} failed"


def require_lab() -> None:
    """Skip the test where there can be no lab; fail it there if `REQUIRE_VPN_E2E=1`."""
    reason = why_not()
    if reason and os.environ.get("REQUIRE_VPN_E2E") == "1":
        pytest.fail(f"REQUIRE_VPN_E2E=1, and no network namespaces can be had: {reason}")
    if reason:
        pytest.skip(f"no network namespaces: {reason}")


def alone(*command: str) -> list[str]:
    """Make a command run as root of namespaces of its own, which end with it."""
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    spaces = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    return ["unshare", *user, *spaces, "--", *command]


def _enter(pid: int, *spaces: str) -> list[str]:
    # Without root the outer user number stays; it is root's inside.
    user = ["--user", "--preserve-credentials"] if os.geteuid() else []
    return ["nsenter", f"--target={pid}", *user, *(f"--{space}" for space in spaces), "--"]


@dataclass
class Pings:
    """Echoes that were asked for without a pause."""

    answered: set[int] = field(default_factory=set)
    """Sequence numbers, from 1."""
    fresh: trio.Event = field(default_factory=trio.Event)

    @property
    def lost(self) -> list[int]:
        """Numbers that got no answer although a later one did."""
        return sorted(set(range(1, max(self.answered, default=0))) - self.answered)

    def read(self, line: str) -> None:
        """Take a line that `ping` printed."""
        if found := re.search(r"bytes from .*icmp_seq=(\d+) .*time=", line):
            self.answered.add(int(found[1]))
            self.fresh.set()
            self.fresh = trio.Event()


class Machine:
    """One network namespace with its own interfaces, firewall and folders."""

    def __init__(self, name: str, pid: int, folder: Path) -> None:
        self.name = name
        self.pid = pid
        self.wg = folder / f"wg-{name}"
        """A program that is `wg` on this machine wherever it is run: for `vpn.binary_path`."""
        self.wg.write_text(f'#!/bin/sh\nexec {shlex.join(self.argv("wg"))} "$@"\n')
        self.wg.chmod(0o700)

    def argv(self, *command: str) -> list[str]:
        """Make a command run on this machine. Signals reach it; nothing but the test ends it."""
        return [*_enter(self.pid, "net", "mount"), *command]

    def bound(self, *command: str) -> list[str]:
        """Make a command run on this machine that ends, with its children, when the lab does."""
        return [*_enter(self.pid, "net", "mount", "pid"), *command]

    async def run(self, *command: str, stdin: str = "") -> str:
        """Run a command to its end and give what it printed; it must succeed."""
        done = await self.try_run(*command, stdin=stdin)
        assert done.returncode == 0, f"{self.name}: {shlex.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    async def try_run(self, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        with trio.fail_after(COMMAND_S):
            done = await trio.run_process(
                self.bound(*command), stdin=stdin.encode(), capture_stdout=True, capture_stderr=True, check=False
            )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    async def sh(self, script: str) -> str:
        """Run lines of shell, each of which must succeed."""
        return await self.run("sh", "-euc", script)

    async def add_wireguard(
        self, key: PrivateKey, address: str, *, name: str = "wg0", listen_port: int | None = None
    ) -> None:
        """Make a WireGuard interface, the kernel's or else wireguard-go's, and bring it up."""
        if (await self.try_run("ip", "link", "add", name, "type", "wireguard")).returncode:
            await self.sh(f"wireguard-go {name} > /run/wireguard-go.log 2>&1")  # returns when it serves
        port = [] if listen_port is None else ["listen-port", str(listen_port)]
        await self.run("wg", "set", name, *port, "private-key", "/dev/stdin", stdin=key.text)
        await self.sh(f"ip address add {address} dev {name}; ip link set {name} up mtu 1420")

    async def ping(self, target: str, *, within_s: float = 5.0) -> bool:
        """Say whether an echo comes back in time; asks again every 50 ms."""
        with trio.move_on_after(within_s):
            async with self.pinging(target, every_s=0.05) as pings:
                await pings.fresh.wait()
                return True
        return False

    async def connects(self, target: str, port: int) -> bool:
        """Say whether a TCP connection comes about at once."""
        code = f"import socket; socket.create_connection(({target!r}, {port}), timeout=0.3)"
        return (await self.try_run(sys.executable, "-ISc", code)).returncode == 0

    @asynccontextmanager
    async def listening(self, *ports: int) -> AsyncIterator[None]:
        """Take TCP connections on every address of this machine."""
        async with trio.open_nursery() as nursery:
            command = self.argv(sys.executable, "-ISc", _LISTENER, *map(str, ports))
            process = await nursery.start(piped(command))
            assert await process.stdout.receive_some() == b"ready\n"
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def pinging(self, target: str, *, every_s: float = 0.02) -> AsyncIterator[Pings]:
        """Ask for echoes all the time; at the end of the block wait for one more, so that every loss shows."""
        pings = Pings()
        command = self.argv("ping", "-n", "-i", str(every_s), target)
        async with trio.open_nursery() as nursery:
            process = await nursery.start(piped(command))
            nursery.start_soon(each_line, process, pings.read)
            try:
                yield pings
                if pings.answered:
                    with trio.move_on_after(COMMAND_S):
                        await pings.fresh.wait()
            finally:
                nursery.cancel_scope.cancel()


def piped(command: list[str]) -> "partial[Awaitable[object]]":
    """Make a program to be started with `nursery.start`, which gives its process; it ends with the nursery."""
    return partial(trio.run_process, command, stdout=PIPE, stderr=DEVNULL, check=False)


async def each_line(process: trio.Process, take: Callable[[str], object]) -> None:
    """Hand on what a program prints, line by line, until it ends."""
    assert process.stdout is not None
    rest = ""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk.decode()).split("\n")
        for line in lines:
            take(line)


class Lab:
    """The machines of one test."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self.holders: list[trio.Process] = []

    async def add(self, name: str) -> Machine:
        """Make a machine that has no network but itself."""
        unshare = ["unshare", "--net", "--mount", "--propagation", "private", "--"]
        command = [*_enter(self._pid, "mount", "pid"), *unshare, "sh", "-euc", _MACHINE]
        holder = await trio.lowlevel.open_process(command, stdin=DEVNULL, stdout=PIPE)
        self.holders.append(holder)
        return Machine(name, await _announced(holder), self._folder)

    async def join(
        self, one: Machine, here: str, other: Machine, there: str, *, names: tuple[str, str] = ("eth0", "eth0")
    ) -> None:
        """Put a cable between two machines.

        Args:
          one: a machine.
          here: its address with the prefix, such as 198.51.100.1/24.
          other: the machine at the other end.
          there: that one's address.
          names: of the network interfaces, at this end and that.
        """
        # Not with `run`: inside, the other machine's process has another number.
        cable = f"ip link add {names[0]} type veth peer name {names[1]} netns {other.pid}"
        await trio.run_process(one.argv(*cable.split()))
        for machine, address, name in ((one, here, names[0]), (other, there, names[1])):
            await machine.sh(f"ip address add {address} dev {name} nodad; ip link set {name} up")


async def transfer(source: Machine, target: Machine, address: str, size_bytes: int, *, port: int = 7777) -> None:
    """Move random bytes over TCP and see that what arrives is what was sent.

    Args:
      source: who sends.
      target: who receives, at `address`.
      address: the target's.
      size_bytes: how much.
      port: a free one.
    """
    receiver = target.argv(sys.executable, "-ISc", _RECEIVER, address, str(port))
    with trio.fail_after(3 * COMMAND_S):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(piped(receiver))
            assert await process.stdout.receive_some() == b"ready\n"
            sent = await trio.run_process(
                source.argv(sys.executable, "-ISc", _SENDER, address, str(port), str(size_bytes)), capture_stdout=True
            )
            received = b"".join([chunk async for chunk in process.stdout])
    assert received == sent.stdout


@asynccontextmanager
async def open_lab(folder: Path) -> AsyncIterator[Lab]:
    """Build an empty lab, and take everything in it down at the end.

    Args:
      folder: for the programs that act on a machine; pytest's `tmp_path`.
    """
    process = await trio.lowlevel.open_process(alone("sh", "-euc", _LAB), stdin=PIPE, stdout=PIPE)
    lab: Lab | None = None
    try:
        lab = Lab(await _announced(process), folder)
        yield lab
    finally:
        with trio.move_on_after(COMMAND_S, shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()  # `cat` ends, and with it all that is inside
            for each in (process, *(lab.holders if lab else ())):
                await each.wait()
                if each.stdout is not None:
                    await each.stdout.aclose()


async def _announced(holder: trio.Process) -> int:
    assert holder.stdout is not None
    with trio.fail_after(COMMAND_S):
        said = await holder.stdout.receive_some()
    assert said, "a namespace ended before it began"
    return int(said)


@dataclass
class TwoMachines:
    """A seller and a buyer with a cable between them."""

    lab: Lab
    seller: Machine
    """198.51.100.1"""
    buyer: Machine
    """198.51.100.2"""


SELLER: Final = "198.51.100.1"
BUYER: Final = "198.51.100.2"


@asynccontextmanager
async def two_machines(folder: Path) -> AsyncIterator[TwoMachines]:
    """Build a seller and a buyer with a cable between them."""
    async with open_lab(folder) as lab:
        seller, buyer = await lab.add("seller"), await lab.add("buyer")
        await lab.join(seller, f"{SELLER}/24", buyer, f"{BUYER}/24")
        yield TwoMachines(lab=lab, seller=seller, buyer=buyer)
