"""Rows that count against a quota: a unit that adds to what a user has notes it, and its commit looks.

An insert asks by the way, in its own statement, whether the owner has quotas at all; so who has none, where
none hold by default, pays for no other. What is counted, and what a limit does, stands in
``morag_meta/quotas``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import quotas
from morag_meta.db.unit import Row, Unit

_LIMITED: Final = "limited"


class Resource(enum.StrEnum):
    """What can be bounded; the names of the columns of ``quotas`` and of the fields of ``Quotas``."""

    DOCUMENTS = "documents"
    STORAGE_BYTES = "storage_bytes"
    DATABASES = "databases"
    SERVERS = "servers"
    API_KEYS = "api_keys"
    OPEN_JOBS = "open_jobs"


def is_limited(table: sa.Table) -> sa.Label[int]:
    """Say of a row of a table, as the column ``limited``, whether its owner has quotas: 1 or 0."""
    found = sa.select(sa.func.count()).select_from(quotas).where(quotas.c.owner_id == table.c.owner_id)
    return found.correlate(table).scalar_subquery().label(_LIMITED)


def counted(insert: sa.Insert) -> Any:
    """Give the form of an insert that ``add`` runs."""
    found = (
        sa.select(sa.func.count()).select_from(quotas).where(quotas.c.owner_id == sa.bindparam("quotas_of"))
    )
    return insert.returning(found.scalar_subquery().label(_LIMITED))


def add(unit: Unit, statement: sa.Executable, row: dict[str, Any], *resources: Resource, **asked: Any) -> Row:
    """Insert a row that counts against the quotas of its owner, by a ``counted`` statement.

    Gives what the statement returns; ``asked`` is bound for what it returns beside.

    Raises:
        MetaError: as ``Unit.one``. That a quota is passed shows at the commit.
    """
    (added,) = unit.all(statement, **row, **asked, quotas_of=row["owner_id"])
    if added[_LIMITED] or _by_default(unit, resources):
        note_growth(unit, row["owner_id"], *resources)
    return added


def note_growth(unit: Unit, owner_id: str, *resources: str) -> None:
    """Note that a user has more of something, so that the commit looks at the user's quotas."""
    if resources:
        unit.grown.setdefault(owner_id, set()).update(resources)


def note_change(unit: Unit, row: Any, *resources: str) -> None:
    """Note as ``note_growth`` for the owner of a row that was locked with ``is_limited``."""
    if row.get(_LIMITED, 1) or _by_default(unit, resources):
        note_growth(unit, row["owner_id"], *resources)


def _by_default(unit: Unit, resources: Iterable[str]) -> bool:
    return any(resource in unit.default_quotas for resource in resources)
