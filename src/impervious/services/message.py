"""Messages: an application's bytes to another node, untouched. What arrives is an event as it is."""

from typing import Final

from impervious.errors import InvalidArgument
from impervious.model import MessageId, MessageReport, NodePubkey, ServiceType
from impervious.service import ServiceTx, Shown, VerifiedMessage
from impervious.service.contract import InTurnService
from impervious.units import Sat, msat, sat_charged

FEDERATED: Final = "federated"
MAX_AMOUNT_SAT: Final = Sat(21_000_000 * 100_000_000)
"""More does not exist."""


class MessageService(InTurnService):
    """Sends messages."""

    service_type = ServiceType("message")

    def minimum(self, size: int) -> Sat:
        """Say what a message of `size` bytes carries at least, in satoshis."""
        return sat_charged(self.context.minimum_amount(size))

    def show(self, tx: ServiceTx, message: VerifiedMessage) -> Shown | None:
        """Show what comes from anybody, or only from peers (`message.accept_from`)."""
        if self.context.settings.message.accept_from == FEDERATED and tx.peer(message.sender) is None:
            return None
        return super().show(tx, message)

    async def send(
        self,
        recipient: NodePubkey | str,
        data: bytes | str,
        *,
        amount: Sat = Sat(0),
        reply_to: MessageId | None = None,
        idempotency_key: str | None = None,
        wait: bool = False,
    ) -> MessageId:
        """Send bytes, or text as UTF-8, to another node.

        Args:
          recipient: the far node: its key, 66 hex digits, or @ and a peer's imp id.
          data: at most `message.max_bytes`.
          amount: satoshis it gets; 0: the minimum for the size, 1 for each 900 bytes.
          reply_to: id of the message this answers.
          idempotency_key: the same key with the same arguments gives the same id and sends nothing again.
          wait: return only when it is delivered.

        Returns:
          Its id: everything about it appears on the stream under that id, or with `reply_to` equal to it.

        Raises:
          InvalidArgument: it can never be sent; says what to change. Nothing was done.
          NotFound: no peer goes by that name.
          FailedPrecondition: the peer that the name belonged to is gone.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why.
          DeliveryFailed: with `wait`, it was not delivered.

        Cancellation: stops waiting, not sending.
        """
        if amount < 0:
            raise InvalidArgument("amount is negative: give satoshis, or 0 for the minimum")
        if amount > MAX_AMOUNT_SAT:
            raise InvalidArgument("amount is more than 21 million bitcoin: it is given in satoshis")
        payload = data.encode() if isinstance(data, str) else data
        message_id = await self.context.send(
            recipient, payload, amount=msat(amount), reply_to=reply_to, idempotency_key=idempotency_key
        )
        if wait:
            await self.context.wait(message_id)
        return message_id

    async def get(self, message_id: MessageId) -> MessageReport:
        """Say how far a message of this node is, whichever service sent it.

        Raises:
          NotFound: there is no such message, or no longer.
        """
        return await self.context.report(message_id)
