"""Whose rows a statement may reach, told to PostgreSQL where its row security keeps owners apart.

Each statement's reach follows from itself: the path that ``system`` names, the bound owner or EVERYONE, the
bound grantee, or nobody. It travels before the statement in one round trip and holds until the transaction
ends, so neither a pooled connection nor a pooler hands it on. The policies that read it stand in
``policies.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

EVERYONE: Final = "-"
"""The reach of an ADMIN: bound as ``owner_id`` it stands for every owner, and is no user's id."""

SETTING: Final = "morag.reach"
"""The setting of PostgreSQL that holds the reach; empty, as it is by itself, it reaches nothing."""
OWNER: Final = "owner:"
GRANTEE: Final = "grantee:"
PATH: Final = "path:"
_WALLED: Final = "morag row security"  # in what is known of a connection
TOLD: Final = "morag_reach"
"""The execution option that holds what is told of a statement's reach before it."""
_NO_OPTION: Final[dict[str, Any]] = {}


class Path(enum.StrEnum):
    """The ways past the owner, each of which opens what ``policies.OPENED`` says and no more."""

    ADMIN = "admin"  # an ADMIN, and what works for everybody: whoever binds EVERYONE
    LOGIN = "login"  # finds who calls by a credential
    ACCOUNTS = "accounts"  # makes users, and sees that an ADMIN is left
    QUEUE = "queue"  # says which job is next, whoever's
    POLLER = "poller"  # gives events their places, and tells watchers of them
    REAPER = "reaper"  # finds what is overdue
    SWEEPER = "sweeper"  # removes what is old
    USAGE = "usage"  # notes the use of API keys
    PURGE = "purge"  # finds what still names a user who goes
    SECRETS = "secrets"  # finds what an old generation of a secret made


def reach_of(statement: sa.Executable, parameters: Mapping[str, Any]) -> str:
    """Say whose rows a statement may reach with these parameters; empty for nobody's."""
    path: Path | None = statement.get_execution_options().get("system_path")
    if path is not None:
        return PATH + path
    owner = parameters.get("owner_id")
    if owner is not None:
        return PATH + Path.ADMIN if owner == EVERYONE else OWNER + owner
    grantee = parameters.get("grantee_id")
    return "" if grantee is None else GRANTEE + grantee


@lru_cache(maxsize=4096)
def _telling(reach: str) -> str:
    """Write what tells a reach; its ``%`` doubled, as a driver reads it behind which values come."""
    if "\0" in reach:
        raise ValueError("no id has a NUL character")
    quoted = reach.replace("\\", "\\\\").replace("'", "''").replace("%", "%%")
    return f"SET LOCAL {SETTING} = E'{quoted}'; "


class Reach:
    """What one unit of work on a walled connection has told the database in its transaction."""

    def __init__(self) -> None:
        """Begin with nothing told."""
        self._told = ""

    def forget(self) -> None:
        """Know that the transaction has ended, and the setting with it."""
        self._told = ""

    def before(self, statement: sa.Executable, parameters: Mapping[str, Any], *, kept: bool) -> str:
        """Give the text that tells the reach, to run before a statement; empty where it is known.

        ``kept`` says that a transaction is open, which keeps what is told.
        """
        reach = reach_of(statement, parameters)
        if reach == self._told:
            return ""
        if kept:
            self._told = reach
        return _telling(reach)

    def option(
        self, statement: sa.Executable, parameters: Mapping[str, Any], *, kept: bool
    ) -> dict[str, Any]:
        """Give the execution option by which SQLAlchemy runs the text, as ``before`` gives it, as well."""
        return {TOLD: self.before(statement, parameters, kept=kept)}


class NoReach(Reach):
    """That of a connection without row security, of which nothing is told."""

    def before(self, *_: Any, **__: Any) -> str:
        """Give nothing."""
        return ""

    def option(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Give none."""
        return _NO_OPTION


def reach_on(connection: sa.Connection, dialect: str) -> Reach:
    """Give the reach of a unit of work on a connection."""
    return Reach() if dialect == "postgresql" and connection.info.get(_WALLED) else NoReach()


def heed(engine: sa.Engine) -> None:
    """Have each connection of a PostgreSQL engine know whether row security holds for its role."""
    sa.event.listen(engine, "connect", _ask)
    # Not before_cursor_execute, whose listeners mean that somebody wants to hear everything.
    sa.event.listen(engine, "do_execute", _tell_with)
    sa.event.listen(engine, "do_executemany", _tell_before)


def _ask(driver_connection: Any, record: Any) -> None:
    with driver_connection.cursor() as cursor:
        cursor.execute("SELECT row_security_active(to_regclass('users')::oid)")
        record.info[_WALLED] = bool(cursor.fetchone()[0])
    if not driver_connection.autocommit:
        driver_connection.rollback()


def _tell_with(cursor: Any, text: str, parameters: Any, context: Any) -> bool | None:
    told = _told(context)
    if not told:
        return None
    cursor.execute(told + text, parameters)
    return True


def _tell_before(cursor: Any, text: str, parameters: Any, context: Any) -> None:
    del text, parameters
    told = _told(context)
    if told:
        cursor.execute(told, {})


def _told(context: Any) -> str:
    told: str = context.execution_options.get(TOLD, "")
    return told
