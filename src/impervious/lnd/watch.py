"""Keeps one connection to LND and knows at every moment how far LND is from serving.

One task: connect, listen to State.SubscribeState, judge at every change and from time to time, and connect again when
the connection is gone or LND says that it leaves. Credentials are read anew for every connection. Nothing that LND, the
network or a file can do ends the task.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NoReturn

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.backoff import delays_s
from impervious.errors import ConfigError, NodeRefused, NodeUnavailable
from impervious.lifetime import Lifetime
from impervious.lnd.connection import Connect, Connection
from impervious.lnd.credentials import Credentials, Source
from impervious.lnd.faults import LndRefused, MacaroonRefused, meaning
from impervious.lnd.readiness import ANSWER_S, Examiner, Requirements
from impervious.lnd.rpcs import SUBSCRIBE_STATE
from impervious.model import NodeInfo, NodeState, NodeStatus
from impervious.pb.lnrpc import SubscribeStateRequest, WalletState

logger = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 0.25
LAST_RETRY_S: Final = 10.0
"""One connection attempt every ten seconds costs nothing, and an LND that is back should not wait longer."""
POLL_S: Final = 1.0
"""Between two looks at an LND that is not ready: nothing tells when its chain has caught up."""
READY_POLL_S: Final = 30.0
"""Between two looks at a ready one: it may fall behind its chain without a word."""
RESUBSCRIBE_S: Final = 1.0
"""Before listening again on a connection that is still there: some proxies end every stream after a while."""
DOUBT_S: Final = 0.25
"""From a call that met an LND on its way out to the next look: time for LND to say so itself."""

_CUT: Final = (Status.UNAVAILABLE, Status.CANCELLED, Status.INTERNAL, Status.DEADLINE_EXCEEDED)
"""How a stream ends that somebody between LND and us has ended."""


class Watch:
    """The state of one LND, followed for as long as `run` runs."""

    def __init__(
        self,
        source: Source,
        first: Credentials,
        requirements: Requirements,
        *,
        connect: Connect,
        random: Callable[[], float],
    ) -> None:
        self.connection: Connection | None = None
        """What to call through; None while there is none."""
        self.status = NodeStatus(state=NodeState.AWAY, reason=f"connecting to LND at {first.address}")
        self.info: NodeInfo | None = None
        """Who it is, as last heard."""
        self._source = source
        self._next: Credentials | None = first
        self._address = first.address
        self._requirements = requirements
        self._connect = connect
        self._random = random
        self.lifetime = Lifetime("the client of LND")
        self._changed = trio.Event()
        self._ready_since = math.inf
        self._heard = False
        self._doubted = False
        self._permissions_doubted = False
        self._looking = trio.CancelScope()

    def doubt(self, connection: Connection, reason: str) -> None:
        """Take LND for away until the next look, which comes soon: a call has met it gone or leaving.

        Whoever made that call can then wait until LND is ready, and is not told so by a state that is out of date.
        """
        if connection is not self.connection or not self.status.ready:
            return
        self._doubted = True
        self._set(NodeStatus(state=NodeState.AWAY, reason=reason))
        self._looking.deadline = min(self._looking.deadline, trio.current_time() + DOUBT_S)

    def refused(self, error: MacaroonRefused) -> None:
        """Look at once: LND has refused the macaroon for a call, as it may do for all from now on.

        An LND that refuses it altogether is not ready any more. One that does for one call may be: the look tells.
        """
        if self.connection is None or not self.status.ready:
            return
        self._doubted = self._permissions_doubted = True
        if not error.for_this_call:
            self._set(NodeStatus(state=NodeState.REFUSING, reason=str(error)))
        self._looking.deadline = trio.current_time()

    async def wait_change(self) -> None:
        """Wait until `status` changes.

        Raises:
          trio.ClosedResourceError: it will not any more.
        """
        with self.lifetime.waiting():
            await self._changed.wait()

    def close(self) -> None:
        """Refuse whatever is asked from now on, and end every wait."""
        self.status = NodeStatus(state=NodeState.AWAY, reason=f"the client of LND at {self._address} is closed")
        self.lifetime.close()

    async def run(self) -> NoReturn:
        """Follow it."""
        delays = self._delays()
        while True:
            self._ready_since = math.inf
            try:
                credentials, self._next = self._next or self._source(), None
            except ConfigError as error:
                self._tell(NodeStatus(state=NodeState.AWAY, reason=str(error)))
            except Exception:  # whatever a parser raises at the content of a file; that can be mended while we run
                logger.exception("LND's credentials cannot be read")
                reason = "LND's credentials cannot be read: see the log, and copy tls.cert and the macaroon again"
                self._tell(NodeStatus(state=NodeState.AWAY, reason=reason))
            else:
                await self._session(credentials)
            if trio.current_time() - self._ready_since > LAST_RETRY_S:
                delays = self._delays()
            await trio.sleep(next(delays))

    def _delays(self) -> Iterator[float]:
        return delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random)

    async def _session(self, credentials: Credentials) -> None:
        """Use one connection to its end."""
        self._address = credentials.address
        async with self._connect(credentials) as opened:
            connection = self.connection = replace(opened, on_refusal=self.refused)
            try:
                await self._follow(connection)
            finally:
                self.connection = None

    async def _follow(self, connection: Connection) -> None:
        """Listen until the connection is of no more use, and say why it is not."""
        examiner = Examiner(connection, self._requirements)
        while True:
            self._heard = False
            try:
                ending = await self._listen(connection, examiner)
            except GRPCError as error:
                ending = _ending(meaning(error, connection.credentials.host))
                cut = self._heard and error.status in _CUT and connection.calls.statistics().connected
                if cut:
                    logger.debug("LND at %s: the stream of its states was cut: %s", self._address, error.message)
                    await trio.sleep(RESUBSCRIBE_S)
                    continue
            self._tell(ending)
            return

    async def _listen(self, connection: Connection, examiner: Examiner) -> NodeStatus:
        """Judge at every change of state and from time to time; return when that is useless from here on."""
        wallet: WalletState | None = None
        look_s = ANSWER_S
        rpc = SUBSCRIBE_STATE
        async with connection.calls.unary_stream(rpc.path, SubscribeStateRequest(), rpc.response) as states:
            while True:
                with trio.move_on_after(look_s) as self._looking:
                    message = await states.recv_message()
                    if message is None:
                        return NodeStatus(state=NodeState.AWAY, reason="LND has ended the connection")
                    wallet = message.state
                    self._heard = True
                if wallet is None:
                    reason = f"LND is connected but did not tell its state within {ANSWER_S:g} s: look into its log"
                    return NodeStatus(state=NodeState.AWAY, reason=reason)
                if self._permissions_doubted:
                    examiner.forget_permissions()
                self._doubted = self._permissions_doubted = False
                status, info = await examiner.judge(wallet)
                if self._doubted:  # while it was being judged: that verdict may be older
                    look_s = DOUBT_S
                    continue
                if status.state in (NodeState.REFUSING, NodeState.MISTAKEN):
                    return status  # with the files as they are nothing changes: they may be others at the next try
                self.info = info or self.info
                self._tell(status)
                look_s = READY_POLL_S if status.ready else POLL_S

    def _tell(self, status: NodeStatus) -> None:
        """Make `status` known; nobody is told the same thing twice."""
        before = self._set(status)
        if status == before:
            return
        if status.ready and self.info is not None:
            self._ready_since = min(self._ready_since, trio.current_time())
            logger.info("LND at %s: ready: %s, %s", self._address, self.info.alias, self.info.version)
        elif (status.state, before.state) != (NodeState.SYNCING, NodeState.SYNCING):  # its reason counts blocks
            logger.warning("%s", status.reason)

    def _set(self, status: NodeStatus) -> NodeStatus:
        """Change the status, and return the one before."""
        before, self.status = self.status, status
        if status != before:
            self._changed.set()
            self._changed = trio.Event()
        return before


def _ending(error: NodeUnavailable | NodeRefused) -> NodeStatus:
    """What an error of the stream of states says of LND."""
    if isinstance(error, LndRefused) and error.status is Status.UNIMPLEMENTED:
        return NodeStatus(
            state=NodeState.REFUSING,
            reason=f"{error}; what answers is no LND of version 0.13 or later",
        )
    refused = isinstance(error, MacaroonRefused)
    return NodeStatus(state=NodeState.REFUSING if refused else NodeState.AWAY, reason=str(error))
