import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from impervious.config import LogConfig
from impervious.logs import Redactor, configure
from impervious.model import Preimage

MACAROON = "0201036c6e6402f801030a10" + "ab" * 40
HASH = "5f" * 32

logger = logging.getLogger("impervious.inbound")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _put_logging_back() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("impervious")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def to_json(level: str = "info", *secrets: str | None) -> io.StringIO:
    stream = io.StringIO()
    configure(LogConfig(level=level), stream, environ={}, secrets=secrets)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


class TestJson:
    def test_a_line_has_level_time_caller_and_message(self) -> None:
        stream = to_json()
        logger.info("IMPD started!")
        (line,) = lines(stream)
        assert list(line) == ["level", "ts", "caller", "msg"]
        assert (line["level"], line["caller"], line["msg"]) == ("info", "impervious.inbound", "IMPD started!")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["ts"]))

    def test_what_comes_with_extra_stands_beside_them(self) -> None:
        stream = to_json()
        logger.warning(
            "%s: settled %d msat",
            "alice",
            5,
            extra={
                "bytes": 3,
                "ratio": float("nan"),
                "path": Path("a"),
                "raw": b"abc",
                "many": [1, (2.5, None)],
                "ts": 0,
            },
        )
        (line,) = lines(stream)
        assert line["msg"] == "alice: settled 5 msat"
        assert {key: line[key] for key in ("bytes", "ratio", "path", "raw", "many", "ts_")} == {
            "bytes": 3,
            "ratio": "nan",
            "path": "a",
            "raw": "3 bytes",
            "many": [1, [2.5, None]],
            "ts_": 0,
        }

    def test_an_exception_is_part_of_the_line(self) -> None:
        stream = to_json()
        try:
            try:
                raise KeyError("inner\nline")
            except KeyError as error:
                raise ExceptionGroup("both", [ValueError("outer")]) from error
        except ExceptionGroup:
            logger.exception("could not", stack_info=True)
        (line,) = lines(stream)
        assert line["error"] == "ExceptionGroup: both (1 sub-exception)"
        assert "KeyError: 'inner" in str(line["traceback"])
        assert "ValueError: outer" in str(line["traceback"])
        assert "test_logs" in str(line["stack"])

    def test_no_exception_no_traceback(self) -> None:
        stream = to_json()
        logger.error("no error under way", exc_info=True)  # noqa: LOG014 - the very point
        assert "traceback" not in lines(stream)[0]

    def test_a_line_from_outside_stays_one_line(self) -> None:
        stream = to_json()
        logger.info("alias %s", 'a\n{"level":"error"}\r\u2028\x85b')
        assert len(stream.getvalue().splitlines()) == 1
        assert lines(stream)[0]["msg"] == 'alias a\n{"level":"error"}\r\u2028\x85b'


class TestLevels:
    def test_ours_follow_the_setting(self) -> None:
        stream = to_json("warning")
        logger.info("no")
        logger.warning("yes")
        assert [line["msg"] for line in lines(stream)] == ["yes"]
        stream = to_json("debug")
        logger.debug("yes")
        assert [line["level"] for line in lines(stream)] == ["debug"]

    def test_others_are_heard_from_warnings_up(self) -> None:
        stream = to_json("debug")
        library = logging.getLogger("library")
        for level in (logging.NOTSET, logging.DEBUG):  # as it is, and where the library set one itself
            library.setLevel(level)
            library.debug("Decoded macaroon")
            library.info("Decoded macaroon")
        library.warning("odd")
        library.setLevel(logging.NOTSET)
        assert [line["msg"] for line in lines(stream)] == ["odd"]

    def test_python_warnings_are_lines(self) -> None:
        stream = to_json()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert "DeprecationWarning: old" in str(lines(stream)[0]["msg"])

    def test_the_last_to_configure_has_it_all(self) -> None:
        first, second = to_json(), to_json()
        logger.info("x")
        assert first.getvalue() == ""
        assert len(lines(second)) == 1


