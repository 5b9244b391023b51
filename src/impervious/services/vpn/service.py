"""Tunnels, sold and bought: the rules, tied to messages, calls, the clock and a WireGuard interface.

Answers to our own requests are dealt with in the transaction that gives them their place in the log, so whoever sees a
quote can accept it. Requests of others come through `handle`, which looks at the interface first and then decides in
one transaction. The interface itself is changed in one place, `_keep`, which follows what the database says: after each
decision, whenever something is due, at least every minute, and at the start, whatever was interrupted before.
"""

import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final, TypeVar
from uuid import uuid4

from impervious.config import VpnConfig
from impervious.errors import FailedPrecondition, NotFound, WireGuardError
from impervious.model import MessageId, NodePubkey, RecordType, ServiceType, Shown
from impervious.service import Effect, Fact, Outcome, ServiceContext, ServiceTx, VerifiedMessage
from impervious.service.contract import InTurnService
from impervious.services.vpn.answers import Answers
from impervious.services.vpn.buyer_books import SqlBuyerBooks
from impervious.services.vpn.buying import Buyer
from impervious.services.vpn.contract import SECOND_MS, Sold
from impervious.services.vpn.keeper import Keeper
from impervious.services.vpn.outgoing import Listening, TxOutgoing
from impervious.services.vpn.payloads import MalformedRequest, Request, read
from impervious.services.vpn.ports import Incoming
from impervious.services.vpn.purchase import Bought
from impervious.services.vpn.sale import Closed, Peers, Sale, Shop
from impervious.services.vpn.seller_books import SqlSellerBooks
from impervious.services.vpn.selling import Draw, Seller
from impervious.services.vpn.shop import cheapest_answer, fee_of, least_refund, needs_interface, open_shop
from impervious.services.vpn.shown import shown_answer
from impervious.services.vpn.tables import MIGRATIONS
from impervious.services.vpn.upkeep import Upkeep
from impervious.units import Msat, Sat
from impervious.wireguard import PresharedKey, PrivateKey, Wg, WireGuard

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Sale)

NONCE_BYTES: Final = 16
"""Written in hexadecimal: whatever it is pasted into, it is no option and needs no quotes."""
SILENT: Final = "this node cannot set up tunnels at the moment"
"""What buyers are told when the interface does not answer; the operator's log says why."""


def open_interface(config: VpnConfig) -> WireGuard:
    """Take the interface that the configuration names."""
    return Wg(config.interface, config.binary_path)


