"""Tunnels sold over the simulated network: the whole way, crashes between its steps, thieves, and what comes back."""

import json
from pathlib import Path

import pytest
from tests.conftest import Wall
from tests.services.vpn.house import bought, house, key, told, vpn
from tests.walks import detail
from trio.testing import MockClock

from impervious.services.vpn.contract import Phase
from impervious.services.vpn.purchase import Stage
from impervious.units import Msat


async def test_a_tunnel_is_bought(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, event = await bought(alice, await key(carol))
        assert (quote["recordId"], quote["price"], quote["hours"]) == ("QUOTE", 100, 1)
        contract = detail(event)
        assert (contract["recordId"], contract["role"]) == ("CONTRACT", "buyer")
        assert contract["address"] == "10.0.0.2"
        assert contract["command"] == f"impervious vpn config {quote['nonce']}"
        assert not {"preshared_key", "config"} & set(contract)
        text = await vpn(alice).config(quote["nonce"])
        assert event.secret is not None
        assert json.loads(event.secret)["config"] == text
        assert "Address = 10.0.0.2/32" in text
        [sold] = await vpn(carol).sold()
        assert (sold.phase, sold.price, str(sold.address)) == (Phase.ACTIVE, Msat(100_000), "10.0.0.2")
        assert sold.preshared_key is not None
        assert sold.preshared_key.text in text
        assert list(here.wireguard.snapshot()) == [sold.key]
        [have] = await vpn(alice).bought()
        assert (have.stage, have.private_key.public) == (Stage.ACTIVE, sold.key)
        assert [each["role"] for each in await told(carol, "CONTRACT")] == ["seller"]
        assert sold.preshared_key.text not in repr(await told(carol, "CONTRACT"))
