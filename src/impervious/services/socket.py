"""Sockets: a UDP relay for two endpoints that cannot reach each other (docs/relay.md).

A session has a name, a pair of `socket.ports` while it is open, and an id that its events carry: OPENED has it as its
own, PAIRED and CLOSED answer it. Other nodes only hear where a session is; what they do about it is their own matter.
"""

import logging
import math
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID, uuid4

import trio

from impervious.config.address import is_address, is_loopback
from impervious.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, StoreFull
from impervious.model import MessageId, NodePubkey, ServiceType
from impervious.relay import (
    Closed,
    Fact,
    Moved,
    Opened,
    Paired,
    Relay,
    SessionOptions,
    SessionStatistics,
    SideStatistics,
    Token,
    open_relay,
)
from impervious.service import RunningService, ServiceContext, ServiceTx
from impervious.wire.payloads import SocketOffer, compact, port_text

logger = logging.getLogger(__name__)

DEFAULT_SESSION: Final = "default"
"""The one that the calls of 2021 act on."""

PROTOCOL: Final = "udp"

_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSocket:
    """A session that was opened."""

    session: str
    id: UUID
    ip: str
    """`socket.server_ip`."""
    ports: tuple[int, int]
    tokens: tuple[Token, Token] | None
    """What the endpoint of each port must know; None: nothing (`socket.require_token` is off)."""


