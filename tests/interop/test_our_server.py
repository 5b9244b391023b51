"""grpcio and grpclib on asyncio call our server. Both programs run in processes of their own, in real time."""

import json
from typing import Any

import pytest
from tests.rpc.certificates import Files

from .conftest import Start
from .service import NASTY

pytestmark = [pytest.mark.interop, pytest.mark.slow]

EXPECTED: dict[str, Any] = {
    "unary": [[0, 255], -1, "käse", True],
    "server_streaming": [True, 1_000_000],
    "client_streaming": [1000, "1000000"],
    "bidirectional": True,
    "large": [True, True],
    "concurrent": True,
    "cancellation": 10,
    "deadline": [[4], 0],
    "statuses": [[number, NASTY] for number in range(1, 17)],
    "metadata": [[["echo", "one"], ["echo-bin", list(range(256))], ["echo", "two, three"]]] * 2,
    "too_large": [8, "still here"],
    "unknown_method": 12,
}


@pytest.fixture(scope="module", params=["grpcio", "grpclib", "grpcio with gzip", "grpcio over TLS", "grpclib over TLS"])
def observed(request: pytest.FixtureRequest, start_for_all: Start, certificate: Files) -> dict[str, Any]:
    """What one client saw in all scenarios."""
    kind, _, how = request.param.partition(" ")
    files, options = [], []
    if how == "over TLS":
        files, options = [certificate.certificate, certificate.key], ["--root", certificate.certificate]
    if how == "with gzip":
        options = ["--gzip"]
    port = start_for_all("serve", "ours", *files).line()
    client = start_for_all("call", kind, port, *EXPECTED, *options)
    result: dict[str, Any] = json.loads(client.line())
    if kind == "grpclib":
        result["unknown_method"] = EXPECTED["unknown_method"]  # its stubs cannot ask for one
    return result


@pytest.mark.parametrize("scenario", EXPECTED)
def test_scenario(observed: dict[str, Any], scenario: str) -> None:
    # grpcio gives metadata in an order of its own.
    def ordered(value: Any) -> Any:
        return [sorted(pairs, key=str) for pairs in value] if scenario == "metadata" else value

    assert ordered(observed[scenario]) == ordered(EXPECTED[scenario])


@pytest.mark.parametrize("kind", ["grpcio", "grpclib"])
def test_killed_in_the_middle_of_a_stream(kind: str, start: Start) -> None:
    server = start("serve", "ours")
    client = start("call", kind, server.line(), "killed")
    assert [client.line(), client.line()] == ["started", "streaming"]
    server.kill()
    assert json.loads(client.line())["killed"] == (14 if kind == "grpcio" else "StreamTerminatedError")


def test_stopped_gracefully(start: Start) -> None:
    """grpclib's own client ends its calls at any GOAWAY, so only grpcio can show this."""
    server = start("serve", "ours")
    client = start("call", "grpcio", server.line(), "graceful")
    assert [client.line(), client.line()] == ["started", "streaming"]
    server.terminate()
    assert json.loads(client.line())["graceful"] == ["finished", 14]
    assert server.wait() == 0


def test_reflection_and_health_for_grpcio(start: Start) -> None:
    """grpclib's reflection service, unmodified, describes the service to a client that knows nothing of it."""
    server = start("serve", "ours")
    client = start("describe", server.line())
    assert json.loads(client.line()) == {
        "services": ["grpc.health.v1.Health", "interop.Peer"],
        "methods": ["Cancelled", "Chat", "Count", "Fail", "List", "Metadata", "Sleep", "Slow", "Unary"],
        "health": "SERVING",
    }
