"""Two sides on real sockets, driven step by step: loopback delivers at once and the clock is a number."""

import errno
import math
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from tests.relay.endpoint import Endpoint, frame, needs_ipv6, ready

from impervious.config.address import Address
from impervious.relay.admission import STRANGER, Admission, FirstCome
from impervious.relay.allowance import Allowance
from impervious.relay.burst import BURST, PlainBurst
from impervious.relay.carrier import Carrier
from impervious.relay.handshake import TokenBearer
from impervious.relay.side import HELD, Answered, Side
from impervious.relay.sockets import Arrival, Door, Link
from impervious.relay.values import SideStatistics, Token

TOKENS = b"1" * 32, b"2" * 32


class Room:
    """A session's two sides, and endpoints that come and go."""

    def __init__(self) -> None:
        self.now = 0.0
        self.carrier = Carrier()
        self.ports: set[int] = set()
        self.sides: list[Side] = []
        self.endpoints: list[Endpoint] = []

    def build(
        self,
        *,
        bind: str = "127.0.0.1",
        with_tokens: bool = False,
        packets_per_s: float = math.inf,
        bytes_per_s: float = math.inf,
        is_plain: bool = False,
    ) -> None:
        if is_plain:
            self.carrier.burst = PlainBurst()
        allowance = Allowance(packets_per_s=packets_per_s, bytes_per_s=bytes_per_s, now=0)
        for number in range(2):
            admission: Admission = TokenBearer(Token(TOKENS[number]), bytes(32)) if with_tokens else FirstCome(30)
            self.sides.append(Side(Door.open(bind, 0), admission, allowance, self.carrier, self.ports))
        self.sides[0].other, self.sides[1].other = self.sides[1], self.sides[0]
        self.ports.update(side.door.port for side in self.sides)

    def endpoint(self, number: int, host: str = "127.0.0.1", **options: int) -> Endpoint:
        self.endpoints.append(Endpoint(self.sides[number].door.port, host, **options))
        return self.endpoints[-1]

    def pair(self) -> tuple[Endpoint, Endpoint]:
        """Two endpoints that the relay knows, with nothing left to check."""
        both = self.endpoint(0), self.endpoint(1)
        for number, endpoint in enumerate(both):
            endpoint.send(b"")
            assert self.sides[number].answer(self.now) is Answered.ADMITTED
            self.sides[number].carry(self.now)
        return both

    def join(self, number: int, endpoint: Endpoint) -> bytes:
        """Shake hands; returns the cookie."""
        endpoint.send(frame(1, b"n" * 16, TOKENS[number]))
        self.sides[number].answer(self.now)
        (challenge,) = endpoint.received()
        assert challenge[:21] == b"IMR1\x02" + b"n" * 16
        cookie = challenge[21:]
        endpoint.send(frame(3, cookie, TOKENS[number]))
        assert self.sides[number].answer(self.now) is Answered.ADMITTED
        assert endpoint.received()[0] == ready(cookie, TOKENS[number])
        return cookie

    def statistics(self, number: int) -> SideStatistics:
        return self.sides[number].statistics(self.now)

    def close(self) -> None:
        for side in self.sides:
            side.close()
        for endpoint in self.endpoints:
            endpoint.sock.close()
        self.carrier.close()


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    yield made
    made.close()


@pytest.mark.parametrize("is_plain", [False, True])
def test_what_one_endpoint_sends_the_other_receives(room: Room, is_plain: bool) -> None:
    room.build(is_plain=is_plain)
    one, other = room.pair()
    one.send(b"a", b"b" * 1200)
    assert room.sides[0].carry(0) == 2
    assert other.received() == [b"a", b"b" * 1200]
    other.send(b"back")
    assert room.sides[1].carry(0) == 1
    assert one.received() == [b"back"]
    counted = room.statistics(0)
    assert (counted.received_packets, counted.received_bytes) == (3, 1201)  # the empty one too
    assert (counted.forwarded_packets, counted.forwarded_bytes) == (2, 1201)
    assert counted.endpoint == Address(host="127.0.0.1", port=one.port)


def test_a_turn_carries_64_at_most(room: Room) -> None:
    room.build()
    one, other = room.pair()
    one.send(*[b"x"] * (BURST + 1))
    assert room.sides[0].carry(0) == BURST
    assert len(other.received()) == BURST
    assert room.sides[0].carry(0) == 1


@needs_ipv6
def test_families_can_be_mixed(room: Room) -> None:
    room.build(bind="")
    four, six = room.endpoint(0), room.endpoint(1, "::1")
    for number, endpoint in enumerate((four, six)):
        endpoint.send(b"")
        room.sides[number].answer(0)
        room.sides[number].carry(0)
    assert [room.statistics(number).family for number in range(2)] == ["ipv4", "ipv6"]
    four.send(b"to six")
    six.send(b"to four")
    for side in room.sides:
        side.carry(0)
    assert (four.received(), six.received()) == ([b"to four"], [b"to six"])


