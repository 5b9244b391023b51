import ssl

import pytest

from impervious.cli.client.answers import DaemonRefused, DaemonUnavailable, refusal, refusal_of_body, unreachable
from impervious.cli.client.door import Door
from impervious.cli.exits import CRASH, NODE, USAGE, UsageError, exit_code
from impervious.config import Address

DOOR = Door(address=Address(host="127.0.0.1", port=8882))


@pytest.mark.parametrize(
    ("code", "kind", "exit_with"),
    [
        (3, UsageError, USAGE),
        (6, UsageError, USAGE),
        (11, UsageError, USAGE),
        (14, DaemonUnavailable, NODE),
        (8, DaemonRefused, CRASH),
        (10, DaemonRefused, CRASH),
        (13, DaemonRefused, CRASH),
        (99, DaemonRefused, CRASH),
    ],
)
def test_codes(code: int, kind: type[Exception], exit_with: int) -> None:
    error = refusal(code, "what to do")
    assert (type(error), str(error), exit_code(error)) == (kind, "what to do", exit_with)


def test_an_answer_that_is_no_daemons() -> None:
    assert str(refusal_of_body(b'{"code":14,"message":"locked","details":[]}', DOOR, 503)) == "locked"
    for body in (b"", b"<html>", b"[]", b'{"code":"x","message":""}', b"7", b'{"detail": "no"}'):
        error = refusal_of_body(body, DOOR, 404)
        assert "http://127.0.0.1:8882 answers with HTTP 404" in str(error)
        assert exit_code(error) == USAGE


def test_why_nobody_answers() -> None:
    refused = unreachable(DOOR, ConnectionRefusedError())
    assert str(refused).startswith("no daemon answers at http://127.0.0.1:8882: start it")
    untrusted = ssl.SSLCertVerificationError()
    untrusted.verify_message = "self-signed certificate"
    wrapped = OSError()
    wrapped.__cause__ = untrusted
    assert "not trusted (self-signed certificate): name it with --cacert" in str(unreachable(DOOR, wrapped))
    assert "is it https:// or http://?" in str(unreachable(DOOR, ssl.SSLError()))