class VpnService(InTurnService):
    """Sells and buys tunnels."""

    service_type = ServiceType("vpn")
    record_type = RecordType(200_000)
    migrations = MIGRATIONS
    handles_facts = True

    open_interface: ClassVar[Callable[[VpnConfig], WireGuard]] = staticmethod(open_interface)
    """Tests give another."""
    draw: ClassVar[Draw] = Draw(
        nonce=lambda: secrets.token_hex(NONCE_BYTES),
        preshared_key=PresharedKey.generate,
    )

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self._shop = open_shop(context)
        self._fee = fee_of(context.settings)
        self._least = least_refund(context)
        self._cheapest_answer = cheapest_answer(context)
        self._interface = type(self).open_interface(context.settings.vpn)
        self._keeper = Keeper(
            context,
            self._interface,
            upkeep=self._upkeep,
            buyer=self._buyer,
        )

    async def run(self) -> None:
        """Keep the interface and the clocks."""
        await self._keeper.run()

    def _seller(self, tx: ServiceTx, shop: Shop | Closed, message: VerifiedMessage) -> Seller:
        return self._sale(Seller, tx, shop, message)

    def _upkeep(self, tx: ServiceTx) -> Upkeep:
        return self._sale(Upkeep, tx, self._shop)

    def _sale(self, kind: type[S], tx: ServiceTx, shop: Shop | Closed, message: VerifiedMessage | None = None) -> S:
        return kind(
            books=SqlSellerBooks(tx),
            out=TxOutgoing(tx=tx, fee=self._fee, message=message),
            shop=shop,
            now_ms=tx.now_ms,
            grace_ms=self.context.settings.vpn.grace_s * SECOND_MS,
            fee=self._fee,
            least=self._least,
        )

    def _buyer(self, tx: ServiceTx) -> Buyer:
        return Buyer(books=SqlBuyerBooks(tx), out=TxOutgoing(tx=tx, fee=self._fee), now_ms=tx.now_ms)

    # --- Buying -------------------------------------------------------------------------------------------------------

    async def request_quote(
        self, node: NodePubkey | str, hours: int = 1, *, idempotency_key: str | None = None, wait: bool = False
    ) -> MessageId:
        """Ask a node for its price; the quote is an event of this service that answers the id.

        Args:
          node: the seller: its key, or @ and a peer's imp id.
          hours: how many of its hours to buy.
          idempotency_key: the same key with the same arguments gives the same id and sends nothing again.
          wait: return only when the question is delivered.

        Raises:
          InvalidArgument: nobody sells that, or that is no node, or this one.
          NotFound: no peer goes by that name.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why.
          DeliveryFailed: with `wait`, it was not delivered.
        """

        def ask(tx: ServiceTx, seller: NodePubkey) -> MessageId:
            return self._buyer(tx).request_quote(seller, hours)

        return await self._sent(idempotency_key, f"quote|{hours}", node, ask, wait=wait)

    async def accept(
        self,
        node: NodePubkey | str,
        nonce: str,
        most: Sat,
        *,
        renewals: Sat = Sat(0),
        idempotency_key: str | None = None,
        wait: bool = False,
    ) -> MessageId:
        """Pay for a quote; the contract is an event of this service that answers the id.

        The same quote again gives the same id, and pays nothing again, also without a key. Only after the money did not
        come through does a call without a key, or with another one, pay.

        Args:
          node: the seller.
          nonce: the quote's.
          most: the most that may be paid, in satoshis.
          renewals: the most that buying more time by itself may cost, all together; 0: it does not.
          idempotency_key: the same key with the same arguments gives the same id, also when the money did not arrive.
          wait: return only when the money is delivered.

        Raises:
          FailedPrecondition: the quote is dearer or has expired, or its contract is over. Nothing was sent.
          NotFound: no such quote came, or no peer goes by that name.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why.
          DeliveryFailed: with `wait`, it was not delivered, and nothing was paid.
        """
        key = PrivateKey.generate()

        def pay(tx: ServiceTx, seller: NodePubkey) -> MessageId:
            buyer = self._buyer(tx)
            identifier = buyer.accept(seller, nonce, most, key)
            if renewals:
                buyer.renew_itself(seller, nonce, renewals)
            return identifier

        return await self._sent(idempotency_key, f"accept|{nonce}|{most}|{renewals}", node, pay, wait=wait)

    async def refresh(
        self,
        node: NodePubkey | str,
        nonce: str,
        price: Sat,
        *,
        idempotency_key: str | None = None,
        wait: bool = False,
    ) -> MessageId:
        """Buy a contract's own hours again, at its own price; any other amount comes back.

        Args:
          node: the seller.
          nonce: the contract's.
          price: what is paid, in satoshis.
          idempotency_key: the same key with the same arguments gives the same id and pays nothing again.
          wait: return only when the money is delivered.

        Raises:
          NotFound: there is no such contract.
          FailedPrecondition: it does not stand.
          InvalidArgument: the price is none.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why.
          DeliveryFailed: with `wait`, it was not delivered, and nothing was paid.
        """

        def pay(tx: ServiceTx, seller: NodePubkey) -> MessageId:
            return self._buyer(tx).refresh(seller, nonce, price)

        return await self._sent(idempotency_key, f"refresh|{nonce}|{price}", node, pay, wait=wait)

    async def renew_itself(self, node: NodePubkey | str, nonce: str, budget: Sat) -> None:
        """Let a contract buy more time whenever it ends, until that has cost `budget`; 0 stops it.

        Raises:
          NotFound: there is no such contract.
          InvalidArgument: the budget is negative.
        """
        seller = await self.context.resolve(node)

        def effect(tx: ServiceTx) -> None:
            self._buyer(tx).renew_itself(seller, nonce, budget)
            tx.wake()

        await self.context.transaction(effect)

    async def _sent(
        self,
        key: str | None,
        request: str,
        node: NodePubkey | str,
        send: Callable[[ServiceTx, NodePubkey], MessageId],
        *,
        wait: bool,
    ) -> MessageId:
        identifier = await self.context.once(key, request.encode("utf-8", "surrogatepass"), node, send)
        if wait:
            await self.context.wait(identifier)
        return identifier

    # --- Both ends ----------------------------------------------------------------------------------------------------

    async def sold(self) -> list[Sold]:
        """List what this node sold, the latest first."""
        return await self.context.read(lambda tx: list(SqlSellerBooks(tx).everything()))

    async def bought(self) -> list[Bought]:
        """List what this node bought."""
        return await self.context.read(lambda tx: list(SqlBuyerBooks(tx).everything()))

    async def contract(self, nonce: str, node: NodePubkey | str = "") -> Sold | Bought:
        """Look one contract up.

        Args:
          nonce: its name.
          node: the other end; empty: whoever it is.

        Raises:
          NotFound: there is none.
          FailedPrecondition: two sellers gave it the same name.
        """
        far = await self.context.resolve(node) if node else None
        sold = await self.context.read(lambda tx: SqlSellerBooks(tx).sold(nonce))
        found: list[Sold | Bought] = [each for each in await self.bought() if each.nonce == nonce]
        found = [each for each in [sold, *found] if each is not None and far in (None, _far(each))]
        if not found:
            raise NotFound(f"there is no contract {nonce}: ListContracts shows all")
        if len(found) > 1:
            raise FailedPrecondition(f"{len(found)} contracts are called {nonce}: name the other node too")
        return found[0]

    async def bought_one(self, nonce: str, node: NodePubkey | str = "") -> Bought:
        """Look up one contract that this node bought.

        Raises:
          NotFound: there is none.
          FailedPrecondition: two sellers gave it the same name.
        """
        found = await self.contract(nonce, node)
        if isinstance(found, Sold):
            raise NotFound(f"contract {nonce} was sold here: only its buyer has the configuration")
        return found

    async def config(self, nonce: str, node: NodePubkey | str = "") -> str:
        """Give a bought tunnel's `wg-quick` file, private key included.

        Raises:
          NotFound: no such contract was bought.
          FailedPrecondition: it has no tunnel, or two sellers gave it the same name.
        """
        found = await self.bought_one(nonce, node)
        if found.config is None:
            why = f": {found.reason}" if found.reason else ""
            raise FailedPrecondition(f"contract {nonce} is {found.stage.value} and has no tunnel{why}")
        return found.config.text()

    async def cancel(self, nonce: str, reason: str = "") -> Msat:
        """End a contract that this node sold, and give back what its rest is worth.

        Returns:
          What goes back, in msat.

        Raises:
          NotFound: no such contract was sold here.
          FailedPrecondition: it is over already.
        """

        def effect(tx: ServiceTx) -> Msat:
            back = self._upkeep(tx).cancel(nonce, reason or "the seller ended it", uuid4())
            tx.wake()
            return back

        return await self.context.transaction(effect)

    # --- What other nodes say -----------------------------------------------------------------------------------------

    def show(self, tx: ServiceTx, message: VerifiedMessage) -> Shown | None:
        """Take an answer; show a request, for `handle`."""
        try:
            payload = read(message.data)
        except MalformedRequest:
            return Shown(data=message.data)
        if isinstance(payload, Request):
            return Shown(data=message.data)
        out = Listening(tx=tx, fee=self._fee)
        answers = Answers(books=SqlBuyerBooks(tx), out=out, now_ms=tx.now_ms)
        if not answers.receive(_incoming(message)):
            return None
        tx.close_request(message)
        tx.wake()
        contract = answers.books.bought(message.sender, payload.nonce)
        return shown_answer(payload, contract, out.heard[-1] if out.heard else None)

    async def handle(self, fact: Fact) -> Effect | None:
        """Decide on a request, or note what became of one of ours."""
        if isinstance(fact, Outcome):
            return partial(self._note, fact)
        if not isinstance(fact, VerifiedMessage):
            return None
        shop, peers = await self._look(fact)

        def decide(tx: ServiceTx) -> None:
            if self._seller(tx, shop, fact).receive(_incoming(fact), peers, self.draw):
                tx.wake()

        return decide

    def _note(self, outcome: Outcome, tx: ServiceTx) -> None:
        answers = Answers(books=SqlBuyerBooks(tx), out=TxOutgoing(tx=tx, fee=self._fee), now_ms=tx.now_ms)
        if not outcome.delivered:
            answers.undelivered(outcome.id, outcome.reason)
        elif answers.arrived(outcome.id):
            tx.wake()  # the answer may be overdue before anything else is due

    async def _look(self, message: VerifiedMessage) -> tuple[Shop | Closed, Peers]:
        """See what is sold, and what is on the interface."""
        shop = self._shop
        if isinstance(shop, Closed) or not needs_interface(message.data) or message.amount < self._cheapest_answer:
            return shop, {}
        try:
            interface = await self._interface.interface()
            peers = await self._interface.peers()
        except WireGuardError as error:
            logger.warning("vpn: nothing can be sold: %s", error)
            return Closed(SILENT), {}
        if interface.public_key != shop.terms.server_key:
            logger.warning(
                "vpn: nothing is sold: vpn.server_pub_key is not the key of %s; `impervious vpn check` tells more",
                self.context.settings.vpn.interface,
            )
            return Closed(SILENT), {}
        return shop, peers


def _incoming(message: VerifiedMessage) -> Incoming:
    return Incoming(
        id=message.id, sender=message.sender, reply_to=message.reply_to, data=message.data, amount=message.amount
    )


def _far(contract: Sold | Bought) -> NodePubkey:
    return contract.buyer if isinstance(contract, Sold) else contract.seller
