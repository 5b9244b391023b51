# The part of sqlcipher3's DB-API that the store uses; the package itself is untyped.
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar, overload

_Parameter: TypeAlias = int | float | str | bytes | None
_Row: TypeAlias = tuple[Any, ...]  # type: ignore[explicit-any]  # columns are typed by the schema only

class Error(Exception):
    sqlite_errorcode: int
    sqlite_errorname: str

class DatabaseError(Error): ...
class OperationalError(DatabaseError): ...
class IntegrityError(DatabaseError): ...

class Cursor:
    lastrowid: int | None
    rowcount: int
    def fetchone(self) -> _Row | None: ...
    def fetchall(self) -> list[_Row]: ...

class Connection:
    in_transaction: bool
    def execute(self, sql: str, parameters: Sequence[_Parameter] = ..., /) -> Cursor: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[_Parameter]], /) -> Cursor: ...
    def executescript(self, script: str, /) -> Cursor: ...
    def close(self) -> None: ...

_C = TypeVar("_C", bound=Connection)

def complete_statement(statement: str) -> bool: ...
@overload
def connect(
    database: str,
    *,
    isolation_level: None = ...,
    check_same_thread: bool = ...,
    uri: bool = ...,
    cached_statements: int = ...,
) -> Connection: ...
@overload
def connect(
    database: str,
    *,
    isolation_level: None = ...,
    check_same_thread: bool = ...,
    uri: bool = ...,
    factory: type[_C],
) -> _C: ...
