"""Compares the clock with the chain, now and every minute, and lets nothing be paid while they contradict each other.

A recipient believes a message for 7 days from the time that its sender wrote into it, so a sender whose clock is wrong
would pay for what is not shown.
"""

import logging
from typing import Final, NoReturn

import trio

from impervious.clock import NodeClock, Trust
from impervious.errors import NodeUnavailable, StoreFull
from impervious.gate import PaymentGate
from impervious.model import NodeInfo
from impervious.node import PaymentNode
from impervious.store import Store, Tx, history, outbox

logger = logging.getLogger(__name__)

COMPARE_EVERY_S: Final = 60.0
COMPARE_SOON_S: Final = 5.0
"""While the clock is not right: a clock that is set shall not have to wait."""
STALE_S: Final = 60.0
"""How long an answer may be kept by a node's client; a node that always gives the same object is believed then."""
CAUSE: Final = "clock"


class Timekeeper:
    """Keeps `clock` compared.

    Args:
      clock: the node's.
      node: tells the time of its newest block.
      store: keeps how far time had come.
      gate: closed while the clock is wrong.
    """

    def __init__(self, clock: NodeClock, node: PaymentNode, store: Store, gate: PaymentGate) -> None:
        self._clock = clock
        self._node = node
        self._store = store
        self._gate = gate
        self._stale: NodeInfo | None = None
        """What the node had said of itself when the clock jumped."""
        self._stale_since = 0.0
        self._compared = trio.Event()
        self._began_ms = 0

    async def begin(self) -> None:
        """Take up where the database ended."""
        self._began_ms = await self._store.read(history.newest_ms)
        self._clock.begin(self._began_ms)

    async def wait_compared(self) -> None:
        """Wait until the chain has been asked since the start."""
        await self._compared.wait()

    async def run(self) -> NoReturn:
        """Compare for as long as this runs.

        Raises:
          NodeMisconfigured: it is another node than the configuration names.
          StoreError: the database cannot be used.
        """
        while True:
            await self.compare()
            await trio.sleep(COMPARE_EVERY_S if self._clock.trust is Trust.RIGHT else COMPARE_SOON_S)
        raise AssertionError("time never ends")  # pragma: no cover

    async def look(self) -> None:
        """Compare at once if the clock has jumped since it was compared, or was wrong then.

        Raises:
          NodeUnavailable: the chain must be asked first, and cannot be now.
        """
        if self._clock.trust is Trust.RIGHT:
            return
        with trio.move_on_after(1):
            await self.compare()
        if self._clock.trust is Trust.UNCHECKED:
            raise NodeUnavailable(
                "this machine's clock has jumped, or the daemon has just started: the clock is compared with the chain"
                " first; call again in a moment"
            )

    async def compare(self) -> None:
        """Ask the node, and say what has changed."""
        info = await self._node.wait_ready()
        if self._clock.trust is Trust.UNCHECKED and self._compared.is_set():
            if self._stale is None:
                logger.warning("the machine's clock has jumped: nothing is forgotten until the chain agrees with it")
                self._stale, self._stale_since = info, trio.current_time()
                info = await self._node.wait_ready()
            if info is self._stale and trio.current_time() - self._stale_since < STALE_S:
                return  # an answer that the node's client keeps, as old as the jump or older
        self._stale = None
        before_ms = self._clock.now_ms()
        changed = self._clock.compare(info.chain_time_s)
        if problem := self._clock.problem:
            self._gate.close(CAUSE, problem)
            if changed:
                logger.error("%s", problem)
        else:
            self._gate.open(CAUSE)
            if changed and self._compared.is_set():
                logger.info("the machine's clock agrees with the chain again")
        if changed:
            await self._note(self._clock.now_ms() - before_ms)
        self._compared.set()

    async def _note(self, step_ms: int) -> None:
        """Store how far time has come; what was accepted since the start, when time stood still, gets its time back."""
        since_ms = None if self._compared.is_set() else self._began_ms

        def note(tx: Tx) -> None:
            history.note_time(tx)
            if since_ms is not None and step_ms > 0:
                outbox.postpone(tx, accepted_after_ms=since_ms, step_ms=step_ms)

        try:
            await self._store.write(note)
        except StoreFull as error:
            logger.warning("how far time has come is not stored: %s", error)
