"""A payment as LND tells it, and two ways to make it."""

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.lnd.fake import BOB

from impervious.lnd import LndNode
from impervious.model import DecodedInvoice, Preimage
from impervious.model import Payment as Paid
from impervious.pb.lnrpc import Payment, PaymentFailureReason, PaymentPaymentStatus
from impervious.units import Msat

PREIMAGE = Preimage(b"\x07" * 32)
RECORDS = {400_000: b"hello"}
INVOICE = DecodedInvoice(
    payment_request="lnbcrt1",
    payee=BOB,
    payment_hash=PREIMAGE.payment_hash,
    amount=Msat(1000),
    created_s=1_700_000_000,
    expiry_s=3600,
)


def update(status: PaymentPaymentStatus, reason: int = 0) -> Payment:
    succeeded = status is PaymentPaymentStatus.SUCCEEDED
    return Payment(
        payment_hash=PREIMAGE.payment_hash.hex(),
        payment_preimage=PREIMAGE.raw.hex() if succeeded else "00" * 32,
        value_msat=1000,
        status=status,
        failure_reason=PaymentFailureReason(reason),
    )


IN_FLIGHT = update(PaymentPaymentStatus.IN_FLIGHT)
DOOMED = update(PaymentPaymentStatus.IN_FLIGHT, reason=2)
"""It will fail, but an HTLC is still out."""
SUCCEEDED = update(PaymentPaymentStatus.SUCCEEDED)
FAILED = update(PaymentPaymentStatus.FAILED, reason=2)
UNKNOWN = GRPCError(Status.NOT_FOUND, "payment isn't initiated")


async def keysend(node: LndNode) -> Paid:
    return await node.send_keysend(BOB, Msat(1000), PREIMAGE, RECORDS, fee_limit=Msat(3000), timeout_s=60)


async def pay_invoice(node: LndNode) -> Paid:
    return await node.pay_invoice(INVOICE, fee_limit=Msat(3000), timeout_s=60)
