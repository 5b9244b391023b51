"""Buying a tunnel, and more time for it."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from impervious.cli.client.rest import Facts, NoAnswer, number, text
from impervious.cli.exits import UsageError
from impervious.cli.tunnels.asking import SellerSilent

QUOTE_S: Final = 60.0
"""How long a seller has to say its price."""
CONTRACT_S: Final = 120.0
"""How long it has to set the tunnel up: it gives the money back after a minute."""


class Daemon(Protocol):
    """Who is asked; `asking.Asking` is one."""

    async def ask(self, path: str, body: Mapping[str, object], *, key: str = "") -> Facts:
        """Make a call; see `asking.ask`."""
        ...

    async def answer(self, request: str, *, within_s: float) -> Facts:
        """Wait for the seller's answer to a request; see `asking.Asking`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be bought."""

    seller: str
    """Key or @imp_id."""
    hours: int
    most: int | None
    """Satoshis; None: whoever `agree` asks decides."""
    renewals: int = 0
    """The most that renewing itself may cost, in satoshis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """What was bought."""

    nonce: str
    seller: str
    price: int
    hours: int
    address: str
    expires_at: int
    """Seconds since 1970."""
    interface: str
    config: str

    def public(self) -> Facts:
        """Give what may be shown."""
        return {
            "nonce": self.nonce,
            "seller": self.seller,
            "price": self.price,
            "hours": self.hours,
            "address": self.address,
            "expiresAt": self.expires_at,
            "interface": self.interface,
        }


async def buy(asking: Daemon, wish: Wish, *, agree: Callable[[int, int], Awaitable[bool]]) -> Tunnel:
    """Ask for a price, pay it, and fetch the tunnel's file.

    Args:
      asking: the daemon.
      wish: what to buy.
      agree: asked for the price and the hours when the wish has no limit.

    Raises:
      UsageError: it is too dear; nothing was paid.
      SellerRefused, SellerSilent, DeliveryFailed: what became of it.
    """
    asked = await asking.ask("quote", {"pubkey": wish.seller, "hours": wish.hours})
    quote = await asking.answer(text(asked, "id"), within_s=QUOTE_S)
    price, nonce, hours = number(quote, "price"), text(quote, "nonce"), number(quote, "hours")
    if wish.most is not None and price > wish.most:
        raise UsageError(f"{hours} hours cost {price} sat, more than --max-price {wish.most}: nothing was paid")
    if wish.most is None and not await agree(price, hours):
        raise UsageError("nothing was paid")
    body = {"pubkey": wish.seller, "nonce": nonce, "price": str(price), "renewals": str(wish.renewals)}
    try:
        paid = await asking.ask("contract", body)
    except NoAnswer:
        paid = await asking.ask("contract", body)  # the same quote is never paid twice
    try:
        contract = await asking.answer(text(paid, "id"), within_s=CONTRACT_S)
    except SellerSilent as silent:
        raise SellerSilent(f"{silent}; when it does, `impervious vpn config {nonce}` gives the file") from None
    file = await asking.ask("config", {"nonce": nonce, "pubkey": wish.seller})
    return Tunnel(
        nonce=nonce,
        seller=wish.seller,
        price=price,
        hours=hours,
        address=text(contract, "address"),
        expires_at=number(contract, "expires_at"),
        interface=text(file, "interface"),
        config=text(file, "config"),
    )


async def renew(asking: Daemon, nonce: str, *, most: int | None) -> int:
    """Buy a contract's own hours again.

    Args:
      asking: the daemon.
      nonce: the contract's.
      most: satoshis that may be paid; None: what it costs.

    Returns:
      Until when it stands now, in seconds since 1970.

    Raises:
      UsageError: there is none, or it costs more; nothing was paid.
      SellerRefused, SellerSilent, DeliveryFailed: what became of it.
    """
    contract = await asking.ask("get", {"nonce": nonce})
    price = number(contract, "price")
    if most is not None and price > most:
        raise UsageError(f"it costs {price} sat, more than --max-price {most}: nothing was paid")
    body = {"pubkey": text(contract, "pubkey"), "nonce": nonce, "price": str(price)}
    key = str(uuid.uuid4())
    try:
        paid = await asking.ask("refresh", body, key=key)
    except NoAnswer:
        paid = await asking.ask("refresh", body, key=key)
    return number(await asking.answer(text(paid, "id"), within_s=CONTRACT_S), "expires_at")
