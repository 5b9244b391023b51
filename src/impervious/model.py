"""The domain's values: frozen, keyword-only, without behaviour beyond their own validity.

Every amount is in msat, every time in milliseconds or seconds since 1970 as its name says. Nothing here knows a wire
format, a database or a clock.
"""

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NewType, Self
from uuid import UUID

from impervious.errors import InvalidArgument, PaymentFailure
from impervious.units import Msat

MessageId = UUID
"""A random (version 4) UUID; 16 bytes on the wire, its hyphenated text at the API."""

PaymentHash = NewType("PaymentHash", bytes)
"""32 bytes: SHA-256 of the preimage."""

ServiceType = NewType("ServiceType", str)
"""The wire's name of a service: message, federate, vpn, socket, sign, lightning, or a third party's."""

RecordType = NewType("RecordType", int)
"""Key of a custom record, from 65536 (BOLT 1 TLV, lnd SendPaymentRequest.dest_custom_records)."""

Records = Mapping[int, bytes]
"""Custom records: type -> value."""

STATUS: Final = ServiceType("status")
"""Outcomes of our own calls. Never comes from the wire."""

MAX_INVOICE: Final = Msat(100_000 * 10**11)
"""100,000 bitcoin: lnd makes no invoice for more (invoicesrpc AddInvoice)."""

MAX_MEMO_BYTES: Final = 1024
"""lnd invoices.MaxMemoSize."""

MAX_DESCRIPTION_BYTES: Final = 639
"""BOLT 11: a tagged field has at most 1023 groups of 5 bits."""

MAX_EXPIRY_S: Final = 365 * 86_400
"""lnd refuses more."""

_FIELD_PRIME: Final = 2**256 - 2**32 - 977
"""Of secp256k1 (SEC 2, section 2.4.1)."""


@dataclass(frozen=True, slots=True, order=True)
class NodePubkey:
    """A node's identity: a compressed secp256k1 point."""

    raw: bytes
    """33 bytes."""

    def __post_init__(self) -> None:
        if len(self.raw) != 33 or self.raw[0] not in (2, 3):
            raise InvalidArgument("a pubkey is 33 bytes and begins with 02 or 03")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 66 hex digits that a person typed, and check that they are a point on the curve.

        Raises:
          InvalidArgument: what is wrong with them.
        """
        if not text:
            raise InvalidArgument("pubkey is missing: give the node's 66 hex digits (lncli getinfo, identity_pubkey)")
        if len(text) != 66:
            raise InvalidArgument(f"pubkey has {len(text)} characters; a compressed key has 66 hex digits")
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raise InvalidArgument("pubkey is not hexadecimal: use the digits 0-9 and a-f only") from None
        if len(raw) != 33:  # fromhex skips spaces
            raise InvalidArgument("pubkey is not hexadecimal: use the digits 0-9 and a-f only")
        if raw[0] not in (2, 3):
            raise InvalidArgument("pubkey does not begin with 02 or 03: it is not a compressed key")
        if not _on_curve(raw):
            raise InvalidArgument("pubkey is not a point on the curve: a digit is wrong")
        return cls(raw)

    @property
    def hex(self) -> str:
        """66 lower-case hex digits."""
        return self.raw.hex()

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"NodePubkey({self.raw.hex()[:12]}…)"


def _on_curve(compressed: bytes) -> bool:
    x = int.from_bytes(compressed[1:])
    square = (pow(x, 3, _FIELD_PRIME) + 7) % _FIELD_PRIME
    return x < _FIELD_PRIME and pow(square, (_FIELD_PRIME - 1) // 2, _FIELD_PRIME) == 1  # Euler's criterion


@dataclass(frozen=True, slots=True)
class Preimage:
    """What claims a payment. Secret until the payment has settled, so it never prints itself."""

    raw: bytes = field(repr=False)
    """32 bytes."""

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise InvalidArgument("a preimage is 32 bytes")

    @property
    def payment_hash(self) -> PaymentHash:
        """SHA-256 of it."""
        return PaymentHash(hashlib.sha256(self.raw).digest())


# --- The Lightning node ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """Who the Lightning node is (lnrpc.GetInfoResponse)."""

    pubkey: NodePubkey
    alias: str
    network: str
    """mainnet, testnet, signet, simnet or regtest: part of every signature."""
    version: str
    features: frozenset[int]
    """Feature bits; 55 means that it accepts keysend."""
    synced_to_chain: bool
    block_height: int


class NodeState(Enum):
    """How far the Lightning node is from serving us."""

    AWAY = "away"
    """No connection."""
    LOCKED = "locked"
    """The wallet waits for its password."""
    STARTING = "starting"
    SYNCING = "syncing"
    """It serves, but its chain is behind."""
    REFUSING = "refusing"
    """It answers and cannot serve as it is set up: wrong macaroon, keysend off. Looked at again when it restarts."""
    MISTAKEN = "mistaken"
    """It is another node than the configuration names. Nothing but a new configuration cures that."""
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A state and the sentence that explains it."""

    state: NodeState
    reason: str
    """What is missing and what cures it; empty when ready."""

    @property
    def ready(self) -> bool:
        """Whether calls can be made and payments sent."""
        return self.state is NodeState.READY


