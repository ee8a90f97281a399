"""The statements that count jobs and say how long they took.

Every figure is an aggregate that the database makes, over what ``listing.py``'s conditions let through; how
they become a message stands in ``figures.py``.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from morag_meta.db.clock import clock
from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Unit
from morag_meta.jobs.listing import Filter, conditions_of, parameters_of
from morag_meta.jobs.rules import TRANSITIONS

MOST_KEYS: Final = 100
PERCENTILES: Final = (50, 95, 99)

_c = jobs.c
_OPEN_STATES: Final = tuple(sorted({state for state, _ in TRANSITIONS}))


class UtcDay(FunctionElement[str]):
    """The day of a time in UTC, YYYY-MM-DD."""

    type = sa.String()
    inherit_cache = True


@compiles(UtcDay)
def _first_ten_characters(element: UtcDay, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite and MariaDB keep times in UTC, and write them as YYYY-MM-DD HH:MM:SS.
    return f"substr({compiler.process(element.clauses, **kw)}, 1, 10)"


@compiles(UtcDay, "postgresql")
def _written_in_utc(element: UtcDay, compiler: SQLCompiler, **kw: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **kw)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


_KEYS: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    "state": _c.state,
    "kind": _c.kind,
    "document_type": sa.func.coalesce(_c.document_type, ""),
    "day": UtcDay(_c.create_time),
}


@dataclass(frozen=True, slots=True)
class Times:
    """How long the FINISHED jobs took, in milliseconds; ``percentiles`` by nearest rank."""

    mean: float
    percentiles: Mapping[int, int]


class JobStats:
    """The figures of one unit of work, which is to be a snapshot if they are to agree."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def counts(self, chosen: Filter, since: dt.datetime, key: str) -> dict[str, int]:
        """Count the jobs made since a time by ``state``, ``kind``, ``document_type`` or ``day``.

        At most 100 kinds or types are given, the most frequent ones, and every day.
        """
        statement = _counts(*_shape(chosen), key)
        rows = self._unit.all(statement, since=since, **parameters_of(chosen))
        return {row["found"]: row["jobs"] for row in rows}

    def times(self, chosen: Filter, since: dt.datetime) -> Times | None:
        """Say how long the FINISHED jobs among those made since a time took; None where there are none."""
        given = {"since": since, **parameters_of(chosen)}
        totals = self._unit.one(_totals(*_shape(chosen)), **given)
        if totals is None or not totals["jobs"]:
            return None
        count = int(totals["jobs"])
        percentiles = {}
        for percent in PERCENTILES:
            before = math.ceil(percent * count / 100) - 1
            row = self._unit.one(_ranked(*_shape(chosen)), before=before, **given)
            percentiles[percent] = 0 if row is None else int(row["run_ms"])
        return Times(int(totals["milliseconds"]) / count, percentiles)

    def oldest_open_age(self, chosen: Filter) -> dt.timedelta | None:
        """Say how long ago, by the database's clock, the oldest job that has not ended was made."""
        row = self._unit.one(_oldest(*_shape(chosen)), **parameters_of(chosen))
        if row is None or row["oldest"] is None:
            return None
        age: dt.timedelta = row["clock"] - row["oldest"]
        return max(age, dt.timedelta())


def _shape(chosen: Filter) -> tuple[bool, tuple[str, ...]]:
    return chosen.owner_id == EVERYONE, chosen.shape()


def _made(of_everyone: bool, shape: tuple[str, ...]) -> list[sa.ColumnElement[bool]]:  # noqa: FBT001 - as in the cached ones
    since = sa.bindparam("since", type_=_c.create_time.type)
    return [*conditions_of(of_everyone, shape), _c.create_time >= since]


def _finished(of_everyone: bool, shape: tuple[str, ...]) -> list[sa.ColumnElement[bool]]:  # noqa: FBT001 - as in the cached ones
    return [*_made(of_everyone, shape), _c.state == "FINISHED", _c.run_ms.is_not(None)]


@lru_cache(maxsize=512)
def _counts(of_everyone: bool, shape: tuple[str, ...], key: str) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    found, number = _KEYS[key].label("found"), sa.func.count().label("jobs")
    counts = sa.select(found, number).where(*_made(of_everyone, shape)).group_by(found)
    return counts if key == "day" else counts.order_by(number.desc(), found).limit(MOST_KEYS)


@lru_cache(maxsize=512)
def _totals(of_everyone: bool, shape: tuple[str, ...]) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    totals: tuple[Any, ...] = (sa.func.count().label("jobs"), sa.func.sum(_c.run_ms).label("milliseconds"))
    return sa.select(*totals).where(*_finished(of_everyone, shape))


@lru_cache(maxsize=512)
def _ranked(of_everyone: bool, shape: tuple[str, ...]) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    before = sa.bindparam("before", type_=sa.Integer)
    times: Any = sa.select(_c.run_ms).where(*_finished(of_everyone, shape)).order_by(_c.run_ms)
    statement: sa.Select[Any] = times.limit(1).offset(before)
    return statement


@lru_cache(maxsize=512)
def _oldest(of_everyone: bool, shape: tuple[str, ...]) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    is_open = _c.state.in_(_OPEN_STATES)
    oldest = sa.func.min(_c.create_time).label("oldest")
    return sa.select(oldest, clock).where(*conditions_of(of_everyone, shape), is_open)
