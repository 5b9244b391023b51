"""Satoshis and millisatoshis, and the only conversions between them.

Inside, every amount is millisatoshis (`Msat`); satoshis (`Sat`) appear at the edges: the API, the config file, what a
person reads. A conversion that loses something says in its name whom the rounding favours.
"""

from typing import Final, NewType

Sat = NewType("Sat", int)
Msat = NewType("Msat", int)

MSAT_PER_SAT: Final = 1000
MAX_MSAT: Final = 2**63 - 1
"""The largest amount SQLite and LND's int64 fields can hold."""


def msat(sat: Sat) -> Msat:
    """Convert satoshis exactly."""
    return Msat(sat * MSAT_PER_SAT)


def sat_charged(amount: Msat) -> Sat:
    """Round up: what somebody has to pay or has spent."""
    return Sat(-(-amount // MSAT_PER_SAT))


def sat_credited(amount: Msat) -> Sat:
    """Round down: what somebody has received or may spend."""
    return Sat(amount // MSAT_PER_SAT)
