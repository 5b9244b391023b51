"""What buying asks of a daemon, and when it stops; the real thing is in tests/wireguard/test_end_to_end.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import trio

from impervious.cli.client.rest import Facts, NoAnswer
from impervious.cli.exits import UsageError
from impervious.cli.tunnels.asking import SellerRefused, SellerSilent
from impervious.cli.tunnels.buying import Wish, buy, renew

QUOTE: Facts = {"recordId": "QUOTE", "nonce": "n1", "price": 100, "hours": 1}
CONTRACT: Facts = {"recordId": "CONTRACT", "nonce": "n1", "address": "10.0.0.2", "expires_at": 77}
WISH = Wish(seller="02ab", hours=1, most=100)


@dataclass
class Script:
    """A daemon, and a seller behind it, that say what they are told to."""

    answers: list[Facts | Exception]
    asked: list[tuple[str, Mapping[str, object], str]] = field(default_factory=list)
    lost: int = 0
    """So many calls that pay get no answer."""

    async def ask(self, path: str, body: Mapping[str, object], *, key: str = "") -> Facts:
        await trio.lowlevel.checkpoint()
        self.asked.append((path, body, key))
        if path in ("contract", "refresh") and self.lost:
            self.lost -= 1
            raise NoAnswer("it went away")
        known: dict[str, Facts] = {
            "config": {"config": "[Interface]", "interface": "imp-1"},
            "get": {"pubkey": "02ab", "price": "100", "nonce": "n1"},
        }
        return known.get(path, {"id": path})

    async def answer(self, request: str, *, within_s: float) -> Facts:
        await trio.lowlevel.checkpoint()
        assert (request, within_s > 0) == (self.asked[-1][0], True)
        said = self.answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


async def yes(_price: int, _hours: int) -> bool:
    await trio.lowlevel.checkpoint()
    return True


async def no(price: int, hours: int) -> bool:
    await trio.lowlevel.checkpoint()
    assert (price, hours) == (100, 1)
    return False


async def test_the_whole_way() -> None:
    script = Script([QUOTE, CONTRACT])
    tunnel = await buy(script, WISH, agree=no)
    assert script.paths == ["quote", "contract", "config"]
    assert script.asked[1][1] == {"pubkey": "02ab", "nonce": "n1", "price": "100", "renewals": "0"}
    assert (tunnel.address, tunnel.expires_at, tunnel.interface, tunnel.config) == (
        "10.0.0.2",
        77,
        "imp-1",
        "[Interface]",
    )
    assert "config" not in tunnel.public()


@pytest.mark.parametrize(("most", "says"), [(99, "more than --max-price 99: nothing was paid"), (None, "nothing was")])
async def test_what_is_too_dear_or_not_agreed_to_is_not_paid(most: int | None, says: str) -> None:
    script = Script([QUOTE])
    with pytest.raises(UsageError, match=says):
        await buy(script, Wish(seller="02ab", hours=1, most=most), agree=no)
    assert script.paths == ["quote"]


async def test_on_a_terminal_one_is_asked() -> None:
    assert (await buy(Script([QUOTE, CONTRACT]), Wish(seller="02ab", hours=1, most=None), agree=yes)).price == 100


async def test_an_answer_that_got_lost_is_asked_for_again() -> None:
    script = Script([QUOTE, CONTRACT], lost=1)
    await buy(script, WISH, agree=yes)
    assert script.asked[1] == script.asked[2]
    script = Script([{"expires_at": 99}], lost=1)
    assert await renew(script, "n1", most=None) == 99
    assert script.asked[1] == script.asked[2]
    assert script.asked[1][2], "with a key, so that it is paid once"


async def test_a_seller_that_refuses_or_says_nothing() -> None:
    with pytest.raises(SellerRefused, match="full"):
        await buy(Script([SellerRefused("it is full")]), WISH, agree=yes)
    with pytest.raises(SellerSilent, match="`impervious vpn config n1` gives the file"):
        await buy(Script([QUOTE, SellerSilent("nothing within 120 s")]), WISH, agree=yes)


async def test_renewing_pays_the_contracts_own_price() -> None:
    script = Script([{"expires_at": 99}])
    assert await renew(script, "n1", most=100) == 99
    assert script.asked[1][1] == {"pubkey": "02ab", "nonce": "n1", "price": "100"}
    with pytest.raises(UsageError, match="100 sat, more than --max-price 99: nothing was paid"):
        await renew(Script([]), "n1", most=99)
