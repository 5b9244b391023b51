import logging
import resource

import pytest

from impervious.server.open_files import SPARE_FILES, make_room


class Limits:
    """What the system would say, and what it is told."""

    def __init__(self, soft: int, hard: int, *, refuses: bool = False) -> None:
        self.soft, self.hard, self.refuses = soft, hard, refuses

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self.refuses:
            raise ValueError("current limit exceeds maximum limit")
        self.soft, self.hard = limits


def after(monkeypatch: pytest.MonkeyPatch, limits: Limits, connections: int) -> Limits:
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    make_room(connections)
    return limits


def test_room_is_made_where_there_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    assert after(monkeypatch, Limits(1024, 1 << 20), 2000).soft == 2000 + SPARE_FILES
    assert after(monkeypatch, Limits(1024, resource.RLIM_INFINITY), 2000).soft == 2000 + SPARE_FILES


def test_what_is_enough_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert after(monkeypatch, Limits(1 << 20, 1 << 20), 2000).soft == 1 << 20
    assert after(monkeypatch, Limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY), 2000).soft == -1


@pytest.mark.parametrize("limits", [Limits(1024, 1500), Limits(1024, 4096, refuses=True)])
def test_what_cannot_be_had_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limits: Limits
) -> None:
    with caplog.at_level(logging.WARNING):
        after(monkeypatch, limits, 2000)
    assert limits.soft == (1024 if limits.refuses else 1500)
    assert "raise `ulimit -n`" in caplog.text
