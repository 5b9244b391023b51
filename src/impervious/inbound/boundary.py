"""The boundary between what strangers paid for and the node: an error ends the input at which it was raised only."""

from collections.abc import Callable

from impervious.containment import is_containable
from impervious.errors import ConfigError, StoreError, StoreFull
from impervious.store import Tx, is_environmental


def run_contained(tx: Tx, work: Callable[[], object]) -> BaseException | None:
    """Run `work` in a savepoint; if it raises, undo it and return what it raised.

    Raises:
      dbapi2.Error, TransactionLost: the disk or the file failed; nothing more can be done in this transaction.
    """
    try:
        with tx.attempt():
            work()
    except BaseException as error:  # noqa: ASYNC103 - in the database's thread, where nothing is cancelled
        if not is_containable(error) or is_environmental(error):
            raise
        return error  # noqa: ASYNC104
    return None


def ends_the_node(error: BaseException) -> bool:
    """Whether an error that reached a task of the reader is not to be contained: only the operator can mend it."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(ends_the_node, error.exceptions))
    if isinstance(error, StoreFull):
        return False
    return not is_containable(error) or is_environmental(error) or isinstance(error, StoreError | ConfigError)
