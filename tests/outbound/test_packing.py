from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from tests.server.house import ALICE, ME

from impervious.model import MessageState, OutboundMessage, Part, Preimage, RecordType, ServiceType
from impervious.outbound.packing import Packing
from impervious.store.outbox import Stored
from impervious.units import Msat
from impervious.wire import envelope
from impervious.wire.envelope import Header, SignedHeader

HEADER = Header(
    sender=ME,
    sent_at_ms=1_760_000_000_000,
    reply_to=UUID(int=7),
    total_bytes=480_000,
    payload_sha256=bytes(32),
    amount=Msat(10**9),
    order=10**6,
    void_orders=tuple(range(1, 65)),
)
SIGNED = SignedHeader(header=HEADER, raw=envelope.encode_header(HEADER), signature=bytes(65))


def packing() -> Packing:
    message = OutboundMessage(
        id=UUID(int=1),
        recipient=ALICE,
        service_type=ServiceType("message"),
        payload=bytes(range(256)) * 1_875,
        amount=Msat(1_000),
    )
    stored = Stored(
        number=1,
        message=message,
        record_type=RecordType(400_000),
        order=1,
        state=MessageState.SENDING,
        accepted_at_ms=0,
        deadline_ms=None,
        header=None,
        signature=None,
    )
    return Packing(stored, SIGNED)


def part(offset: int, length: int) -> Part:
    return Part(preimage=Preimage(bytes(32)), offset=offset, length=length, amount=Msat(1_000), fee_limit=Msat(0))


@given(data=st.data())
def test_no_smaller_part_has_more_around_its_bytes_than_was_said(data: st.DataObject) -> None:
    """What a cut relies on: the room of a route, less this, is a size that surely fits."""
    offset = data.draw(st.integers(0, 479_000))
    length = data.draw(st.integers(1, min(900, 480_000 - offset)))
    at = data.draw(st.integers(offset, offset + length - 1))
    smaller = data.draw(st.integers(1, offset + length - at))
    there = packing()
    assert len(there.record(part(at, smaller))) <= smaller + there.overhead(part(offset, length))


@given(offset=st.integers(0, 479_099))
def test_a_record_is_what_the_recipient_reads(offset: int) -> None:
    there = packing()
    [(record_type, record)] = there.records(part(offset, 900)).items()
    read = envelope.decode(record)
    assert record_type == 400_000
    assert (read.message_id, read.offset) == (UUID(int=1), offset)
    assert read.payload == there.stored.message.payload[offset : offset + 900]
    assert (read.signed_header is None) == (offset > 0)
