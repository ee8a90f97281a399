"""What a driver's exception means, as a domain error: the database's door.

Nothing above this module sees an exception of SQLAlchemy or of a driver, and no text of either leaves
through the errors made here. ``Disconnected`` tells the runner that the connection is gone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from morag_meta.db.schema import metadata
from morag_meta.errors import AlreadyExists, Collision, MetaError, Reason, Unavailable, exists, not_found

_log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 1.0
_SINGULAR: Final = {"databases": "database", "user_settings": "settings", "api_keys": "api_key"}

_PG_COLLISIONS: Final = frozenset({"40001", "40P01", "55P03", "23P01"})
_PG_GONE: Final = frozenset({"25P03", "57P01", "57P02", "57P03", "08000", "08003", "08006"})
_MARIADB_COLLISIONS: Final = frozenset({1205, 1213, 1020, 1180})
_SQLITE_TAKEN: Final = "UNIQUE constraint failed: "
_MARIADB_CHECKS: Final = frozenset({4025, 3819})  # its drivers know them as operational errors
_MARIADB_UNREACHED: Final = frozenset({2002, 2003})
_MARIADB_GONE: Final = frozenset({2006, 2013, 2014, 2055, 1053, 1927, 4031, 0})


class Disconnected(Unavailable):
    """The connection broke, or could not be made; the unit of work may be run again on another one."""


class UnforeseenFault(Exception):
    """What the service did not reckon with: a fault of its own, told by kind and code alone.

    The driver's text may quote the row, and is kept out of the logs.
    """

    def __init__(self, fault: DBAPIError) -> None:
        """Describe a fault of the driver."""
        constraint = getattr(getattr(fault.orig, "diag", None), "constraint_name", None)
        known = (
            type(fault.orig).__name__,
            _code(fault) or getattr(fault.orig, "sqlite_errorname", ""),
            constraint,
        )
        super().__init__(" ".join(str(word) for word in known if word))


_CLAIMS: Final = {
    "request_records": "fingerprint",
    "tries": "clear_time",
    "reset_requests": "ask_time",
    "quotas": "open_jobs",
    "job_turns": "turn_time",
}
"""Tables whose rows are claimed by whoever comes first, and of each a column that no other table has."""


def _unique_names() -> dict[str, tuple[str, str]]:
    """Map each unique constraint, and SQLite's list of its columns, to a resource type and a field."""
    names: dict[str, tuple[str, str]] = {}
    for table in metadata.tables.values():
        resource = _SINGULAR.get(table.name, table.name.removesuffix("s"))
        for constraint in table.constraints:
            if isinstance(constraint, sa.UniqueConstraint | sa.PrimaryKeyConstraint):
                columns = [column.name for column in constraint.columns]
                field = (resource, [column for column in columns if column != "live_scope"][-1])
                names[str(constraint.name)] = field
                names[", ".join(f"{table.name}.{column}" for column in columns)] = field
        names[f"{table.name}.PRIMARY"] = names[f"pk_{table.name}"]
    return names


_UNIQUE: Final = _unique_names()


def adopt(fault: Exception, connection: sa.Connection) -> Exception:
    """Give a driver's own exception as SQLAlchemy would have raised it; others come back unchanged.

    Where the connection is gone it is thrown away, and so are those that wait in the pool beside it.
    """
    dialect = connection.dialect
    error = dialect.loaded_dbapi.Error
    if not isinstance(fault, error):
        return fault
    held = None if connection.invalidated or connection.closed else connection.connection
    gone = dialect.is_disconnect(fault, held, None)
    if gone and held is not None:
        connection.invalidate(fault)
        connection.engine.dispose()
    return DBAPIError.instance(
        None, None, fault, error, hide_parameters=True, connection_invalidated=gone, dialect=dialect
    )


def translate(fault: Exception, parameters: Mapping[str, Any] | None = None) -> Exception:
    """Give the domain error for an exception of the database layer; others come back unchanged."""
    if isinstance(fault, PoolTimeout):
        return busy("every database connection is in use")
    if isinstance(fault, IntegrityError):
        return _integrity(fault, parameters or {})
    return _operational(fault) if isinstance(fault, DBAPIError) else fault


