"""What this node sells, as its configuration says."""

from typing import Final

from impervious.config import Config
from impervious.errors import ConfigError, Malformed
from impervious.service import ServiceContext
from impervious.services.vpn.contract import SECOND_MS
from impervious.services.vpn.payloads import MAX_INTEGER, Contract, RefreshRequest, read, write
from impervious.services.vpn.sale import Closed, Shop
from impervious.units import Msat, msat, sat_charged
from impervious.wireguard import Terms

NOT_SELLING: Final = "this node sells no tunnels"
"""What buyers are told; the operator has read why at the start."""


REFUSAL_BYTES: Final = 2600
"""Room for a refusal with everything that it may say: what does not pay for so much is not sent back, although refusals
are cut to one part."""


def fee_of(config: Config) -> Msat:
    """Say what sending money back may cost; it is taken from what goes back."""
    return config.message.max_fee_msat_per_part


def cheapest_answer(context: ServiceContext) -> Msat:
    """Say below which amount nothing is answered or given back: no work is worth it."""
    return Msat(context.minimum_amount(1) + min(context.settings.limits.auto_answer_fee_msat, fee_of(context.settings)))


def least_refund(context: ServiceContext) -> Msat:
    """Say how little can be sent back: what the largest answer carries that a refund can be part of."""
    config = context.settings.vpn
    size = REFUSAL_BYTES
    if config.server_pub_key is not None and context.config.active:
        size = max(size, _answer_bytes(Terms.of(config)))
    return context.minimum_amount(size)


def open_shop(context: ServiceContext) -> Shop | Closed:
    """Read the configuration.

    Raises:
      ConfigError: it sells what cannot be sold; names the setting.
    """
    config = context.settings.vpn
    if config.server_pub_key is None or not context.config.active:
        return Closed(NOT_SELLING)
    terms = Terms.of(config)
    least = Msat(least_refund(context) + fee_of(context.settings))
    if msat(config.price_sat) < least:
        raise ConfigError(
            f"vpn.price: {config.price_sat} sat are too few to send the buyer its configuration, or its money back:"
            f" make it at least {sat_charged(least)} (see message.max_fee_msat_per_part, message.min_amount_sat)"
        )
    return Shop(terms=terms, price=config.price_sat, hour_ms=config.period_s * SECOND_MS, max_hours=config.max_hours)


def needs_interface(data: bytes) -> bool:
    """Whether deciding on a request takes a look at the interface: more time for a tunnel does not."""
    try:
        return not isinstance(read(data), RefreshRequest)
    except Malformed:
        return False


def _answer_bytes(terms: Terms) -> int:
    """Say how large the answer to a payment is."""
    longest = Contract(
        nonce="n" * 22,
        address=str(terms.subnet.network.broadcast_address),
        expires_at=MAX_INTEGER,
        endpoint=str(terms.endpoint),
        server_pub_key=terms.server_key.text,
        allowed_ips=", ".join(map(str, terms.allowed)),
        dns=", ".join(map(str, terms.dns)),
        preshared_key=terms.server_key.text,
    )
    return len(write(longest))
