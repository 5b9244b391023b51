"""A service's own tables, brought up to date by numbered migrations.

Their names begin with the service's type (dots and dashes become underscores), so that no service can take another's;
that is looked up in the database after each migration, whatever its SQL looks like.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sqlcipher3 import dbapi2

from impervious.errors import ConfigError
from impervious.model import ServiceType
from impervious.store import Tx, is_environmental

_CONTROL: Final = re.compile(
    r"(?>\s|;|--[^\n]*\n|/\*.*?\*/)*+"  # without going back: many comments would take for ever
    r"(BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|ATTACH|DETACH|PRAGMA|VACUUM)\b",
    re.IGNORECASE | re.DOTALL,
)


def migrate(tx: Tx, service_type: ServiceType, migrations: Sequence[str]) -> None:
    """Apply the migrations that have not been.

    Args:
      tx: the transaction; a migration that fails undoes it.
      service_type: whose they are.
      migrations: SQL, one or more statements each; never edited after a release, only added to.

    Raises:
      ConfigError: a newer version of the service made the tables, or one has a name that is not the service's to give.
    """
    version = tx.number("SELECT version FROM service_schema WHERE service_type = ?", service_type)
    if version > len(migrations):
        raise ConfigError(
            f"the tables of service {service_type} were made by a newer version of it: install that one, or set its"
            " entry in service_list to active: false"
        )
    for number, migration in enumerate(migrations[version:], start=version + 1):
        before = _names(tx)
        try:
            for statement in _statements(migration):
                tx.run(checked(statement))
        except (dbapi2.DatabaseError, ValueError) as error:
            if is_environmental(error):
                raise
            raise ConfigError(f"migration {number} of service {service_type} cannot be applied: {error}") from error
        _check_names(service_type, before ^ _names(tx))
    tx.run("INSERT OR REPLACE INTO service_schema VALUES (?, ?)", service_type, len(migrations))


def is_current(tx: Tx, service_type: ServiceType, migrations: Sequence[str]) -> bool:
    """Whether a service's tables have had all its migrations."""
    row = tx.one("SELECT version FROM service_schema WHERE service_type = ?", service_type)
    return row is not None and int(row[0]) == len(migrations)


def checked(sql: str) -> str:
    """Return a statement that leaves the transaction to its owner: other people's work is in the same commit.

    Raises:
      ValueError: it does not, or it sets the database itself up.
    """
    if found := _CONTROL.match(sql):
        raise ValueError(f"a service's SQL must not say {found[1].upper()}: its transaction is begun and ended for it")
    return sql


def prefix(service_type: ServiceType) -> str:
    """Say how the names of a service's tables, indexes, triggers and views begin."""
    return service_type.replace(".", "_").replace("-", "_") + "_"


def _check_names(service_type: ServiceType, changed: set[str]) -> None:
    beginning = prefix(service_type)
    wrong = sorted(name for name in changed if not name.startswith((beginning, f"sqlite_autoindex_{beginning}")))
    if wrong:
        raise ConfigError(
            f"service {service_type} makes or drops {wrong[0]}: the names of its tables, indexes, triggers and views"
            f" must begin with {beginning}"
        )


def _names(tx: Tx) -> set[str]:
    return {str(row[0]) for row in tx.all("SELECT name FROM sqlite_master")}


def _statements(script: str) -> Iterator[str]:
    """Take a script apart: a semicolon inside a string, a comment or a trigger ends nothing."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if dbapi2.complete_statement(statement):
            if statement.strip(" \t\r\n;"):
                yield statement
            statement = ""
    if statement.strip(" \t\r\n;"):
        yield statement
