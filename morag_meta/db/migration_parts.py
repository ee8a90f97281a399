"""Columns and constraints for the tables of a revision, named as ``db/schema.py`` names them.

History is built of them: what a function here makes never changes; what is new gets a new function. The
steps that take them stand in ``db/migration_steps.py``.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from alembic import op

from morag_meta.db.types import Json, LongText, UtcDateTime


def texts(length: int, *names: str, null: bool = False) -> list[sa.Column[str]]:
    """Make columns of at most ``length`` characters."""
    return [sa.Column(name, sa.String(length), nullable=null) for name in names]


def ids(*names: str, null: bool = False) -> list[sa.Column[str]]:
    """Make columns of UUIDs in their canonical 36 characters."""
    return texts(36, *names, null=null)


def long_texts(*names: str, null: bool = False) -> list[sa.Column[str]]:
    """Make columns of text of up to a mebibyte."""
    return [sa.Column(name, LongText(), nullable=null) for name in names]


def jsons(*names: str, null: bool = False) -> list[sa.Column[Any]]:
    """Make columns of JSON kept as text."""
    return [sa.Column(name, Json(), nullable=null) for name in names]


def numbers(*names: str, null: bool = False) -> list[sa.Column[int]]:
    """Make columns of 32-bit integers."""
    return [sa.Column(name, sa.Integer(), nullable=null, autoincrement=False) for name in names]


def long_numbers(*names: str, null: bool = False) -> list[sa.Column[int]]:
    """Make columns of 64-bit integers."""
    return [sa.Column(name, sa.BigInteger(), nullable=null, autoincrement=False) for name in names]


def flags(*names: str) -> list[sa.Column[bool]]:
    """Make columns of yes or no."""
    return [sa.Column(name, sa.Boolean(), nullable=False) for name in names]


def times(*names: str, null: bool = False) -> list[sa.Column[dt.datetime]]:
    """Make columns of UTC times with microseconds."""
    return [sa.Column(name, UtcDateTime(), nullable=null) for name in names]


def blobs(*names: str) -> list[sa.Column[bytes]]:
    """Make columns of bytes (64 KiB on MariaDB)."""
    return [sa.Column(name, sa.LargeBinary(), nullable=False) for name in names]


def stamps() -> list[sa.Column[Any]]:
    """Make the columns of every resource that changes."""
    return [*numbers("revision"), *times("create_time", "update_time")]


def primary_key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    """Make the primary key."""
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def unique(table: str, *columns: str) -> sa.UniqueConstraint:
    """Make a unique constraint."""
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}__{'_'.join(columns)}"))


def check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    """Make a check."""
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}__{name}"))


def one_of(table: str, column: str, *values: str) -> sa.CheckConstraint:
    """Make the check that a column holds one of some words."""
    return check(table, column, f"{column} IN ({', '.join(repr(value) for value in values)})")


def parent(table: str, *columns: str, of: str) -> sa.ForeignKeyConstraint:
    """Make the foreign key from an id, or from (owner_id, id), to that of the table ``of``."""
    remote = ["id"] if len(columns) == 1 else ["owner_id", "id"]
    return sa.ForeignKeyConstraint(
        columns,
        [f"{of}.{name}" for name in remote],
        name=op.f(f"fk_{table}__{'_'.join(columns)}"),
        ondelete="RESTRICT",
    )
