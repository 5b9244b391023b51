"""A program that sends a file in packets, and one that puts together whatever arrives."""

import pytest
from tests.acceptance.clients import curl, subscribed
from tests.acceptance.conftest import Pair

pytestmark = [pytest.mark.slow, pytest.mark.interop]

PACKET_BYTES = 905


def test_a_file_in_packets_at_one_satoshi(pair: Pair) -> None:
    """A program reads a file in pieces of 905 bytes, sends each with 1 sat, and another puts together what arrives."""
    file = "".join(f"{number:07d}\n" for number in range(PACKET_BYTES)).encode()[: 7 * PACKET_BYTES + 11]
    packets = [file[start : start + PACKET_BYTES].decode() for start in range(0, len(file), PACKET_BYTES)]
    with subscribed(pair.carol.text) as receiving, subscribed(pair.alice.text) as sending:
        for packet in packets:
            message = {"msg": packet, "amount": 1, "pubkey": pair.carol.pubkey}
            assert curl(pair.alice.text, "/v1/message/send", message).status == 200
        arrived = [receiving.result() for _ in packets]
        # Whatever came besides, outcomes for one, such a program would put into the file too.
        assert receiving.is_silent()
        assert sending.is_silent()
    assert "".join(result["data"] for result in arrived).encode() == file
    assert [result["amount"] for result in arrived] == ["2"] * 7 + ["1"]
