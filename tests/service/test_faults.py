import pytest

from impervious.errors import ConfigError, NodeUnavailable, StoreError, StoreFull, StoreUnusable
from impervious.service.faults import FATAL, FATAL_BY_ITSELF, is_one_of, is_passing


def group(*errors: Exception) -> Exception:
    return ExceptionGroup("outer", [ExceptionGroup("inner", errors)])


@pytest.mark.parametrize(
    ("error", "passing", "fatal", "fatal_by_itself"),
    [
        (NodeUnavailable(""), True, False, False),
        (StoreFull(""), True, False, False),
        (StoreError(""), False, False, False),
        (StoreUnusable(""), False, True, True),
        (ConfigError(""), False, False, True),
        (ZeroDivisionError(), False, False, False),
        (SystemExit(), False, False, False),
        (group(NodeUnavailable(""), StoreFull("")), True, False, False),
        (group(NodeUnavailable(""), ZeroDivisionError()), False, False, False),
        (group(NodeUnavailable(""), StoreUnusable("")), False, True, True),
    ],
)
def test_whose_fault_an_error_is(error: BaseException, passing: bool, fatal: bool, fatal_by_itself: bool) -> None:
    assert is_passing(error) is passing
    assert is_one_of(error, FATAL) is fatal
    assert is_one_of(error, FATAL_BY_ITSELF) is fatal_by_itself
