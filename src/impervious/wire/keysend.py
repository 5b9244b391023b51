"""Keysend: a payment without an invoice, whose preimage travels in a custom record.

The sender makes the preimage and puts it into record 5482373484 of the last hop's onion; a receiver that runs with
--accept-keysend (feature bit 55) makes an invoice of it and settles. LND adds neither the record nor the hash itself.
"""

from collections.abc import Iterable
from typing import Final

from impervious.errors import InvalidArgument
from impervious.model import Preimage, Records

PREIMAGE_RECORD: Final = 5482373484
"""Where every implementation looks for the preimage."""

ACCOUNTABLE_RECORD: Final = 106823
"""LND's own "experimental accountable" signal (1 byte), among the records of nearly every HTLC since 0.21: not ours."""

MIN_RECORD: Final = 65536
"""Custom records begin here (BOLT 1, TLV types; lnd refuses lower ones)."""

MAX_RECORD: Final = 2**64 - 1

FEATURE_BIT: Final = 55
"""Announced by nodes that accept keysends."""


def with_preimage(records: Records, preimage: Preimage) -> dict[int, bytes]:
    """Add the preimage's record to the records of an application.

    Raises:
      InvalidArgument: a record type is reserved or out of range.
    """
    check_types(records)
    return {**records, PREIMAGE_RECORD: preimage.raw}


def check_types(record_types: Iterable[int]) -> None:
    """Refuse record types that an application cannot use.

    Raises:
      InvalidArgument: one is reserved or out of range.
    """
    for record_type in record_types:
        if not MIN_RECORD <= record_type <= MAX_RECORD:
            raise InvalidArgument(f"record type {record_type} is not between {MIN_RECORD} and 2**64 - 1")
        if record_type in (PREIMAGE_RECORD, ACCOUNTABLE_RECORD):
            raise InvalidArgument(f"record type {record_type} has a meaning of its own in Lightning; choose another")
