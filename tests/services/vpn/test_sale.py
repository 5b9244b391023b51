"""How a seller says things."""

from uuid import UUID

from tests.services.vpn.seller import House

from impervious.services.vpn.payloads import (
    Expired,
    read,
    write,
)


def test_a_reason_of_several_lines_arrives_as_one() -> None:
    house = House()
    contract = house.sell()
    house.upkeep.cancel(contract.nonce, "wg:\n\x1b[31mno\n" + "x" * 5000, UUID(int=99))
    payload = house.out.letters[-1].payload
    assert isinstance(payload, Expired)
    assert payload.reason.startswith("wg:  [31mno ")
    assert read(write(payload)) == payload
