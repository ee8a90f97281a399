"""What the tables are made of: the metadata they stand in, and the columns and constraints they share."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from morag_meta.db.types import UtcDateTime, identifier

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s__%(column_0_N_name)s",
        "uq": "uq_%(table_name)s__%(column_0_N_name)s",
        "ix": "ix_%(table_name)s__%(column_0_N_name)s",
        "ck": "ck_%(table_name)s__%(constraint_name)s",
    }
)


def one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    """Check that a column holds one of some words."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def table(name: str, *items: Any) -> sa.Table:
    """Make a table as the house makes them on each database."""
    return sa.Table(
        name,
        metadata,
        *items,
        **_OPTIONS,
    )


def owner() -> sa.Column[Any]:
    """The user that a row belongs to."""
    return sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False)


def child_of(column: str, parent: str) -> sa.ForeignKeyConstraint:
    """A parent of the same owner."""
    return sa.ForeignKeyConstraint(
        ["owner_id", column], [f"{parent}.owner_id", f"{parent}.id"], ondelete="RESTRICT"
    )


def stamps() -> list[sa.Column[Any]]:
    """``revision`` counts changes, and is what an etag is made of."""
    return [
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("update_time", UtcDateTime, nullable=False),
    ]