def _operational(fault: DBAPIError) -> Exception:
    if fault.connection_invalidated or _is_gone(fault):
        return Disconnected(
            "the database connection was lost",
            reason=Reason.DATABASE_UNAVAILABLE,
            retry_after=RETRY_SECONDS,
        )
    if _is_collision(fault):
        return Collision()
    if _code(fault) in _MARIADB_CHECKS:
        return UnforeseenFault(fault)
    if isinstance(fault, OperationalError | InterfaceError) or _code(fault) in ("57014", "25006", 1290):
        if "locked" in str(fault.orig) or "busy" in str(fault.orig):
            return busy("the database file is locked by another process")
        _note(fault)
        return unavailable()
    return UnforeseenFault(fault)


def _note(fault: DBAPIError) -> None:
    """Log what a database refused, by its code; that it cannot be reached shows in every call."""
    code = _code(fault) or getattr(fault.orig, "sqlite_errorname", None)
    if code is not None and code not in _MARIADB_UNREACHED:
        with contextlib.suppress(Exception):  # whoever asked is answered all the same
            _log.warning("the database refuses", fault=str(UnforeseenFault(fault)))


def unavailable() -> Unavailable:
    """Say that the database does not answer as it should."""
    return Unavailable(
        "the database is not available", reason=Reason.DATABASE_UNAVAILABLE, retry_after=RETRY_SECONDS
    )


def busy(why: str) -> Unavailable:
    """Say that too much waits already."""
    return Unavailable(why, reason=Reason.SERVER_BUSY, retry_after=RETRY_SECONDS)


def _code(fault: DBAPIError) -> str | int | None:
    original = fault.orig
    state = getattr(original, "pgcode", None)
    if state is not None:
        return str(state)
    arguments = getattr(original, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def _is_gone(fault: DBAPIError) -> bool:
    code = _code(fault)
    return code in _PG_GONE if isinstance(code, str) else code in _MARIADB_GONE


def _is_collision(fault: DBAPIError) -> bool:
    code = _code(fault)
    return code in _PG_COLLISIONS if isinstance(code, str) else code in _MARIADB_COLLISIONS


def _integrity(fault: IntegrityError, parameters: Mapping[str, Any]) -> Exception:
    text = str(fault.orig)
    code = _code(fault)
    if code in ("23505", 1062) or text.startswith(_SQLITE_TAKEN):
        return _taken(fault, text, parameters)
    if code in ("23503", 1451, 1452) or "FOREIGN KEY" in text:
        owner_missing = re.search(r"fk_\w+__owner_id\b(?!_)", text) or text.startswith("FOREIGN KEY")
        if owner_missing and code != 1451 and "owner_id" in parameters:
            return not_found("user", str(parameters["owner_id"]))
        # The parent was there when it was looked up: a concurrent change won.
        return Collision()
    return UnforeseenFault(fault)


def _taken(fault: IntegrityError, text: str, parameters: Mapping[str, Any]) -> MetaError:
    resource, field = _UNIQUE.get(_constraint(fault, text, parameters), ("resource", "id"))
    if f"{resource}s" in _CLAIMS:
        return Collision()
    if field == "open_document_id":
        return AlreadyExists("the document has an open ingestion job", reason=Reason.JOB_ALREADY_OPEN)
    return exists(resource, field)


def _constraint(fault: IntegrityError, text: str, parameters: Mapping[str, Any]) -> str:
    """Name what is taken. MariaDB says it behind the value, which may hold any words of the caller's."""
    name = getattr(getattr(fault.orig, "diag", None), "constraint_name", None)
    if name is not None:
        return str(name)
    found = re.search(r"for key '(?:(\w+)\.)?(\w+)'\Z", str(getattr(fault.orig, "args", ("",))[-1]))
    if found is None:
        return text.removeprefix(_SQLITE_TAKEN)
    table, name = found.groups()
    if name != "PRIMARY":
        return str(name)
    # MySQL names the table and MariaDB does not; a claim is known by what it alone brings.
    claimed = [name for name, column in _CLAIMS.items() if column in parameters]
    return f"{table or ''.join(claimed)}.PRIMARY"