# --- Before both are known --------------------------------------------------------------------------------------------


def test_the_first_words_wait_for_the_other_endpoint(room: Room) -> None:
    room.build()
    one, other = room.endpoint(0), room.endpoint(1)
    one.send(b"first", b"second")
    assert room.sides[0].answer(0) is Answered.ADMITTED  # the second is still at the door
    one.send(b"third")
    room.sides[0].carry(0)
    assert room.sides[0].answer(0) is Answered.LATECOMERS
    other.send(b"hello yourself")
    assert room.sides[1].answer(0) is Answered.ADMITTED
    assert sorted(other.received()) == [b"first", b"second", b"third"]
    assert one.received() == [b"hello yourself"]


def test_only_a_few_words_are_kept(room: Room) -> None:
    room.build()
    one, other = room.endpoint(0), room.endpoint(1)
    one.send(b"")
    room.sides[0].answer(0)
    one.send(*[bytes([number]) for number in range(HELD + 5)])
    for _ in range(3):
        room.sides[0].carry(0)
    other.send(b"")
    room.sides[1].answer(0)
    assert other.received() == [bytes([number]) for number in range(HELD)]
    counted = room.statistics(0)
    assert (counted.dropped.unpaired, counted.forwarded_packets, counted.received_packets) == (5, HELD, HELD + 6)


def test_empty_datagrams_are_not_forwarded(room: Room) -> None:
    room.build()
    one, other = room.pair()
    one.send(b"a", b"", b"b")
    room.sides[0].carry(0)
    assert other.received() == [b"a", b"b"]


# --- Strangers --------------------------------------------------------------------------------------------------------


def test_strangers_are_counted_and_change_nothing(room: Room) -> None:
    room.build()
    one, other = room.pair()
    stranger = room.endpoint(0)
    stranger.send(b"inject", b"")
    assert room.sides[0].answer(1) is Answered.STRANGERS
    one.send(b"mine")
    room.sides[0].carry(1)
    assert (stranger.received(), other.received()) == ([], [b"mine"])
    counted = room.statistics(0)
    assert (counted.dropped.stranger, counted.received_packets) == (2, 2)


@pytest.mark.parametrize("with_tokens", [False, True])
@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 0),
        ("0.0.0.0", 5000),
        ("255.255.255.255", 5000),
        ("224.0.0.1", 5000),
        ("::", 5000),
        ("ff02::1", 5000),
    ],
)
def test_an_address_that_no_program_can_have_is_never_the_endpoint(
    room: Room, host: str, port: int, with_tokens: bool
) -> None:
    """Forged sources: the kernel passes port 0 on, and some networks the others."""
    room.build(with_tokens=with_tokens)
    side = room.sides[0]
    datagram = frame(1, b"n" * 16, TOKENS[0]) if with_tokens else b"forged"
    arrival = Arrival(
        payload=datagram,
        source=Address(host=host, port=port),
        local="127.0.0.1",
        raw_source=("127.0.0.1", port),
        ancillary=[],
    )
    assert side._judge(arrival, 0) is STRANGER
    one, other = room.endpoint(0), room.endpoint(1)
    for number, endpoint in enumerate((one, other)):
        if with_tokens:
            room.join(number, endpoint)
        else:
            endpoint.send(b"hello")
            assert room.sides[number].answer(0) is Answered.ADMITTED
    one.send(b"payload")
    side.carry(0)
    assert b"payload" in other.received()


@pytest.mark.skipif(os.geteuid() != 0, reason="forging a source port takes root")
@pytest.mark.parametrize("joined", [False, True])
def test_a_forged_port_0_does_not_make_the_endpoint_deaf(room: Room, joined: bool) -> None:
    room.build()
    one, other = room.pair() if joined else (room.endpoint(0), room.endpoint(1))
    port = room.sides[0].door.port
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        # RFC 768: source port, destination port, length, checksum (0: none).
        raw.sendto(struct.pack("!4H", 0, port, 8 + 6, 0) + b"forged", ("127.0.0.1", 0))
    room.now = 60  # whoever was there may be replaced by now
    assert room.sides[0].answer(room.now) is Answered.STRANGERS
    for number, endpoint in enumerate((one, other)):
        endpoint.send(b"")
        room.sides[number].answer(room.now)
        room.sides[number].carry(room.now)
    one.send(b"there")
    room.sides[0].carry(room.now)
    other.send(b"and back")
    room.sides[1].carry(room.now)
    assert (b"there" in other.received(), b"and back" in one.received()) == (True, True)
    assert room.statistics(0).dropped.stranger == 1


