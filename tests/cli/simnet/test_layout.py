import pytest

from impervious.cli.exits import UsageError
from impervious.cli.simnet.layout import NodePorts, check_room


def test_each_node_has_ten_ports_of_its_own() -> None:
    assert NodePorts.at(8881, 0) == NodePorts(
        grpc=8881, http=8882, text=8883, lnd=8890, relay=((8884, 8885), (8886, 8887), (8888, 8889))
    )
    ports = []
    for position in range(5):
        each = NodePorts.at(2000, position)
        ports += [each.grpc, each.http, each.text, each.lnd, *(port for pair in each.relay for port in pair)]
    assert sorted(ports) == list(range(2000, 2049 + 1))


def test_the_last_port_can_be_used_and_no_more() -> None:
    check_room(65506, 3)
    with pytest.raises(UsageError, match="use --port-base 65506 or lower"):
        check_room(65507, 3)
    check_room(6, 6553)
    with pytest.raises(UsageError, match="have fewer nodes"):
        check_room(1, 6554)
