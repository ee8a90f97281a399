"""The database's clock: what leases, deadlines and whatever is kept for a time are set and compared by.

Processes do not agree on the time, so none of them trusts its own where two of them meet. On SQLite the
database is within the process, and so is its clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from morag_meta.db.types import UtcDateTime
from morag_meta.db.unit import Unit


class Clock(sa.ColumnElement[Any]):
    """The time at which the database runs the statement: aware UTC, microseconds (SQLite: milliseconds)."""

    type = UtcDateTime()
    inherit_cache = True


def _compiled_as(text: str) -> Callable[..., str]:
    def compiled(*_: Any, **__: Any) -> str:
        return text

    return compiled


# On PostgreSQL now() would be the time at which the transaction began.
compiles(Clock, "postgresql")(_compiled_as("statement_timestamp()"))
compiles(Clock, "mysql", "mariadb")(_compiled_as("UTC_TIMESTAMP(6)"))
compiles(Clock, "sqlite")(_compiled_as("strftime('%Y-%m-%d %H:%M:%f000', 'now')"))

clock = Clock().label("clock")
"""The clock as a column of a row that is read."""

_READ: Final = sa.select(clock)


def read_clock(unit: Unit) -> dt.datetime:
    """Ask the database for its time, in a statement of its own: where no row is read that could bring it."""
    row = unit.one(_READ)
    if row is None:
        raise RuntimeError("the database has no time")
    time: dt.datetime = row["clock"]
    return time
