"""Column types of the house, so that one schema means the same on SQLite, PostgreSQL and MariaDB.

What does not live here: the tables (``db/schema.py``) and conversion to messages (``*/convert.py``).
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine


class UtcDateTime(TypeDecorator[dt.datetime]):
    """An aware UTC time with microseconds.

    PostgreSQL keeps TIMESTAMPTZ, MariaDB DATETIME(6), SQLite text that sorts as time does.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type with microseconds of the dialect."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Refuse naive times, and hand the driver UTC in the form it keeps."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time reached the database; times are aware UTC")
        value = value.astimezone(dt.UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Give back aware UTC."""
        if value is None or value.tzinfo is dt.UTC:
            return value
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Json(TypeDecorator[Any]):
    """A JSON value kept as text, so that numbers and key order come back as they were sent."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose a text large enough for the largest metadata (MariaDB's TEXT ends at 64 KiB)."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.MEDIUMTEXT())
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TEXT())
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write compact JSON; infinities and NaN are refused."""
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read the JSON text back."""
        return None if value is None else json.loads(value)


class LongText(TypeDecorator[str]):
    """Free text of up to a mebibyte."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """MariaDB's TEXT ends at 64 KiB, so it takes MEDIUMTEXT."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.MEDIUMTEXT())
        return dialect.type_descriptor(sa.Text())


def identifier() -> sa.String:
    """A UUID in its canonical 36 characters."""
    return sa.String(36)