def test_datagrams_queued_before_the_link_was_connected_are_not_forwarded(room: Room) -> None:
    """The window between bind and connect, held open."""
    room.build()
    one, _ = room.pair()
    stranger = room.endpoint(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        for sender, text in ((stranger, b"forged"), (one, b"real"), (stranger, b"forged too")):
            sender.sock.sendto(text, sock.getsockname())
        sock.connect(("127.0.0.1", one.port))
        side = room.sides[0]
        before, side.link = side.link, Link(sock, Address(host="127.0.0.1", port=one.port))
        assert side.carry(0) == 4
        assert side.link.unchecked == 0
        side.link = before
    assert room.endpoints[1].received() == [b"real"]
    assert room.statistics(0).dropped.stranger == 2


def test_an_endpoint_that_is_silent_for_long_can_be_replaced(room: Room) -> None:
    room.build()
    one, other = room.pair()
    restarted = room.endpoint(0)
    restarted.send(b"too early")
    assert room.sides[0].answer(29) is Answered.STRANGERS
    restarted.send(b"in time")
    assert room.sides[0].answer(30) is Answered.ADMITTED
    assert other.received() == [b"in time"]
    one.send(b"I am still here")
    assert room.sides[0].answer(31) is Answered.STRANGERS
    other.send(b"welcome")
    room.sides[1].carry(31)
    assert (restarted.received(), one.received()) == ([b"welcome"], [])


def test_an_endpoint_that_shows_life_keeps_its_place(room: Room) -> None:
    room.build()
    one, _ = room.pair()
    one.send(b"")
    room.sides[0].carry(20)
    room.endpoint(0).send(b"mine now")
    assert room.sides[0].answer(40) is Answered.STRANGERS


def test_a_datagram_that_claims_to_come_from_our_own_port_is_refused(room: Room) -> None:
    """Otherwise one forged datagram would make the relay send to itself for ever."""
    room.build()
    room.sides[1].door.sock.sendto(b"loop", ("127.0.0.1", room.sides[0].door.port))
    assert room.sides[0].answer(0) is Answered.STRANGERS
    assert room.statistics(0).dropped.stranger == 1


def test_a_sender_that_nothing_can_be_sent_to_is_a_stranger(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.build()
    room.endpoint(0).send(b"hi")

    def refuse(*_args: object, **_options: object) -> Link:
        raise OSError(errno.EACCES, "a broadcast address")

    monkeypatch.setattr(room.sides[0].door, "link_to", refuse)
    assert room.sides[0].answer(0) is Answered.STRANGERS
    assert room.statistics(0).endpoint is None
    assert room.statistics(0).dropped.stranger == 1


# --- What the network says --------------------------------------------------------------------------------------------


def test_a_restart_at_the_same_port_is_survived(room: Room) -> None:
    room.build()
    one, other = room.pair()
    port = other.port
    other.sock.close()
    for number in range(4):  # each one is refused, and none of the refusals ends anything
        one.send(bytes([number]))
        room.sides[0].carry(0)
    restarted = room.endpoint(1, own_port=port)
    one.send(b"there again?")
    room.sides[0].carry(0)  # the refusal of the last one is still to come: this one must not be lost for it
    assert restarted.received() == [b"there again?"]
    counted = room.statistics(1)
    assert counted.refusals == 4
    assert room.statistics(0).forwarded_packets == 5


def test_a_refusal_makes_a_place_free_soon(room: Room) -> None:
    room.build()
    one, other = room.pair()
    other.sock.close()
    one.send(b"anybody?")
    room.sides[0].carry(1)
    room.sides[1].carry(1)  # hears the refusal
    restarted = room.endpoint(1)
    restarted.send(b"from another port")
    assert room.sides[1].answer(2.9) is Answered.STRANGERS
    restarted.send(b"from another port")
    assert room.sides[1].answer(3) is Answered.ADMITTED
    assert one.received() == [b"from another port"]


def test_the_largest_datagram_passes(room: Room) -> None:
    room.build()
    one, other = room.pair()
    one.send(b"x" * 65_507, b"y" * 65_507)
    room.sides[0].carry(0)
    assert other.received() == [b"x" * 65_507, b"y" * 65_507]


@needs_ipv6
def test_a_datagram_that_the_other_path_cannot_take_is_counted(room: Room) -> None:
    """IPv6 carries 20 bytes more than IPv4."""
    room.build(bind="")
    six, four = room.endpoint(0, "::1"), room.endpoint(1)
    for number, endpoint in enumerate((six, four)):
        endpoint.send(b"")
        room.sides[number].answer(0)
        room.sides[number].carry(0)
    six.send(b"before", b"x" * 65_508, b"after")
    room.sides[0].carry(0)
    assert four.received() == [b"before", b"after"]
    assert room.statistics(0).dropped.too_large == 1


class Full(PlainBurst):
    """A buffer in front of a network that takes nothing any more."""

    def send(self, sock: socket.socket, first: int, count: int) -> int:
        raise BlockingIOError


def test_a_full_send_buffer_is_counted(room: Room) -> None:
    room.build()
    one, other = room.pair()
    one.send(b"1", b"2", b"3")
    for side in room.sides:
        side._burst = Full()
    room.sides[0].carry(0)
    assert other.received() == []
    assert room.statistics(0).dropped.congested == 3


class Broken(PlainBurst):
    """A bug of ours."""

    def receive(self, sock: socket.socket) -> list[int]:
        raise OSError(errno.EBADF, "not open")


def test_bugs_are_not_taken_for_weather(room: Room) -> None:
    room.build()
    room.pair()
    room.sides[0]._burst = Broken()
    with pytest.raises(OSError, match="not open"):
        room.sides[0].carry(0)


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_what_is_over_the_packet_rate_is_dropped(room: Room) -> None:
    room.build(packets_per_s=40)
    one, other = room.pair()
    one.send(*[bytes([number]) for number in range(30)])
    room.sides[0].carry(0)
    assert other.received() == [bytes([number]) for number in range(10)]
    assert room.statistics(0).dropped.rate == 20
    one.send(b"later")
    room.sides[0].carry(0.1)
    assert other.received() == [b"later"]


def test_both_directions_share_the_byte_rate(room: Room) -> None:
    room.build(bytes_per_s=400_000)
    one, other = room.pair()
    one.send(b"x" * 50_000)
    other.send(b"y" * 50_000, b"z" * 50_000)
    for side in room.sides:
        side.carry(0)
    assert (len(one.received()), len(other.received())) == (1, 1)
    assert [room.statistics(number).dropped.rate for number in range(2)] == [0, 1]


# --- The safe mode ----------------------------------------------------------------------------------------------------


def test_endpoints_with_their_tokens_are_paired(room: Room) -> None:
    room.build(with_tokens=True)
    one, other = room.endpoint(0), room.endpoint(1)
    room.join(0, one)
    room.join(1, other)
    one.send(b"hi", b"\0" * 53)  # the second is as long as a handshake
    room.sides[0].carry(0)
    assert other.received() == [b"hi", b"\0" * 53]


def test_the_other_sides_token_is_no_use(room: Room) -> None:
    room.build(with_tokens=True)
    wrong = room.endpoint(0)
    wrong.send(frame(1, b"n" * 16, TOKENS[1]), b"let me in", b"")
    assert room.sides[0].answer(0) is Answered.STRANGERS
    assert wrong.received() == []
    assert room.statistics(0).dropped.stranger == 3


def test_an_answer_that_is_repeated_is_answered_and_not_forwarded(room: Room) -> None:
    room.build(with_tokens=True)
    one, other = room.endpoint(0), room.endpoint(1)
    cookie = room.join(0, one)
    room.join(1, other)
    room.sides[0].carry(0)  # nothing waits: no more checking
    for _ in range(2):
        one.send(b"data", frame(3, cookie, TOKENS[0]))
        room.sides[0].carry(0)
        assert one.received() == [ready(cookie, TOKENS[0])]
        assert other.received() == [b"data"]


def test_an_endpoint_that_restarts_at_its_port_joins_again(room: Room) -> None:
    room.build(with_tokens=True)
    one, other = room.endpoint(0), room.endpoint(1)
    room.join(0, one)
    room.join(1, other)
    one.send(frame(1, b"m" * 16, TOKENS[0]))
    room.sides[0].carry(0)
    (challenge,) = one.received()
    one.send(frame(3, challenge[21:], TOKENS[0]))
    room.sides[0].carry(0)
    assert one.received() == [ready(challenge[21:], TOKENS[0])]
    assert other.received() == []


def test_an_endpoint_moves_at_once_with_its_token(room: Room) -> None:
    room.build(with_tokens=True)
    one, other, elsewhere = room.endpoint(0), room.endpoint(1), room.endpoint(0)
    room.join(0, one)
    room.join(1, other)
    room.join(0, elsewhere)
    elsewhere.send(b"from my new address")
    room.sides[0].carry(0)
    one.send(b"from the old one")
    room.sides[0].answer(0)
    assert other.received() == [b"from my new address"]
    assert room.statistics(0).dropped.stranger == 1


def test_what_came_before_the_handshake_was_done_is_not_forwarded(room: Room) -> None:
    room.build(with_tokens=True)
    other, one = room.endpoint(1), room.endpoint(0)
    room.join(1, other)
    one.send(b"impatient")
    room.sides[0].answer(0)
    room.join(0, one)
    assert other.received() == []
