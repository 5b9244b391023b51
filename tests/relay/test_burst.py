import errno
import socket
from collections.abc import Iterator

import pytest

from impervious.relay.burst import BURST, Burst, LinuxBurst, PlainBurst, open_burst

Pair = tuple[socket.socket, socket.socket]


def make_plain() -> Burst:
    return PlainBurst()


def make_linux() -> Burst:
    try:
        return LinuxBurst()
    except AttributeError:
        pytest.skip("this system has no recvmmsg")


@pytest.fixture(params=[make_plain, make_linux])
def burst(request: pytest.FixtureRequest) -> Burst:
    made: Burst = request.param()
    return made


@pytest.fixture
def pairs() -> Iterator[tuple[Pair, Pair]]:
    """Two pairs of connected sockets: in from the first pair, out through the second."""
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    for one, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        socks[one].connect(socks[other].getsockname())
    yield (socks[0], socks[1]), (socks[2], socks[3])
    for sock in socks:
        sock.close()


def everything(sock: socket.socket) -> list[bytes]:
    datagrams = []
    while True:
        try:
            datagrams.append(sock.recv(65_535))
        except BlockingIOError:
            return datagrams


def test_datagrams_pass_whole_and_in_order(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    (sender, inbound), (outbound, receiver) = pairs
    datagrams = [bytes([size % 251]) * size for size in (1, 200, 1200, 3, 9000)]
    for datagram in datagrams:
        sender.send(datagram)
    assert burst.receive(inbound) == [1, 200, 1200, 3, 9000]
    assert [burst.datagram(slot) for slot in range(5)] == datagrams
    assert burst.send(outbound, 0, 5) == 5
    assert everything(receiver) == datagrams


def test_a_part_of_a_burst_can_be_sent(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    (sender, inbound), (outbound, receiver) = pairs
    for datagram in (b"a", b"bb", b"ccc", b"dddd"):
        sender.send(datagram)
    burst.receive(inbound)
    assert burst.send(outbound, 1, 2) == 2
    assert everything(receiver) == [b"bb", b"ccc"]


def test_a_burst_is_at_most_64_and_the_rest_waits(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    (sender, inbound), (outbound, receiver) = pairs
    for number in range(BURST + 3):
        sender.send(bytes([number]))
    assert burst.receive(inbound) == [1] * BURST
    assert burst.send(outbound, 0, BURST) == BURST
    assert burst.receive(inbound) == [1] * 3
    assert burst.send(outbound, 0, 3) == 3
    assert everything(receiver) == [bytes([number]) for number in range(BURST + 3)]


def test_empty_and_largest_datagrams(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    (sender, inbound), (outbound, receiver) = pairs
    largest = bytes(range(256)) * 255 + bytes(227)
    assert len(largest) == 65_507
    for datagram in (b"", largest, b""):
        sender.send(datagram)
    assert burst.receive(inbound) == [0, 65_507, 0]
    assert burst.datagram(1) == largest
    assert burst.send(outbound, 0, 3) == 3
    assert everything(receiver) == [b"", largest, b""]


def test_nothing_waits(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    with pytest.raises(BlockingIOError):
        burst.receive(pairs[0][1])


def test_a_loaded_datagram_is_sent(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    outbound, receiver = pairs[1]
    for datagram in (b"long" * 100, b"short"):
        burst.load(datagram)
        assert burst.datagram(0) == datagram
        assert burst.send(outbound, 0, 1) == 1
    assert everything(receiver) == [b"long" * 100, b"short"]


def test_nobody_listening_there_is_an_error_of_the_next_call(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    outbound, receiver = pairs[1]
    receiver.close()
    burst.load(b"into the void")
    assert burst.send(outbound, 0, 1) == 1
    with pytest.raises(ConnectionRefusedError):
        burst.receive(outbound)
    with pytest.raises(BlockingIOError):
        burst.receive(outbound)


def test_what_cannot_be_sent_stops_the_burst_in_front_of_it(burst: Burst, pairs: tuple[Pair, Pair]) -> None:
    outbound, receiver = pairs[1]
    sender, inbound = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # takes more than IPv4 does
    with sender, inbound:
        inbound.setblocking(False)
        for datagram in (b"first", bytes(65_508), b"last"):
            sender.send(datagram)
        assert burst.receive(inbound) == [5, 65_508, 4]
    assert burst.send(outbound, 0, 3) == 1
    with pytest.raises(OSError) as caught:
        burst.send(outbound, 1, 2)
    assert caught.value.errno == errno.EMSGSIZE
    assert burst.send(outbound, 2, 1) == 1
    assert everything(receiver) == [b"first", b"last"]


def test_the_fastest_one_is_taken() -> None:
    make_linux()
    assert isinstance(open_burst(), LinuxBurst)


def test_a_system_without_recvmmsg_gets_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.PyDLL", lambda *_args, **_options: object())
    assert isinstance(open_burst(), PlainBurst)
