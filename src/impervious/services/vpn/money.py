"""Where every millisatoshi that came in went: it bought time, or it was given back, or giving it back cost it."""

from dataclasses import dataclass
from typing import Final

from impervious.errors import InvalidArgument
from impervious.model import MessageId
from impervious.units import MSAT_PER_SAT, Msat

SMALLEST: Final = Msat(MSAT_PER_SAT)
"""A message carries at least this, unless `message.min_amount_sat` says more: less cannot be given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a seller's accounts; one that does not add up cannot be written."""

    cause: MessageId
    """The message that the money came with, or the call that gives some back."""
    nonce: str
    """The contract; empty if it was none's."""
    received: Msat
    sold: Msat
    """Turned into time; negative where sold time was taken back."""
    refunded: Msat
    kept: Msat
    """For what the answer costs: the price of a question, the fee of a refund, too little to be sent."""

    def __post_init__(self) -> None:
        if self.received != self.sold + self.refunded + self.kept:
            raise InvalidArgument(f"{self.received} msat are not {self.sold} + {self.refunded} + {self.kept}")


def refundable(amount: Msat, fee: Msat, least: Msat = SMALLEST) -> Msat:
    """Say how much of an amount arrives when it is sent back.

    Args:
      amount: what should go back.
      fee: the most that sending it may cost.
      least: less than this cannot be sent, and stays.
    """
    rest = amount - fee
    return Msat(rest if rest >= least else 0)


def sale(cause: MessageId, nonce: str, received: Msat) -> Entry:
    """Book a payment that bought time."""
    return Entry(cause=cause, nonce=nonce, received=received, sold=received, refunded=Msat(0), kept=Msat(0))


def refund(cause: MessageId, nonce: str, received: Msat, fee: Msat, least: Msat = SMALLEST) -> Entry:
    """Book a payment that bought nothing."""
    back = refundable(received, fee, least)
    return Entry(cause=cause, nonce=nonce, received=received, sold=Msat(0), refunded=back, kept=Msat(received - back))


def taken_back(cause: MessageId, nonce: str, worth: Msat, fee: Msat, least: Msat = SMALLEST) -> Entry:
    """Book time that was sold and is not given."""
    back = refundable(worth, fee, least)
    return Entry(
        cause=cause,
        nonce=nonce,
        received=Msat(0),
        sold=Msat(-worth),
        refunded=back,
        kept=Msat(worth - back),
    )
