import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.relay.endpoint import Endpoint, needs_ipv6

from impervious.config.address import Address
from impervious.errors import FailedPrecondition, ResourceExhausted
from impervious.relay.sockets import UNCHECKED, Arrival, Door, Link, is_ours


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_door(opened: ExitStack, bind: str = "", port: int = 0) -> Door:
    door = Door.open(bind, port)
    opened.enter_context(door.sock)
    return door


def open_link(opened: ExitStack, door: Door, arrival: Arrival, *, instead_of: Link | None = None) -> Link:
    link = door.link_to(arrival, instead_of=instead_of)
    opened.enter_context(link.sock)
    return link


def hear(door: Door, endpoint: Endpoint) -> Arrival:
    endpoint.send(b"hello")
    arrival = door.receive()
    assert arrival.payload == b"hello"
    return arrival


def drain(sock: socket.socket) -> int:
    """How many datagrams wait."""
    count = 0
    while True:
        try:
            sock.recv(1)
        except BlockingIOError:
            return count
        count += 1


LOCAL_ADDRESSES = [
    ("", "127.0.0.1"),
    ("", "127.0.0.2"),
    ("0.0.0.0", "127.0.0.1"),
    ("127.0.0.1", "127.0.0.1"),
    pytest.param("", "::1", marks=needs_ipv6),
    pytest.param("::", "127.0.0.1", marks=needs_ipv6),
    pytest.param("::1", "::1", marks=needs_ipv6),
]


@pytest.mark.parametrize(("bind", "host"), LOCAL_ADDRESSES)
def test_the_endpoint_hears_from_the_very_address_it_wrote_to(opened: ExitStack, bind: str, host: str) -> None:
    """Also 127.0.0.2, which the kernel would not choose by itself."""
    door = open_door(opened, bind)
    endpoint = opened.enter_context(Endpoint(door.port, host))
    arrival = hear(door, endpoint)
    assert arrival.source == Address(host=host, port=endpoint.port)
    door.reply(arrival, b"reply")
    assert endpoint.sender() == (host, door.port)
    link = open_link(opened, door, arrival)
    assert link.endpoint == arrival.source
    link.sock.send(b"payload")
    assert endpoint.sender() == (host, door.port)
    endpoint.send(b"answer")
    assert link.sock.recv(100) == b"answer"


@pytest.mark.parametrize(("bind", "host"), LOCAL_ADDRESSES)
def test_the_link_hears_its_endpoint_and_the_door_everybody_else(opened: ExitStack, bind: str, host: str) -> None:
    door = open_door(opened, bind)
    endpoint, stranger = (opened.enter_context(Endpoint(door.port, host)) for _ in range(2))
    link = open_link(opened, door, hear(door, endpoint))
    stranger.send(b"let me in")
    endpoint.send(b"mine")
    assert link.sock.recv(100) == b"mine"
    with pytest.raises(BlockingIOError):
        link.sock.recv(100)
    assert door.receive().payload == b"let me in"
    with pytest.raises(BlockingIOError):
        door.receive()


def test_a_link_takes_the_place_of_another(opened: ExitStack) -> None:
    door = open_door(opened)
    first, second = (opened.enter_context(Endpoint(door.port)) for _ in range(2))
    old = open_link(opened, door, hear(door, first))
    new = open_link(opened, door, hear(door, second), instead_of=old)
    old.sock.close()
    first.send(b"old")
    second.send(b"new")
    assert new.sock.recv(100) == b"new"
    assert door.receive().payload == b"old"


def test_no_program_slips_in_beside_a_link(opened: ExitStack) -> None:
    door = open_door(opened, "127.0.0.1")
    open_link(opened, door, hear(door, opened.enter_context(Endpoint(door.port))))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as intruder:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            intruder.setsockopt(socket.SOL_SOCKET, option, 1)
        with pytest.raises(OSError, match="in use"):
            intruder.bind(("127.0.0.1", door.port))


def test_what_was_queued_before_the_link_was_connected_is_checked(opened: ExitStack) -> None:
    sock = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    endpoint, stranger = (opened.enter_context(Endpoint(sock.getsockname()[1])) for _ in range(2))
    stranger.send(b"forged")
    endpoint.send(b"real")
    sock.connect(("127.0.0.1", endpoint.port))
    link = Link(sock, Address(host="127.0.0.1", port=endpoint.port))
    assert [link.receive_checked() for _ in range(2)] == [(b"forged", False), (b"real", True)]
    assert link.unchecked == UNCHECKED - 2


def test_the_least_buffer_holds_fewer_datagrams_than_are_checked(opened: ExitStack) -> None:
    sock = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    stranger = opened.enter_context(Endpoint(sock.getsockname()[1]))
    stranger.send(*[b""] * 2 * UNCHECKED)
    assert 0 < drain(sock) < UNCHECKED


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux tells")
def test_overruns_are_told(opened: ExitStack) -> None:
    door = open_door(opened)
    endpoint = opened.enter_context(Endpoint(door.port))
    link = open_link(opened, door, hear(door, endpoint))
    assert link.overruns() == 0
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    endpoint.send(*[b"x" * 1000] * 50)
    assert link.overruns() == 50 - drain(link.sock) > 0


@pytest.mark.parametrize("bind", ["", "127.0.0.1"])
def test_a_taken_port_is_named(opened: ExitStack, bind: str) -> None:
    taken = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with pytest.raises(FailedPrecondition, match=rf"UDP port {port} .*is taken by another program.*another port"):
        Door.open(bind, port)


def test_an_address_of_another_machine(opened: ExitStack) -> None:
    with pytest.raises(FailedPrecondition, match=r"UDP port 6000 of 192\.0\.2\.99 .* does not have that address"):
        Door.open("192.0.2.99", 6000)


class Refusing:
    """Stands for `socket.socket` on a system that does not let us have one."""

    def __init__(self, number: int, families: tuple[int, ...]) -> None:
        self.number = number
        self.families = families
        self.real = socket.socket

    def __call__(self, family: int, kind: int) -> socket.socket:
        if family in self.families:
            raise OSError(self.number, "refused")
        return self.real(family, kind)


def test_a_machine_without_ipv6_relays_ipv4(monkeypatch: pytest.MonkeyPatch, opened: ExitStack) -> None:
    monkeypatch.setattr("impervious.relay.sockets.socket.socket", Refusing(errno.EAFNOSUPPORT, (socket.AF_INET6,)))
    door = Door.open("", 0)
    monkeypatch.undo()
    opened.enter_context(door.sock)
    endpoint = opened.enter_context(Endpoint(door.port))
    link = open_link(opened, door, hear(door, endpoint))
    endpoint.send(b"over IPv4")
    assert link.sock.recv(100) == b"over IPv4"


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EACCES, FailedPrecondition, "ports below 1024 need special rights"),
        (errno.EMFILE, ResourceExhausted, "too many files are open"),
        (errno.EIO, FailedPrecondition, "cannot be opened: refused"),
    ],
)
def test_other_reasons_are_named(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], says: str
) -> None:
    monkeypatch.setattr("impervious.relay.sockets.socket.socket", Refusing(number, (socket.AF_INET, socket.AF_INET6)))
    with pytest.raises(kind, match=says):
        Door.open("", 53)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("192.0.2.99", False),
        ("2001:db8::99", False),
        pytest.param("::1", True, marks=needs_ipv6),
    ],
)
def test_our_own_addresses(host: str, ours: bool) -> None:
    assert is_ours(host) is ours
