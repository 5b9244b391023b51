"""A node's outgoing payments: one record for a hash, paid at most once.

A record begins INITIATED, is IN_FLIGHT while an HTLC is out, and ends SUCCEEDED or FAILED. Only a FAILED one may be
started anew, and then under a new index (lnd routing/control_tower.go).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import Final

from grpclib.const import Status

from impervious.errors import PaymentFailure
from impervious.model import HtlcState, PaymentHash, Preimage, Records
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.route import FINAL_CLTV_DELTA, Path, RouteHint
from impervious.units import Msat
from impervious.wire import keysend

DEFAULT_TIMEOUT_S: Final = 60
"""What a timeout of 0 means since lnd 0.19."""

DEFAULT_PAGE: Final = 100
"""max_payments 0."""


class FailureCode(IntEnum):
    """lnrpc.Failure.FailureCode, as far as simulated nodes use them (BOLT 4)."""

    INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 1
    AMOUNT_BELOW_MINIMUM = 11
    FEE_INSUFFICIENT = 12
    INCORRECT_CLTV_EXPIRY = 13
    CHANNEL_DISABLED = 14
    TEMPORARY_CHANNEL_FAILURE = 15
    UNKNOWN_NEXT_PEER = 18
    TEMPORARY_NODE_FAILURE = 19


class Stage(Enum):
    """lnrpc.Payment.PaymentStatus. LND reports INITIATED as IN_FLIGHT."""

    INITIATED = "initiated"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


TERMINAL: Final = (Stage.SUCCEEDED, Stage.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class HtlcFailure:
    """Why an HTLC came back (lnrpc.Failure)."""

    code: FailureCode
    source_index: int
    """Which node of the path said so; 0 is the sender."""
    height: int = 0
    """The receiver's, if it was the receiver."""
    amount: Msat = Msat(0)
    """What came in, if a forwarding node wanted more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One HTLC that was tried (lnrpc.HTLCAttempt); SETTLED means that it succeeded."""

    id: int
    path: Path
    tried_s: float
    state: HtlcState = HtlcState.ACCEPTED
    resolved_s: float = 0
    failure: HtlcFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What SendPaymentV2 is asked for (routerrpc.SendPaymentRequest)."""

    dest: bytes
    amount: Msat
    payment_hash: bytes
    records: Records = field(default_factory=dict)
    """dest_custom_records. A keysend has its preimage's among them."""
    first_hop_records: Records = field(default_factory=dict)
    fee_limit: Msat = Msat(0)
    """0: routes without fees only."""
    timeout_s: int = DEFAULT_TIMEOUT_S
    final_cltv_delta: int = 0
    """0: the node's own default."""
    payment_addr: bytes = b""
    outgoing: frozenset[int] = frozenset()
    last_hop: bytes = b""
    max_shard_size: Msat = Msat(0)
    allow_self_payment: bool = False
    cancelable: bool = False
    payment_request: str = ""
    """What the rest of it was read from, if it pays an invoice."""
    hints: tuple[RouteHint, ...] = ()
    """Channels towards the receiver that the graph need not hold."""
    cltv_limit: int = 0
    """The most blocks between now and its first time lock; 0: any."""
    ignored: tuple[bytes, ...] = ()
    """Keys of nodes to go round."""
    ignored_pairs: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def cltv_delta(self) -> int:
        """From the chain's height to the receiver's time lock, without padding."""
        return self.final_cltv_delta or FINAL_CLTV_DELTA

    def check(self, own_pubkey: bytes) -> None:
        """Refuse what LND refuses before it looks for a way (routerrpc extractIntentFromSendRequest).

        Raises:
          LndError: in LND's words.
        """
        if len(self.dest) != 33:
            raise LndError(f"invalid vertex length of {len(self.dest)}, want 33")
        if self.amount < 0:
            raise LndError("amount cannot be negative")
        if self.amount == 0:
            raise LndError("amount must be specified")
        if len(self.payment_hash) != 32:
            raise LndError(f"invalid hash length of {len(self.payment_hash)}, want 32")
        if any(record_type < keysend.MIN_RECORD for record_type in self.records):
            raise LndError("no custom records with types below 65536 allowed")
        if any(record_type < keysend.MIN_RECORD for record_type in self.first_hop_records):
            raise LndError("custom records entry with TLV type below min: 65536")
        if self.fee_limit < 0:
            raise LndError("fee limit cannot be negative")
        if self.max_shard_size and keysend.PREIMAGE_RECORD in self.records:
            raise LndError(
                "keysend payments cannot specify a max shard amount - MPP not supported with keysend payments"
            )
        if self.dest == own_pubkey and not self.allow_self_payment:
            raise LndError("self-payments not allowed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimPayment:
    """A record (lnrpc.Payment); replaced, never changed, so that it can be handed out as it is."""

    index: int
    order: Order
    stage: Stage
    created_s: float
    deadline_s: float
    """In the engine's own time: no new attempt after it."""
    attempts: tuple[Attempt, ...] = ()
    failure: PaymentFailure | None = None
    """Final only together with FAILED."""
    preimage: Preimage | None = None
    resumed: bool = False
    """Its node was restarted meanwhile: it waits for the HTLC that is out and tries nothing new."""
    canceled: bool = False
    routed: bool = False
    """Its sender names the way (SendToRouteV2): nothing else is tried."""
    goes_on: bool = False
    """SendToRouteV2 with skip_temp_err: an attempt that comes back does not end it."""
    stranded: bool = False
    """Its HTLC was lost between two databases when its node died: it stays as it is for ever."""

    @property
    def payment_hash(self) -> PaymentHash:
        """Its name."""
        return PaymentHash(self.order.payment_hash)

    @property
    def fee(self) -> Msat:
        """Paid on top; 0 unless succeeded."""
        return Msat(sum(a.path.fee for a in self.attempts if a.state is HtlcState.SETTLED))

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.stage in TERMINAL

    def with_attempt(self, attempt: Attempt) -> "SimPayment":
        """Add an attempt, or put it in the place of its former self."""
        others = tuple(former for former in self.attempts if former.id != attempt.id)
        return replace(self, attempts=tuple(sorted((*others, attempt), key=lambda a: a.id)))

    def without_failed_attempts(self) -> "SimPayment":
        """What LND remembers of it after its end."""
        return replace(self, attempts=tuple(a for a in self.attempts if a.state is not HtlcState.CANCELED))


class PaymentTable:
    """All payments of one node."""

    def __init__(self) -> None:
        self.started = 0
        """The last payment_index given out."""
        self._rows: dict[PaymentHash, SimPayment] = {}

    def __iter__(self) -> Iterator[SimPayment]:
        """All records by payment_index."""
        return iter(sorted(self._rows.values(), key=lambda payment: payment.index))

    def get(self, payment_hash: PaymentHash) -> SimPayment | None:
        """The record of a hash, if there is one."""
        return self._rows.get(payment_hash)

    def lookup(self, payment_hash: bytes) -> SimPayment:
        """TrackPaymentV2.

        Raises:
          LndError: no such payment, or no such hash.
        """
        if len(payment_hash) != 32:
            raise LndError(f"invalid hash length of {len(payment_hash)}, want 32")
        payment = self._rows.get(PaymentHash(payment_hash))
        if payment is None:
            raise LndError("payment isn't initiated", Status.NOT_FOUND)
        return payment

    def start(self, order: Order, *, created_s: float, deadline_s: float, routed: bool = False) -> SimPayment:
        """Begin to pay.

        Raises:
          LndError: ALREADY_EXISTS, unless its hash is unknown or has failed.
        """
        former = self._rows.get(PaymentHash(order.payment_hash))
        if former is not None and former.stage is not Stage.FAILED:
            texts = {
                Stage.INITIATED: "payment already exists",
                Stage.IN_FLIGHT: "payment is in transition",
                Stage.SUCCEEDED: "invoice is already paid",
            }
            raise LndError(texts[former.stage], Status.ALREADY_EXISTS)
        self.started += 1
        payment = SimPayment(
            index=self.started,
            order=order,
            stage=Stage.INITIATED,
            created_s=created_s,
            deadline_s=deadline_s,
            routed=routed,
        )
        self._rows[payment.payment_hash] = payment
        return payment

    def put(self, payment: SimPayment) -> None:
        """Replace a record."""
        self._rows[payment.payment_hash] = payment

    def restore(self, payments: Iterable[SimPayment], *, started: int) -> None:
        """Take over saved records and the counter."""
        self._rows = {payment.payment_hash: payment for payment in payments}
        self.started = started

    def page(
        self, *, include_incomplete: bool = False, index_offset: int = 0, limit: int = 0, backwards: bool = False
    ) -> list[SimPayment]:
        """ListPayments: records after (before, with `backwards`) a payment_index, always ascending."""
        wanted = [payment for payment in self if include_incomplete or payment.stage is Stage.SUCCEEDED]
        if backwards:
            return [p for p in wanted if not index_offset or p.index < index_offset][-(limit or DEFAULT_PAGE) :]
        return [p for p in wanted if p.index > index_offset][: limit or DEFAULT_PAGE]
