import logging

import pytest

from impervious.cli.exits import CRASH, INTERRUPTED, NODE, USAGE, UsageError, report
from impervious.errors import (
    ConfigError,
    NodeMisconfigured,
    NodeRefused,
    NodeUnavailable,
    StoreError,
    StoreLocked,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), USAGE),
        (UsageError("x"), USAGE),
        (StoreLocked("x"), USAGE),
        (NodeMisconfigured("x"), USAGE),
        (NodeUnavailable("x"), NODE),
        (NodeRefused("x"), NODE),
        (StoreError("x"), CRASH),
        (ExceptionGroup("g", [ConfigError("x"), ExceptionGroup("h", [ConfigError("x")])]), USAGE),
        (BaseExceptionGroup("g", [NodeUnavailable("x"), KeyboardInterrupt()]), NODE),
    ],
)
def test_an_expected_error_is_one_line_and_a_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr().err == "impervious: x\n"


def test_an_interrupt_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt()) == INTERRUPTED == 130
    assert report(BaseExceptionGroup("g", [KeyboardInterrupt(), KeyboardInterrupt()])) == INTERRUPTED
    assert capsys.readouterr().err == ""


def test_several_errors_are_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ExceptionGroup("g", [ConfigError("x"), NodeUnavailable("y")])) == USAGE
    assert capsys.readouterr().err == "impervious: x\nimpervious: y\n"


def test_a_bug_is_a_traceback_and_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert report(ExceptionGroup("g", [TypeError("oops"), ConfigError("x")])) == CRASH
    err = capsys.readouterr().err
    assert err.startswith("impervious: x\n")
    assert err.endswith("TypeError: oops\nimpervious: crashed: TypeError: oops\n")


def test_a_bug_of_the_daemon_goes_to_its_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert report(TypeError("oops")) == CRASH
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("CRITICAL", "crashed: TypeError: oops")
    assert record.exc_info is not None
    assert capsys.readouterr().err == ""
