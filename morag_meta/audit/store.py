"""Every statement over the audit: its events, which are added and swept and never changed, and pseudonyms.

A user's pseudonym is a row of its own, made with the user and removed with the user. Events name users by it
alone, so that they say no longer who it was once that row is gone.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.audit.rules import Entry
from morag_meta.audit.storable import keeper_of
from morag_meta.db.schema import audit_events as events
from morag_meta.db.schema import audit_subjects as subjects
from morag_meta.db.statements import after_row, end_of_batch
from morag_meta.db.sweep import sweep
from morag_meta.db.unit import Row, Unit

_c = events.c
_KEEP: Final = {column.name: keeper_of(column) for column in _c}
_WHY_SWEPT: Final = "events of everybody go once they are old"


def _named(what: str, given: str) -> sa.ColumnElement[str]:
    """Give the pseudonym of the user bound as ``<what>_user``, or else what is bound as ``given``."""
    found = sa.select(subjects.c.pseudonym).where(subjects.c.user_id == sa.bindparam(f"{what}_user"))
    return sa.func.coalesce(found.scalar_subquery(), sa.bindparam(given, type_=sa.String()))


_PLAIN: Final = tuple(column for column in _c if column.name not in ("subject", "target_id", "owner"))
_ADD: Final = sa.insert(events).values(
    {
        **{column.name: sa.bindparam(f"new_{column.name}", type_=column.type) for column in _PLAIN},
        "subject": _named("subject", "subject_else"),
        "target_id": _named("target", "target_else"),
        "owner": _named("owner", "owner_else"),
    }
)
_WHO: Final = [
    sa.select(subjects.c.user_id)
    .where(subjects.c.pseudonym == _c[column])
    .correlate(events)
    .scalar_subquery()
    .label(label)
    for column, label in (
        ("subject", "subject_user_id"),
        ("target_id", "target_user_id"),
        ("owner", "owner_user_id"),
    )
]
_KNOW: Final = sa.insert(subjects)
_PSEUDONYM: Final = sa.select(subjects.c.pseudonym).where(subjects.c.user_id == sa.bindparam("user"))
_FORGET: Final = sa.delete(subjects).where(subjects.c.user_id == sa.bindparam("user"))
_THERE: Final = sa.select(_c.id).where(
    _c.time >= sa.bindparam("first", type_=_c.time.type),
    _c.time <= sa.bindparam("last", type_=_c.time.type),
    _c.id.in_(sa.bindparam("ids", expanding=True)),
)
_SWEEP_END: Final = end_of_batch(_c.time, _WHY_SWEPT)
_SWEEP: Final = sa.delete(events).where(_c.time <= sa.bindparam("last"))

_CONDITIONS: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "start_time": _c.time >= sa.bindparam("start_time", type_=_c.time.type),
    "end_time": _c.time < sa.bindparam("end_time", type_=_c.time.type),
    "subject": _c.subject == sa.bindparam("subject"),
    "credential_id": _c.credential_id == sa.bindparam("credential_id"),
    "event": _c.event == sa.bindparam("event"),
    "target_id": _c.target_id == sa.bindparam("target_id"),
    "outcome": _c.outcome == sa.bindparam("outcome"),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are meant; a part that is empty lets every event through."""

    start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    subject: str = ""
    credential_id: str = ""
    event: str = ""
    target_id: str = ""
    outcome: str = ""

    def set_parts(self) -> dict[str, Any]:
        """Give the parts that are set."""
        return {name: value for name in _CONDITIONS if (value := getattr(self, name))}


@lru_cache(maxsize=256)
def _page(parts: tuple[str, ...], *, after: bool, descending: bool) -> sa.Select[Any]:
    """The list of events, and who their users are as far as that is known."""
    conditions = [_CONDITIONS[part] for part in parts]
    if after:
        conditions += after_row(_c.time, _c.id, descending=descending)
    order = (_c.time.desc(), _c.id.desc()) if descending else (_c.time, _c.id)
    shown = sa.select(*_c, *_WHO).where(*conditions).order_by(*order)
    return shown.limit(sa.bindparam("limit"))


class AuditStore:
    """The audit."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit
        self._forgotten: dict[str, str] = {}  # pseudonyms of users whom this very unit removed

    def know(self, user_id: str) -> None:
        """Give a new user a pseudonym."""
        self._unit.run(_KNOW, user_id=user_id, pseudonym=secrets.token_hex(16))

    def pseudonym(self, user_id: str) -> str:
        """Give a user's pseudonym; empty where there is no such user any more."""
        found = self._unit.one(_PSEUDONYM, user=user_id)
        return "" if found is None else str(found["pseudonym"])

    def forget(self, user_id: str) -> None:
        """Remove the one row that says whose a pseudonym is."""
        self._forgotten[user_id] = self.pseudonym(user_id)
        self._unit.run(_FORGET, user=user_id)

    def add(self, entry: Entry) -> None:
        """Add one event in this transaction; on PostgreSQL it travels with what is sent next."""
        self._unit.run_soon(_ADD, **self._row(entry))

    def add_all(self, entries: Sequence[Entry]) -> None:
        """Add events that were noted before."""
        self._unit.run_many(_ADD, [self._row(entry) for entry in entries])

    def add_absent(self, entries: Sequence[Entry]) -> None:
        """Add what is not there yet of events of which it is not known whether they were added before.

        ``entries`` are at most some hundreds, each with its time.
        """
        times = [entry.time for entry in entries if entry.time is not None]
        ids = [entry.id for entry in entries]
        found = self._unit.all(_THERE, first=min(times), last=max(times), ids=ids)
        there = {row["id"] for row in found}
        absent = [entry for entry in entries if entry.id not in there]
        if absent:
            self.add_all(absent)

    def page(
        self, wanted: Filter, after: Mapping[str, Any] | None, limit: int, *, descending: bool = True
    ) -> list[Row]:
        """List events by time, at most ``limit`` after the last one given.

        Each has the columns of the table, and ``subject_user_id``, ``target_user_id`` and ``owner_user_id``,
        None where the user is deleted or none is meant.
        """
        given = wanted.set_parts()
        statement = _page(tuple(given), after=after is not None, descending=descending)
        if after is not None:
            given |= {"after_time": after["time"], "after_id": after["id"]}
        return self._unit.all(statement, limit=limit, **given)

    def sweep(self, kept: dt.timedelta, limit: int = 1000) -> int:
        """Remove the oldest events that are older than they are kept, and give their number."""
        return sweep(self._unit, _SWEEP_END, _SWEEP, limit, kept)

    def _row(self, entry: Entry) -> dict[str, Any]:
        values = {
            "id": entry.id,
            "time": entry.time or self._unit.now,
            "count": entry.count,
            "event": entry.event,
            "method": entry.method,
            "outcome": entry.outcome,
            "reason": entry.reason,
            "actor": entry.actor.value,
            "credential_id": entry.credential_id,
            "address": entry.address,
            "agent": entry.agent,
            "target_kind": entry.target_kind,
            "request_id": entry.request_id,
            "fields": dict(entry.fields),
        }
        user, target, owner = map(_KEEP["target_id"], (entry.user_id, entry.target_id, entry.owner_id))
        return {
            **{f"new_{name}": _KEEP[name](value) for name, value in values.items()},
            "subject_user": user,
            "subject_else": self._forgotten.get(user, ""),
            "target_user": target if entry.targets_user else "",
            "target_else": self._forgotten.get(target, "") if entry.targets_user else target,
            "owner_user": owner,
            "owner_else": self._forgotten.get(owner, ""),
        }