class SocketService(RunningService[Relay]):
    """Opens, announces and closes sessions of the relay."""

    service_type = ServiceType("socket")

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self._settings = context.settings.socket

    def open_running(self) -> AbstractAsyncContextManager[Relay]:
        """Relay. All sessions end with it, without events: a subscriber knows that the relay has stopped."""
        return open_relay()

    async def serve(self, running: Relay) -> None:
        """Tell what happens."""
        async for fact in running.facts:
            await self._tell(fact)

    async def start(self, session: str = DEFAULT_SESSION) -> OpenSocket:
        """Open a session: two UDP ports, and whatever comes in at one goes to the endpoint of the other.

        Args:
          session: its name, at most 64 characters.

        Raises:
          InvalidArgument: that is no name.
          AlreadyExists: it is open.
          FailedPrecondition: the relay is off, or a port is taken by another program; nothing was opened.
          ResourceExhausted: all pairs of `socket.ports` are in use.
          NodeUnavailable: the relay is starting again after an error.
        """
        await trio.lowlevel.checkpoint()
        relay = self.running
        name, ip = _checked(session), self._ip()
        relay.check_free(name)
        opened = relay.open(name, self._options(self._choose_ports(name), ip))
        return OpenSocket(session=name, id=opened.id, ip=ip, ports=opened.ports, tokens=opened.tokens)

    async def stop(self, session: str = DEFAULT_SESSION) -> SessionStatistics:
        """Close a session; returns its last counters when its ports are free.

        Raises:
          InvalidArgument: that is no name.
          NotFound: no session of that name is open.
          NodeUnavailable: the relay is starting again after an error.

        Cancellation: stops waiting, not closing.
        """
        return await self.running.stop(_checked(session))

    async def send(
        self,
        recipient: NodePubkey | str,
        session: str = DEFAULT_SESSION,
        *,
        idempotency_key: str | None = None,
        wait: bool = False,
    ) -> MessageId:
        """Tell another node where an open session is. Tokens are not told: they go to an endpoint, not to a node.

        Args:
          recipient: the far node: its key, 66 hex digits, or @ and a peer's imp id; it gets an event of this service.
          session: its name.
          idempotency_key: the same key with the same arguments gives the same id and sends nothing again.
          wait: return only when it is delivered.

        Returns:
          The id under which the outcome appears on the stream.

        Raises:
          InvalidArgument: that is no name, or a node that cannot be told.
          NotFound: no session of that name is open, or no peer goes by the name of the node.
          FailedPrecondition: the peer that the name belonged to is gone, or the relay is off.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now, or the relay is starting again; says which.
          DeliveryFailed: with `wait`, it was not delivered.

        Cancellation: stops waiting, not sending.
        """
        self.context.config.require_active()
        name = _checked(session)

        def offer(tx: ServiceTx, far: NodePubkey) -> MessageId:
            told = SocketOffer(
                ip=self._ip(),
                ports=self.running.session(name).ports,
                session="" if name == DEFAULT_SESSION else name,
            )
            return tx.send(far, told.encode())

        # The session is looked up behind the key: it may be closed when somebody asks again.
        message_id = await self.context.once(idempotency_key, name.encode(), recipient, offer)
        if wait:
            await self.context.wait(message_id)
        return message_id

    def statistics(self, session: str = DEFAULT_SESSION) -> SessionStatistics:
        """Count what an open session has done.

        Raises:
          InvalidArgument: that is no name.
          NotFound: no session of that name is open.
          NodeUnavailable: the relay is starting again after an error.
        """
        return self.running.session(_checked(session)).statistics()

    def sessions(self) -> tuple[SessionStatistics, ...]:
        """Count what every open session has done, oldest first; while the relay does not run there is none."""
        return self._running.statistics() if self._running is not None else ()

    @property
    def ip(self) -> str:
        """`socket.server_ip`; empty: the relay is off."""
        return self._settings.server_ip or ""

    def free_pairs(self) -> list[tuple[int, int]]:
        """List the pairs of `socket.ports` that no session has.

        Raises:
          NodeUnavailable: the relay is starting again after an error.
        """
        taken = {session.options.ports for session in self.running.sessions()}
        return [pair for pair in self._settings.ports if pair not in taken]

    def _ip(self) -> str:
        if not self.ip:
            raise FailedPrecondition(
                "the relay is off: set socket.server_ip to an address of this machine that the endpoints can reach"
            )
        return self.ip

    def _choose_ports(self, name: str) -> tuple[int, int]:
        """Keep the first pair for the default session while there are others: programs of 2021 may count on it."""
        free = self.free_pairs()
        if not free:
            names = ", ".join(repr(session.name) for session in self.running.sessions())
            raise ResourceExhausted(
                f"all {len(self._settings.ports)} pairs of socket.ports are in use, by {names}: "
                "stop one, or add a pair to socket.ports"
            )
        first = self._settings.ports[0]
        return min(free, key=lambda pair: (pair == first) is not (name == DEFAULT_SESSION))

    def _options(self, ports: tuple[int, int], ip: str) -> SessionOptions:
        settings = self._settings
        return SessionOptions(
            ports=ports,
            # Nobody elsewhere is told of a relay at a loopback address, so nobody elsewhere need reach it. Any other
            # address may be the router's, which this machine does not have.
            bind=ip if is_address(ip) and is_loopback(ip) else "",
            idle_timeout_s=settings.idle_timeout_s,
            packets_per_s=settings.packets_per_s or math.inf,
            bytes_per_s=settings.bytes_per_s or math.inf,
            require_token=settings.require_token,
        )

    # --- Events -------------------------------------------------------------------------------------------------------

    async def _tell(self, fact: Fact) -> None:
        if isinstance(fact, Moved):
            return  # whoever has the token could fill the log with them; the counters show the endpoint
        identifier, reply_to = (fact.id, None) if isinstance(fact, Opened) else (uuid4(), fact.id)
        data = compact(self._shape(fact))
        try:
            await self.context.transaction(lambda tx: tx.emit(data, identifier=identifier, reply_to=reply_to))
        except StoreFull as error:
            logger.warning("%s: an event is lost, the relay goes on: %s", fact.session, error)

    def _shape(self, fact: Opened | Paired | Closed) -> Mapping[str, object]:
        match fact:
            case Opened():
                first, second = fact.ports
                return {
                    "recordId": "OPENED",
                    "session": fact.session,
                    "protocol": PROTOCOL,
                    "ip": self.ip,
                    "port1": port_text(first),
                    "port2": port_text(second),
                }
            case Paired():
                one, other = map(str, fact.endpoints)
                return {"recordId": "PAIRED", "session": fact.session, "endpoint1": one, "endpoint2": other}
            case Closed():
                one_side, other_side = map(_side_shape, fact.statistics.sides)
                return {
                    "recordId": "CLOSED",
                    "session": fact.session,
                    "reason": fact.reason.value,
                    "ageS": int(fact.statistics.age_s),
                    "side1": one_side,
                    "side2": other_side,
                }


def _side_shape(side: SideStatistics) -> Mapping[str, object]:
    dropped = asdict(side.dropped)
    return {
        "endpoint": str(side.endpoint or ""),
        "receivedPackets": side.received_packets,
        "receivedBytes": side.received_bytes,
        "forwardedPackets": side.forwarded_packets,
        "forwardedBytes": side.forwarded_bytes,
        "refusals": side.refusals,
        "dropped": {"tooLarge": dropped.pop("too_large"), **dropped},
    }


def _checked(session: str) -> str:
    if not _NAME.fullmatch(session):
        raise InvalidArgument("session is not a name: give 1 to 64 characters without control characters")
    return session
