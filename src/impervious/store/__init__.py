"""The database: SQLite, encrypted with SQLCipher when a password is set, one writer, one commit for many writes."""

from impervious.store.connection import is_environmental
from impervious.store.database import Store, open_store
from impervious.store.transaction import Row, Tx, log_topic

__all__ = ["Row", "Store", "Tx", "is_environmental", "log_topic", "open_store"]