class TestConsole:
    def console(self, stream: io.StringIO, **environ: str) -> io.StringIO:
        configure(LogConfig(format="auto"), stream, environ=environ)
        return stream

    def test_a_terminal_gets_colours_and_a_readable_line(self) -> None:
        stream = self.console(Terminal())
        logger.warning("message received", extra={"id": "5fed", "bytes": 3})
        plain = re.sub(r"\x1b\[[0-9;]+m", "", stream.getvalue())
        assert plain != stream.getvalue()
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} warning inbound message received id=5fed bytes=3\n", plain)

    @pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_colours_can_be_refused(self, environ: dict[str, str]) -> None:
        stream = self.console(Terminal(), **environ)
        logger.info("x")
        assert "\x1b" not in stream.getvalue()

    def test_a_file_gets_json_unless_told_otherwise(self) -> None:
        stream = self.console(io.StringIO())
        logger.info("x")
        assert lines(stream)[0]["msg"] == "x"
        stream = io.StringIO()
        configure(LogConfig(format="console"), stream, environ={})
        logger.info("x")
        assert re.fullmatch(r"\S+ info    inbound x\n", stream.getvalue())
        configure(LogConfig(format="json"), stream := Terminal(), environ={})
        logger.info("x")
        assert lines(stream)[0]["msg"] == "x"

    def test_text_from_outside_cannot_steer_the_terminal(self) -> None:
        stream = self.console(Terminal(), NO_COLOR="1")
        logger.info("alias %s", "\x1b[2Jx\ny\x9b", extra={"to\n": "a\rb"})
        assert stream.getvalue().endswith(r"inbound alias \x1b[2Jx\ny\x9b to\n=a\rb" + "\n")

    def test_a_traceback_stands_below(self) -> None:
        stream = self.console(Terminal(), NO_COLOR="1")
        try:
            raise ValueError("\x1bx")
        except ValueError:
            logger.exception("could not", stack_info=True)
        first, *below = stream.getvalue().splitlines()
        assert first.endswith("could not")
        assert r"ValueError: \x1bx" in below
        assert any("Stack (most recent call last)" in line for line in below)


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "clean"),
        [
            (f"sent {MACAROON} to lnd", "sent *** to lnd"),
            (f"MACAROON {MACAROON.upper()}", "MACAROON ***"),
            ("use lndconnect://host:10009?macaroon=abc now", "use lndconnect://*** now"),
            (f"preimage={HASH}", "preimage=***"),
            (f"'preimage': '{HASH}'", "'preimage': '***'"),
            (f"hash={HASH}", f"hash={HASH}"),
            ("macaroon: permission denied", "macaroon: permission denied"),
            ("password hunter22 and HUNTER22", "password *** and ***"),
            ("an ab is too short to hide", "an ab is too short to hide"),
        ],
    )
    def test_what_looks_secret_or_is_known_to_be(self, text: str, clean: str) -> None:
        assert Redactor(["hunter22", "ab", None]).text(text) == clean

    @pytest.mark.parametrize("style", ["json", "console"])
    def test_it_reaches_every_part_of_a_line(self, style: str) -> None:
        # Put together here, or the source lines of the traceback would show them.
        password, short, token = (f"{word}22" for word in ("hunter", "short", "token"))
        stream = io.StringIO()
        configure(LogConfig(format=style), stream, environ={}, secrets=[password])
        extra: dict[str, object] = {
            "note": password,
            "macaroon": short,
            "preimage": short.encode(),
            "deep": [{"token1": token, "note": MACAROON}],
            "token_count": 12345,
        }
        try:
            raise ValueError(f"{password} {MACAROON}")
        except ValueError:
            logger.exception("%s %s", password, MACAROON, extra=extra, stack_info=True)
        text = stream.getvalue()
        assert "12345" in text
        for secret in ("hunter22", MACAROON, "short22", "token22"):
            assert secret not in text

    def test_values_that_hide_themselves_stay_hidden(self) -> None:
        stream = to_json()
        logger.info("%s", Preimage(bytes(32)), extra={"p": Preimage(bytes(32))})
        assert "00" * 32 not in stream.getvalue()
        assert r"\x00" not in stream.getvalue()
