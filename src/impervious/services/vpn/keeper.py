"""The interface follows the database, and time is told: after each decision, when something is due, every minute.

Whatever was interrupted before is finished by the first round: a contract that was paid and whose peer is missing gets
its peer, and with that its answer.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from impervious.errors import WireGuardError
from impervious.service import ServiceContext, ServiceTx
from impervious.services.vpn.buyer_books import SqlBuyerBooks
from impervious.services.vpn.buying import Buyer
from impervious.services.vpn.contract import MINUTE_MS, SECOND_MS, Phase, Sold
from impervious.services.vpn.purchase import KEPT_MS, Bought
from impervious.services.vpn.seller_books import SqlSellerBooks
from impervious.services.vpn.upkeep import SETUP_MS, Upkeep
from impervious.wireguard import Reconciler, Report, Wanted, WireGuard

logger = logging.getLogger(__name__)

ROUNDS: Final = 3
"""Looks at the interface in a row: one changes it, one sees what became of that, one removes what ended meanwhile."""
SOON_MS: Final = SECOND_MS
"""When something overdue is tried again."""


class Keeper:
    """Keeps one interface, and the clocks of all contracts."""

    def __init__(
        self,
        context: ServiceContext,
        wireguard: WireGuard,
        *,
        upkeep: Callable[[ServiceTx], Upkeep],
        buyer: Callable[[ServiceTx], Buyer],
    ) -> None:
        self._context = context
        self._wireguard = wireguard
        self._upkeep = upkeep
        self._buyer = buyer
        self._reconciler = Reconciler(wireguard, self._wanted)
        self._trouble = ""

    async def run(self) -> NoReturn:
        """Keep it for as long as the node runs."""
        with self._context.alarm() as alarm:
            while True:
                await self.keep()
                await alarm.sleep_until(await self._context.read(self._next_due_ms))
        raise AssertionError("keeping never ends")  # pragma: no cover

    async def keep(self) -> None:
        """Do what is due now."""
        await self._context.transaction(self._buy)
        for _ in range(ROUNDS):
            if not await self._context.read(lambda tx: SqlSellerBooks(tx).living()):
                break  # whoever sells nothing needs no WireGuard
            changed = await self._look()
            if not await self._context.transaction(self._sell) and not changed:
                break

    async def _look(self) -> bool:
        """Make the interface follow, and draw the conclusions; say whether it had to change."""
        try:
            report = await self._reconciler.reconcile()
            transfers = await self._wireguard.transfer()
        except WireGuardError as error:
            self._note(str(error))
            return False
        self._note("; ".join(_complaints(report)))
        await self._context.transaction(lambda tx: self._upkeep(tx).reconciled(report.peers, transfers))
        return bool(report.plan)

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            logger.warning("vpn: not every tunnel is set up: %s", trouble)
        self._trouble = trouble

    def _sell(self, tx: ServiceTx) -> bool:
        """Tell the time to what was sold; say whether something ended whose peer must go."""
        self._upkeep(tx).tick()
        return any(each.phase is Phase.ENDED for each in SqlSellerBooks(tx).living())

    def _buy(self, tx: ServiceTx) -> None:
        self._buyer(tx).tick()
        SqlBuyerBooks(tx).forget()
        SqlSellerBooks(tx).forget()

    async def _wanted(self) -> Wanted:
        return await self._context.read(lambda tx: self._upkeep(tx).wanted())

    def _next_due_ms(self, tx: ServiceTx) -> int | None:
        now_ms, grace_ms = tx.now_ms, self._context.settings.vpn.grace_s * SECOND_MS
        sold = [at_ms for each in SqlSellerBooks(tx).living() for at_ms in _sold_due(each, now_ms, grace_ms)]
        bought = [at_ms for each in SqlBuyerBooks(tx).all_bought() for at_ms in _bought_due(each, now_ms)]
        awaited = [at_ms for each in SqlBuyerBooks(tx).awaited() if (at_ms := each.overdue_ms()) is not None]
        due_ms = min([*sold, *bought, *awaited], default=None)
        return due_ms if due_ms is None or due_ms > now_ms else now_ms + SOON_MS


def _sold_due(contract: Sold, now_ms: int, grace_ms: int) -> Iterator[int]:
    yield now_ms + MINUTE_MS
    if contract.phase is Phase.PAID:
        yield contract.paid_ms + SETUP_MS
        yield now_ms + 5 * SOON_MS
    elif contract.phase is Phase.ACTIVE:
        yield contract.term.expires_ms + grace_ms
        announced_ms = contract.term.next_due_ms(now_ms)
        if announced_ms is not None:
            yield announced_ms


def _bought_due(contract: Bought, now_ms: int) -> Iterator[int]:
    if contract.term is None:
        return
    yield contract.term.expires_ms + KEPT_MS
    announced_ms = contract.term.next_due_ms(now_ms)
    if announced_ms is not None:
        yield announced_ms
    if contract.must_renew(now_ms):
        yield now_ms + MINUTE_MS  # the budget did not allow it
    elif contract.budget and contract.renewing is None:
        renew_ms = contract.renews_ms()
        if renew_ms is not None and renew_ms > now_ms:
            yield renew_ms


def _complaints(report: Report) -> Iterator[str]:
    yield from map(str, report.refused)
    for each in report.plan.conflicts:
        yield f"{each.address} belongs to the peer {each.owner}, which is not ours: give that one another"
