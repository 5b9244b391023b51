"""Invoices, as programs of 2021 make, pay and check them."""

import pytest
from tests.acceptance.clients import Grpc, curl
from tests.acceptance.conftest import Door, Pair

pytestmark = [pytest.mark.slow, pytest.mark.interop]

MAKE, PAY, CHECK = (f"/v1/lightning/{name}" for name in ("generateinvoice", "payinvoice", "checkinvoice"))


@pytest.mark.parametrize("amount", [1000, "1000"])
def test_an_invoice_is_made_paid_and_checked(pair: Pair, door: Door, amount: int | str) -> None:
    # A real program gives the pubkey of the payer too, which no version has asked for.
    made = curl(door.of(pair.carol), MAKE, {"amount": amount, "memo": "tea", "pubkey": pair.alice.pubkey})
    assert (made.status, list(made.body)) == (200, ["invoice"])
    assert made.body["invoice"].startswith("lnbc")
    invoice = {"invoice": made.body["invoice"]}
    assert curl(door.of(pair.carol), CHECK, invoice).body == {"paid": False}
    paid = curl(door.of(pair.alice), PAY, invoice)
    assert (paid.status, list(paid.body)) == (200, ["preimage"])
    assert len(bytes.fromhex(paid.body["preimage"])) == 32
    assert curl(door.of(pair.carol), CHECK, invoice).body == {"paid": True}
    assert curl(door.of(pair.alice), PAY, invoice).body == paid.body  # once more costs nothing


def test_the_same_with_stubs(alice: Grpc, carol: Grpc) -> None:
    made = carol.call("lightning.Lightning/GenerateInvoice", amount=25, memo="x")
    assert list(made) == ["invoice"]
    assert carol.call("lightning.Lightning/CheckInvoice", **made) == {"paid": False}
    assert len(alice.call("lightning.Lightning/PayInvoice", **made)["preimage"]) == 64
    assert carol.call("lightning.Lightning/CheckInvoice", **made) == {"paid": True}
