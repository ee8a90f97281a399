"""Which waiting jobs somebody wants, as a condition on their rows, and how they are ordered.

In whose turn they come, where several owners have some, stands in ``turns.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.narrowing import Narrowing
from morag_meta.db.clock import Clock, clock
from morag_meta.db.schema import documents, jobs
from morag_meta.db.statements import within
from morag_meta.db.unit import Row

WAITING_STATES: Final = ("PENDING", "WAITING_FOR_REMOTE_WORKER")
LIMIT: Final[sa.BindParameter[int]] = sa.bindparam("limit", type_=sa.Integer)

_c = jobs.c
SHOWN: Final = (
    *(_c.id, _c.owner_id, _c.state, _c.kind, _c.document_id, _c.document_type),
    *(_c.priority, _c.queue, _c.ready_time, _c.database_id),
    *(_c.queue_time, _c.close_time, _c.schedule_to_start_ms, _c.fallback_delay_ms, clock),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which waiting jobs a worker takes; an empty part lets every job through.

    Within a narrowing are those whose document was, and is, in one of its databases.
    """

    reach: str
    states: tuple[str, ...] = WAITING_STATES
    kinds: tuple[str, ...] = ()
    document_types: tuple[str, ...] = ()
    narrowing: Narrowing | None = None
    without: frozenset[str] = frozenset()
    """The ids of jobs that are passed by."""

    @property
    def lists(self) -> dict[str, list[str]]:
        """Give what is bound where kinds or document types are chosen, or jobs are narrowed or passed by."""
        lists = {"kinds": self.kinds, "document_types": self.document_types, "without": sorted(self.without)}
        bound = {} if self.narrowing is None else self.narrowing.bound
        return {name: list(values) for name, values in lists.items() if values} | bound

    @property
    def chosen(self) -> frozenset[str]:
        """Name the lists by which jobs are chosen: by them a statement is known."""
        return frozenset(self.lists)


def conditions(row: Any, chosen: frozenset[str]) -> list[sa.ColumnElement[bool]]:
    """Let the columns of a waiting job pass whose time has come, by the lists that are chosen.

    What is overdue is the reaper's, but for what may only be left to local workers.
    """
    columns = {"kinds": row.kind, "document_types": row.document_type}
    return [
        *(columns[name].in_(sa.bindparam(name, expanding=True)) for name in sorted(chosen & columns.keys())),
        *([row.id.not_in(sa.bindparam("without", expanding=True))] if "without" in chosen else []),
        *_narrowed(row, chosen - columns.keys() - {"without"}),
        sa.or_(row.not_before.is_(None), row.not_before <= Clock()),
        sa.or_(row.due_time > Clock(), row.state == "WAITING_FOR_REMOTE_WORKER"),
    ]


def _narrowed(row: Any, named: frozenset[str]) -> list[sa.ColumnElement[bool]]:
    """Let jobs pass whose own database, and that of their document now, lies within what is named."""
    if not named:
        return []
    shape = "both" if len(named) > 1 else min(named).removeprefix("within_")
    now_in = (
        sa.select(documents.c.database_id)
        .where(documents.c.id == row.document_id)
        .correlate(row.document_id.table)  # by name, as within another subquery it would not be
        .scalar_subquery()
    )
    return [within(column, shape, row_by_row=True) for column in (row.database_id, now_in)]


def order(row: Row) -> tuple[Any, ...]:
    """Say where a job of an owner comes among the owner's: by priority, and then by age."""
    return -row["priority"], row["ready_time"], row["id"]
