"""The relay: two programs that cannot reach each other meet at a pair of UDP ports of a node."""

from functools import partial
from typing import Final

import trio

from impervious.cli.demo.facts import Done
from impervious.cli.demo.stage import DemoFailed, Stage

PACKETS: Final = (b"from the left", b"from the right")
REPEAT_S: Final = 0.2
"""UDP may lose what it likes."""


async def relay(stage: Stage) -> None:
    """Alice opens a session and tells carol where; a program beside each then talks through it."""
    alice, carol = stage.alice, stage.carol
    opened = await alice.post("/v1/socket/start", {})
    ports = (_port(opened["port1"]), _port(opened["port2"]))
    stage.tell(Done(at=alice.name, did="opens", text=f"UDP ports {ports[0]} and {ports[1]} of {opened['ip']}"))
    told = str((await alice.post("/v1/socket/sendRequest", {"pubkey": carol.pubkey}))["id"])
    await carol.inbox.wait_for(lambda arrival: arrival.id == told)
    heard = await _talk(str(opened["ip"]), ports)
    if heard != PACKETS[::-1]:
        raise DemoFailed(f"the relay changed what went through it: {heard!r}")
    for host, packet in zip((alice, carol), heard, strict=True):
        stage.tell(Done(at=host.name, did="hears", text=f"{packet.decode()}, through the relay"))
    await alice.post("/v1/socket/stop", {})
    await alice.inbox.wait_for(lambda arrival: arrival.service == "socket" and b'"CLOSED"' in arrival.data)


def _port(value: object) -> int:
    return int(str(value).removeprefix(":"))  # as published: ":6000"


async def _talk(ip: str, ports: tuple[int, int]) -> tuple[bytes, bytes]:
    """Send from a socket at each port to the other, and return what came to each."""
    udp = partial(trio.socket.socket, type=trio.socket.SOCK_DGRAM)
    with udp() as left, udp() as right:
        for sock, port in ((left, ports[0]), (right, ports[1])):
            await sock.connect((ip, port))
            await sock.send(b"")  # so that the relay knows where it is
        return await _hear(left, right, PACKETS[1]), await _hear(right, left, PACKETS[0])


async def _hear(listener: trio.socket.SocketType, speaker: trio.socket.SocketType, packet: bytes) -> bytes:
    while True:
        await speaker.send(packet)
        with trio.move_on_after(REPEAT_S):
            while not (heard := await listener.recv(2048)):
                pass
            return heard