class PaymentStatus(Enum):
    """lnrpc.Payment.PaymentStatus; INITIATED counts as in flight."""

    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """An outgoing payment as the Lightning node sees it (lnrpc.Payment)."""

    payment_hash: PaymentHash
    status: PaymentStatus
    amount: Msat
    """What the receiver gets."""
    fee: Msat
    """Routing fee paid on top; 0 unless succeeded."""
    attempts: int
    """HTLCs that were tried, as far as the node still remembers. 0 with NO_ROUTE means that it never found a way."""
    preimage: Preimage | None = None
    """Known once succeeded."""
    failure: PaymentFailure | None = None
    """Set when failed, and only then."""
    created_s: int = 0
    payment_request: str = ""
    """BOLT 11, of the invoice that it pays; empty for a keysend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentPage:
    """One answer of ListPayments: in the order in which they were begun, also when read backwards."""

    payments: tuple[Payment, ...]
    first_index: int
    """payment_index of the first one, where reading backwards goes on; 0 when the page is empty."""
    last_index: int
    """payment_index of the last one, where the next page goes on; 0 when the page is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way through the network (lnrpc.Route), as far as sizes and costs go."""

    hops: int
    """Payment channels crossed; 1 for a direct peer."""
    fee: Msat
    total_amount: Msat
    """Amount and fee."""
    height: int
    """Absolute time lock of the first hop, which sets the width of its encoding."""


class InvoiceState(Enum):
    """lnrpc.Invoice.InvoiceState."""

    OPEN = "open"
    ACCEPTED = "accepted"
    """Paid and held: neither settled nor refused yet."""
    SETTLED = "settled"
    CANCELED = "canceled"


class HtlcState(Enum):
    """lnrpc.InvoiceHTLCState."""

    ACCEPTED = "accepted"
    SETTLED = "settled"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceHtlc:
    """One payment part that arrived for an invoice (lnrpc.InvoiceHTLC)."""

    state: HtlcState
    amount: Msat
    accepted_s: int
    """accept_time."""
    index: int
    """htlc_index: counts within one payment channel only."""
    records: Records


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInvoice:
    """An invoice as the Lightning node sees it, in any state (lnrpc.Invoice)."""

    payment_hash: PaymentHash
    state: InvoiceState
    add_index: int
    settle_index: int
    """0 until settled."""
    created_s: int
    settled_s: int
    """0 until settled."""
    is_keysend: bool
    amount_paid: Msat
    """amt_paid_msat. For a keysend anyone who saw the preimage can raise it."""
    htlcs: tuple[InvoiceHtlc, ...] = ()
    memo: str = ""
    payment_request: str = ""
    amount: Msat = Msat(0)
    """What it asks for; 0: any amount. Of a keysend, what it brought."""
    expiry_s: int = 0
    """From its creation; 0 for a keysend."""
    description_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePage:
    """One answer of ListInvoices: ascending by add_index, also when read backwards."""

    invoices: tuple[NodeInvoice, ...]
    first_index: int = 0
    """first_index_offset: add_index of the first one, where reading backwards goes on; 0 when the page is empty."""
    last_index: int
    """last_index_offset: add_index of the last one, where the next page goes on; 0 when the page is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceCursor:
    """How far a reader of settled invoices has come. All zero: nothing read yet.

    Only values that were received from the node belong here: invented ones make some LND back ends skip entries.
    """

    settle_index: int = 0
    """Of the invoices up to `add_index`, those settled under numbers up to this one have been told. It may be far ahead
    of what has been told above them, and it goes back when the node renumbers its indexes."""
    add_index: int = 0
    newest_s: int = 0
    """creation_date of the newest invoice known when it was written: one created later cannot have a lower number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledInvoice:
    """A payment that arrived and is ours (lnrpc.Invoice, state SETTLED)."""

    payment_hash: PaymentHash
    amount: Msat
    """Of a keysend, `amt_msat` of the HTLC that was accepted first: later ones can be forged by whoever saw the
    preimage. Of a payment request, which may be paid in parts, all that was paid."""
    records: Records
    """The first HTLC's custom records, the keysend preimage's included. Not authentic: a channel peer can replace them.
    """
    is_keysend: bool
    add_index: int
    settle_index: int
    created_s: int
    settled_s: int
    memo: str = ""
    payment_request: str = ""
    """BOLT 11; empty for a keysend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceNews:
    """One step of a reader of settled invoices."""

    invoice: SettledInvoice | None
    """None: everything settled before this moment has been told."""
    cursor: InvoiceCursor
    """Where to resume once this step is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceTerms:
    """What an invoice that we make is to say."""

    amount: Msat
    """What it asks for; 0: whatever the payer likes."""
    memo: str = ""
    """What it is for. It travels in the invoice, unless there is a `description_hash`: then only our node keeps it."""
    description_hash: bytes = b""
    """SHA-256 of a description that the payer has from elsewhere, 32 bytes; empty: `memo` travels instead."""
    expiry_s: int = 86_400
    """How long it can be paid; lnd's own default."""

    def __post_init__(self) -> None:
        try:
            size = len(self.memo.encode())
        except UnicodeEncodeError:
            raise InvalidArgument("memo is not text: it has half of a character in it") from None
        if not 0 <= self.amount <= MAX_INVOICE:
            raise InvalidArgument("amount is not between 0 (the payer chooses) and 100000 bitcoin")
        if size > MAX_MEMO_BYTES:
            raise InvalidArgument(f"memo has {size} bytes; LND keeps up to {MAX_MEMO_BYTES}: shorten it")
        if self.description_hash and len(self.description_hash) != 32:
            raise InvalidArgument(f"description_hash has {len(self.description_hash)} bytes; a SHA-256 has 32")
        if size > MAX_DESCRIPTION_BYTES and not self.description_hash:
            raise InvalidArgument(
                f"memo has {size} bytes; an invoice carries up to {MAX_DESCRIPTION_BYTES}: shorten it, or give its"
                " SHA-256 as description_hash and the text to the payer in another way"
            )
        if not 1 <= self.expiry_s <= MAX_EXPIRY_S:
            raise InvalidArgument(f"expiry_s is not between 1 second and a year ({MAX_EXPIRY_S} seconds)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedInvoice:
    """An invoice of our node as it was made (lnrpc.AddInvoiceResponse)."""

    payment_hash: PaymentHash
    payment_request: str
    """BOLT 11: what the payer gets."""
    add_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedInvoice:
    """What a BOLT 11 payment request says (lnrpc.PayReq). Made by `InvoiceNode.decode_invoice` only."""

    payment_request: str
    """The text itself."""
    payee: NodePubkey
    """Who signed it, and is paid."""
    payment_hash: PaymentHash
    amount: Msat
    """What it asks for; 0: any amount."""
    created_s: int
    expiry_s: int
    description: str = ""
    description_hash: bytes = b""
    """32 bytes when it has one, and then `description` is empty."""
    payment_secret: bytes = b""
    """payment_addr: proves to the receiver that the sender has seen the invoice. 32 bytes."""
    min_final_cltv: int = 0
    """Blocks that the receiver wants before an HTLC expires."""
    features: frozenset[int] = frozenset()
    """Feature bits; even ones the payer must understand."""

    @property
    def expires_s(self) -> int:
        """When it cannot be paid any more, in seconds since 1970."""
        return self.created_s + self.expiry_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What a node has (lnrpc.ChannelBalanceResponse and WalletBalanceResponse)."""

    local: Msat
    """Ours in payment channels that are open. More than can be sent: it counts reserves, and peers that are away."""
    remote: Msat
    """Our peers' in them: the most that could come in."""
    unsettled_local: Msat
    """Offered to us in HTLCs that have not ended: ours if they settle."""
    unsettled_remote: Msat
    """Offered by us: our peers' if they settle, ours again if they fail."""
    opening_local: Msat
    """Ours in channels that are not confirmed yet."""
    confirmed: Msat
    """On the chain, in whole satoshis."""
    unconfirmed: Msat
    """On its way there."""


class KeysendSupport(Enum):
    """What the graph says of a node's feature bit 55."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """The graph does not know the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the Lightning node says of a signature (lnrpc.VerifyMessageResponse)."""

    valid: bool
    """The signer is a node of its graph. Not: the signature is right."""
    pubkey: NodePubkey | None
    """Who signed, if a key could be recovered."""


# --- The log ----------------------------------------------------------------------------------------------------------


class EventKind(Enum):
    """Where a row of the log comes from; decides which fact a service is shown."""

    MESSAGE = "message"
    """A message from another node, complete and in order."""
    OUTCOME = "outcome"
    """The end of one of our own calls."""
    PAYMENT = "payment"
    """An invoice was paid, or a keysend of somebody else's protocol came."""
    NOTICE = "notice"
    """Something a service of ours has to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the durable log: what subscribers see."""

    seq: int
    """Position in the log, from 1, growing; gaps are normal."""
    kind: EventKind
    id: MessageId
    """Of the message or call it is about."""
    reply_to: MessageId | None
    sender: NodePubkey | None
    """Our own node for outcomes and notices; None when nobody proved to have sent it."""
    service_type: ServiceType
    """What the stream shows: the service, or `status` for outcomes."""
    topic: ServiceType
    """The service it concerns: differs from `service_type` for outcomes."""
    data: bytes
    amount: Msat
    """Received with it, all parts together."""
    sent_at_ms: int
    """When the sender signed it; for our own events when they were written."""
    verified: bool
    public: bool = True
    """False: only for the service it concerns, never on a stream."""
    secret: bytes | None = field(default=None, repr=False)
    """Shown instead of `data` to those who ask for secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event before the log gives it its `seq`."""

    kind: EventKind
    id: MessageId
    reply_to: MessageId | None
    sender: NodePubkey | None
    service_type: ServiceType
    topic: ServiceType
    data: bytes
    amount: Msat
    sent_at_ms: int
    verified: bool
    public: bool = True
    secret: bytes | None = field(default=None, repr=False)

    def at(self, seq: int) -> Event:
        """Give it its place in the log."""
        return Event(
            seq=seq,
            kind=self.kind,
            id=self.id,
            reply_to=self.reply_to,
            sender=self.sender,
            service_type=self.service_type,
            topic=self.topic,
            data=self.data,
            amount=self.amount,
            sent_at_ms=self.sent_at_ms,
            verified=self.verified,
            public=self.public,
            secret=self.secret,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How a message from another node goes into the log."""

    data: bytes
    """What every stream shows of it."""
    secret: bytes | None = field(default=None, repr=False)
    """What streams that ask for secrets show instead; the service itself is always shown this. None: nothing is kept
    from anybody."""
    public: bool = True
    """False: it is a fact for its service, and on no stream."""


# --- Peers ------------------------------------------------------------------------------------------------------------


MAX_IMP_ID_BYTES: Final = 64


def check_imp_id(text: str) -> None:
    """Refuse a name that could not be shown or typed.

    Raises:
      InvalidArgument: says why.
    """
    if not text or text.isspace():
        raise InvalidArgument("an imp id has at least one character that can be seen")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text):
        raise InvalidArgument("an imp id holds no control characters, invisible ones included")
    if len(text.encode()) > MAX_IMP_ID_BYTES:
        raise InvalidArgument(f"an imp id has at most {MAX_IMP_ID_BYTES} bytes of UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node that we have federated with."""

    pubkey: NodePubkey
    imp_id: str
    """The name it goes by; others may go by it too."""
    since_ms: int
    expires_ms: int
    """Until then it is remembered."""
    services: tuple[str, ...]
    """What it says it offers."""


# --- Outbound ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """What a service wants another node to get."""

    id: MessageId
    recipient: NodePubkey
    service_type: ServiceType
    payload: bytes
    amount: Msat
    """What the recipient gets in all; at least the minimum for the size."""
    reply_to: MessageId | None = None


class MessageState(Enum):
    """Life of an outbound message: accepted -> sending -> delivered | failed."""

    ACCEPTED = "accepted"
    SENDING = "sending"
    """Signed; payments may be under way."""
    DELIVERED = "delivered"
    """Every part is settled by the recipient's Lightning node."""
    FAILED = "failed"


class PartState(Enum):
    """Life of one keysend of a message."""

    PENDING = "pending"
    """May be in flight: ask the Lightning node before the first send after a start."""
    SETTLED = "settled"
    DEAD = "dead"
    """Failed for good, or replaced by smaller parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A byte range of a message and the payment that carries it."""

    preimage: Preimage
    offset: int
    length: int
    amount: Msat
    fee_limit: Msat
    state: PartState = PartState.PENDING
    fee: Msat = Msat(0)

    @property
    def payment_hash(self) -> PaymentHash:
        """SHA-256 of its preimage: its name at the Lightning node."""
        return self.preimage.payment_hash
