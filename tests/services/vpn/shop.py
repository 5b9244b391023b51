"""A shop on a subnet of five buyers, and who comes there."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final
from uuid import UUID

from impervious.config import VpnConfig
from impervious.model import NodePubkey
from impervious.services.vpn.payloads import Payload, write
from impervious.services.vpn.ports import Incoming
from impervious.services.vpn.sale import Shop
from impervious.services.vpn.selling import Draw
from impervious.units import Msat, Sat
from impervious.wireguard import PresharedKey, PrivateKey, Terms

SELLER: Final = NodePubkey(b"\x02" + b"\x11" * 32)
ANN: Final = NodePubkey(b"\x02" + b"\xaa" * 32)
BEN: Final = NodePubkey(b"\x02" + b"\xbb" * 32)

SERVER_KEY: Final = PrivateKey(b"\x01" * 32)
CONFIG: Final = VpnConfig(
    server_pub_key=SERVER_KEY.public.text,
    server_ip="203.0.113.1",
    subnet="10.0.0.0/29",
    dns="10.0.0.1",
    binary_path=Path("/usr/bin/wg"),
)
SHOP: Final = Shop(terms=Terms.of(CONFIG), price=Sat(100), hour_ms=3_600_000, max_hours=48)
BIG_SHOP: Final = replace(SHOP, terms=Terms.of(replace(CONFIG, subnet="10.0.0.0/24")))
GRACE_MS: Final = 600_000
FEE: Final = Msat(3000)
START_MS: Final = 1_760_000_000_000
HOUR_MS: Final = 3_600_000


def private_key(number: int) -> PrivateKey:
    """Give one of many keys, always the same."""
    return PrivateKey(number.to_bytes(32, "big"))


class Numbered:
    """Randomness that can be read."""

    def __init__(self) -> None:
        self._nonces = count(1)
        self._secrets = count(1)

    def draw(self) -> Draw:
        return Draw(
            nonce=lambda: f"nonce-{next(self._nonces)}",
            preshared_key=lambda: PresharedKey(next(self._secrets).to_bytes(32, "big")),
        )


def incoming(
    sender: NodePubkey, payload: Payload | bytes, amount: int, *, number: int = 1, reply_to: UUID | None = None
) -> Incoming:
    """Give a message as it arrives."""
    return Incoming(
        id=UUID(int=number),
        sender=sender,
        reply_to=reply_to,
        data=payload if isinstance(payload, bytes) else write(payload),
        amount=Msat(amount),
    )
