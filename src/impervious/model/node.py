"""What a Lightning node tells and is told: who it is, payments, routes, invoices, balances."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from impervious.errors import InvalidArgument, PaymentFailure
from impervious.model.names import NodePubkey, PaymentHash, Preimage, Records
from impervious.units import Msat

MAX_INVOICE: Final = Msat(100_000 * 10**11)
"""100,000 bitcoin: lnd makes no invoice for more (invoicesrpc AddInvoice)."""

MAX_MEMO_BYTES: Final = 1024
"""lnd invoices.MaxMemoSize."""

MAX_DESCRIPTION_BYTES: Final = 639
"""BOLT 11: a tagged field has at most 1023 groups of 5 bits."""

MAX_EXPIRY_S: Final = 365 * 86_400
"""lnd refuses more."""


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
    chain_time_s: int = 0
    """best_header_timestamp: what the newest block says when it was made; 0: the node does not tell."""


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
    PAYING_NOTHING = "paying_nothing"
    """It serves, and this daemon has a reason of its own not to pay: see `gate`."""
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
    # What only lists tell, and only some of them, makes no other payment of it.
    index: int = field(default=0, compare=False)
    """payment_index: in the order in which they were begun."""
    dest: NodePubkey | None = field(default=None, compare=False)
    """Who is paid; None: the node does not tell, such as of one that was never tried."""
    records: Records = field(default_factory=dict, compare=False)
    """What the recipient's onion carries, as far as the node was asked for that (`list_payments`)."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HopHint:
    """A payment channel towards a node that the graph need not hold (lnrpc.HopHint)."""

    pubkey: NodePubkey
    """Of the node that forwards over it."""
    chan_id: int
    base_fee: Msat
    fee_ppm: int
    cltv_delta: int


RouteHint: TypeAlias = tuple[HopHint, ...]
"""Channels one after the other; the last one ends at the receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentChannel:
    """A payment channel of the node's own that is open (lnrpc.Channel)."""

    chan_id: int
    peer: NodePubkey
    active: bool
    """HTLCs can move over it now: its peer is connected."""
    private: bool
    """No other node's graph holds it."""
    spendable: Msat
    """Ours without the reserve: the most that can be sent over it."""
    receivable: Msat
    """The peer's without its reserve: the most that can come in over it."""


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
    unreadable: str = ""
    """Why the node's message could not be read; the other fields then hold what could be."""


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
    unreadable: str = ""
    """Why the node's message could not be read; the other fields then hold what could be."""


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
    private: bool = False
    """Whether it names ways over private channels, without which a node that has no others cannot be paid."""
    preimage: Preimage | None = field(default=None, repr=False)
    """Of which nobody knows yet; None: a random one of the node's."""

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
