"""Every statement over API keys, except the lookup by hash of a call (``auth/store.py``)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.counted import Resource, add, counted
from morag_meta.db.schema import api_key_calls as calls
from morag_meta.db.schema import api_keys as keys
from morag_meta.db.statements import EVERYONE, Path, after_row, end_of_batch, everyone, owned, reach, system
from morag_meta.db.sweep import sweep
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found
from morag_meta.ids import new_id

_NAME: Final = sa.func.coalesce(keys.c.former_name, keys.c.name, type_=keys.c.name.type).label("name")
_SHOWN: Final = [_NAME, *(column for column in keys.c if column.name not in ("key_hash", "name"))]
_GET: Final = sa.select(*_SHOWN).where(keys.c.id == sa.bindparam("key_id"), reach(keys))
_LOCK: Final = _GET.with_for_update()
_BY_PREFIX: Final = sa.select(keys.c.id).where(everyone(), keys.c.key_prefix == sa.bindparam("key_prefix"))
_ADD: Final = counted(sa.insert(keys))
_NO_NAME: Final = "\x1f"
"""What stands, before its id, for the name of a key that has none; no name has a control character."""
_PLAIN: Final[Row] = {
    "former_name": None,
    "description": "",
    "scopes": [],
    "expire_time": None,
    "allowed_addresses": None,
    "rate_per_1000_s": None,
    "rate_burst": None,
    "database_ids": None,
    "server_ids": None,
    "revoke_time": None,
    "disable_time": None,
    "predecessor_id": None,
    "successor_id": None,
    "last_used_time": None,
    "use_count": 0,
    "revision": 1,
}
"""A new key of which nothing is asked; it has no scopes, and so may nothing."""
_WRITABLE: Final = (
    *("name", "description", "scopes", "expire_time", "allowed_addresses", "rate_per_1000_s", "rate_burst"),
)
INHERITED: Final = (*_WRITABLE, "database_ids", "server_ids")
"""What a key that replaces another one has of it."""
_CHANGED: Final = (
    *_WRITABLE,
    *("former_name", "disable_time", "successor_id", "revoke_time", "revision", "update_time"),
)
_CHANGE: Final = (
    sa.update(keys)
    .where(owned(keys), keys.c.id == sa.bindparam("key_id"))
    .values({name: sa.bindparam(f"new_{name}", type_=keys.c[name].type) for name in _CHANGED})
)
_DELETE: Final = sa.delete(keys).where(owned(keys), keys.c.id == sa.bindparam("key_id"))
_DELETE_ALL: Final = sa.delete(keys).where(owned(keys))
_USED: Final = sa.bindparam("used_time", type_=keys.c.last_used_time.type)
_ADD_USE: Final = system(
    sa.update(keys)
    .where(keys.c.id == sa.bindparam("key_id"))
    .values(
        use_count=keys.c.use_count + sa.bindparam("uses", type_=sa.BigInteger()),
        last_used_time=sa.case(
            (
                sa.and_(
                    sa.bindparam("uses", type_=sa.BigInteger()) > 0,
                    sa.or_(keys.c.last_used_time.is_(None), keys.c.last_used_time < _USED),
                ),
                _USED,
            ),
            else_=keys.c.last_used_time,
        ),
    ),
    "the service itself notes the use of every key",
    Path.USAGE,
)

_WHY_COUNTED: Final = "the service itself notes the calls of every key"
_FIGURES: Final = ("calls", "errors", "total_us")
_LONGEST: Final = sa.bindparam("longest_us", type_=sa.BigInteger())
_ADD_CALLS: Final = system(
    sa.update(calls)
    .where(
        calls.c.key_id == sa.bindparam("of_key"),
        calls.c.day == sa.bindparam("of_day", type_=calls.c.day.type),
        calls.c.method == sa.bindparam("of_method"),
    )
    .values(
        {
            **{name: calls.c[name] + sa.bindparam(name, type_=sa.BigInteger()) for name in _FIGURES},
            "longest_us": sa.case((calls.c.longest_us < _LONGEST, _LONGEST), else_=calls.c.longest_us),
        }
    ),
    _WHY_COUNTED,
    Path.USAGE,
)
_FIRST_CALLS: Final = system(
    sa.insert(calls).from_select(
        ["key_id", "owner_id", "day", "method", *_FIGURES, "longest_us"],
        sa.select(
            keys.c.id,
            keys.c.owner_id,
            sa.bindparam("of_day", type_=calls.c.day.type),
            sa.bindparam("of_method", type_=calls.c.method.type),
            *(sa.bindparam(name, type_=sa.BigInteger()) for name in _FIGURES),
            _LONGEST,
        ).where(keys.c.id == sa.bindparam("of_key")),
    ),
    _WHY_COUNTED,
    Path.USAGE,
)
_DELETE_CALLS: Final = sa.delete(calls).where(owned(calls), calls.c.key_id == sa.bindparam("key_id"))
_DELETE_ALL_CALLS: Final = sa.delete(calls).where(owned(calls))
_WHY_SWEPT: Final = "the calls of every key are kept for a time only"
_SWEEP_END: Final = end_of_batch(calls.c.day, _WHY_SWEPT)
_SWEEP: Final = system(sa.delete(calls).where(calls.c.day <= sa.bindparam("last")), _WHY_SWEPT, Path.SWEEPER)


def _calls_by(column: sa.Column[Any]) -> sa.Select[Any]:
    """Sum up the calls of a key between two days, for each value of a column."""
    sums = (sa.cast(sa.func.sum(calls.c[name]), sa.BigInteger).label(name) for name in _FIGURES)
    found = sa.select(column, *sums, sa.func.max(calls.c.longest_us).label("longest_us")).where(
        owned(calls),
        calls.c.key_id == sa.bindparam("key_id"),
        calls.c.day >= sa.bindparam("first", type_=calls.c.day.type),
        calls.c.day <= sa.bindparam("last", type_=calls.c.day.type),
    )
    return found.group_by(column).order_by(column)


_CALLS_BY_DAY: Final = _calls_by(calls.c.day)
_CALLS_BY_METHOD: Final = _calls_by(calls.c.method)


@lru_cache(maxsize=8)
def _page(*, after: bool, all_owners: bool, revoked: bool) -> sa.Select[Any]:
    """The list of keys, newest first: of one owner or of all, with or without revoked ones."""
    conditions: list[sa.ColumnElement[bool]] = [everyone() if all_owners else owned(keys)]
    if not revoked:
        conditions.append(keys.c.revoke_time.is_(None))
    if after:
        conditions += after_row(keys.c.create_time, keys.c.id, descending=True)
    ordered = sa.select(*_SHOWN).where(*conditions).order_by(keys.c.create_time.desc(), keys.c.id.desc())
    return ordered.limit(sa.bindparam("limit"))


class ApiKeyStore:
    """API keys.

    Rows that it gives hold no hash. Their ``name`` is what the key is called, also once it gave that up and
    it is its ``former_name``; another key may then have it.
    """

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: str, key_id: str) -> Row:
        """Give a key in reach.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        return _found(self._unit.one(_GET, owner_id=reach, key_id=key_id), key_id)

    def lock(self, reach: str, key_id: str) -> Row:
        """Give a key in reach, and let nobody else change it before this transaction ends.

        Raises:
            NotFound: as ``get``.
        """
        return _found(self._unit.one(_LOCK, owner_id=reach, key_id=key_id), key_id)

    def ids_by_prefix(self, prefix: str) -> list[str]:
        """Give the ids of all keys, whosever, that begin with the characters that are kept of a key.

        It reads every key: for an operator, and for no call.
        """
        return [row["id"] for row in self._unit.all(_BY_PREFIX, owner_id=EVERYONE, key_prefix=prefix)]

    def page(
        self, reach: str, after: Mapping[str, Any] | None, limit: int, *, show_revoked: bool
    ) -> list[Row]:
        """List keys of an owner, or of all, newest first, at most ``limit`` after the last one given."""
        parameters = {}
        if after is not None:
            parameters = {"after_create_time": after["create_time"], "after_id": after["id"]}
        statement = _page(after=after is not None, all_owners=reach == EVERYONE, revoked=show_revoked)
        return self._unit.all(statement, owner_id=reach, limit=limit, **parameters)

    def add(self, owner_id: str, *, name: str, key_hash: str, key_prefix: str, **given: Any) -> Row:
        """Add a key that was never used; ``given`` are other columns, by default as of a plain key.

        Raises:
            AlreadyExists: the owner has a live key of that name.
            NotFound: the owner does not exist.
        """
        row = {
            **_PLAIN,
            "id": new_id(),
            "owner_id": owner_id,
            "name": name,
            "key_prefix": key_prefix,
            "create_time": self._unit.now,
            "update_time": self._unit.now,
            **given,
        }
        # What replaces another adds nothing by itself; see actions.rotate.
        grown = () if row["predecessor_id"] else (Resource.API_KEYS,)
        add(self._unit, _ADD, {"key_hash": key_hash, **row}, *grown)
        return row

    def change(self, row: Row, **changes: Any) -> Row:
        """Change columns of a locked key, and give the row as it then is.

        Raises:
            AlreadyExists: the owner has another live key of the new name.
        """
        new = {**row, **changes, "revision": row["revision"] + 1, "update_time": self._unit.now}
        values = {f"new_{name}": new[name] for name in _CHANGED}
        if new["former_name"] is not None:
            values["new_name"] = _NO_NAME + row["id"]
        self._unit.run(_CHANGE, owner_id=row["owner_id"], key_id=row["id"], **values)
        return new

    def delete(self, row: Row) -> None:
        """Remove a key, and what is known of its calls."""
        self._unit.run(_DELETE_CALLS, owner_id=row["owner_id"], key_id=row["id"])
        self._unit.run(_DELETE, owner_id=row["owner_id"], key_id=row["id"])

    def delete_all(self, owner_id: str) -> int:
        """Remove every key of an owner, and give their number."""
        self._unit.run(_DELETE_ALL_CALLS, owner_id=owner_id)
        return self._unit.run(_DELETE_ALL, owner_id=owner_id)

    def add_uses(self, uses: Sequence[tuple[str, int, dt.datetime]]) -> None:
        """Add to the counts of keys, as (key id, number of uses, last of them); changes no revision.

        In order of id, so that two processes that write at once do not block each other for good.
        """
        rows = [{"key_id": key_id, "uses": count, "used_time": time} for key_id, count, time in sorted(uses)]
        self._unit.run_many(_ADD_USE, rows)

    def add_calls(self, figures: Sequence[Row]) -> None:
        """Add to the calls of keys; what is of keys that are gone is dropped.

        Each of ``figures`` has of_key, of_day, of_method, calls, errors, total_us and longest_us. In one
        transaction behind ``add_uses`` of the same keys, whose lock keeps two processes from making a row at
        once.
        """
        for each in figures:
            if not self._unit.run(_ADD_CALLS, **each):
                self._unit.run(_FIRST_CALLS, **each)

    def calls_by_day(self, row: Row, first: dt.datetime, last: dt.datetime) -> list[Row]:
        """Sum up the calls of a key by day, from one beginning of a day to another."""
        whose = {"owner_id": row["owner_id"], "key_id": row["id"]}
        return self._unit.all(_CALLS_BY_DAY, first=first, last=last, **whose)

    def calls_by_method(self, row: Row, first: dt.datetime, last: dt.datetime) -> list[Row]:
        """Sum up the calls of a key by method, from one beginning of a day to another."""
        whose = {"owner_id": row["owner_id"], "key_id": row["id"]}
        return self._unit.all(_CALLS_BY_METHOD, first=first, last=last, **whose)

    def sweep_calls(self, age: dt.timedelta, limit: int) -> int:
        """Remove the calls of days so long ago, the oldest first, and give the number of rows.

        Once that is less than ``limit``, none is left.
        """
        return sweep(self._unit, _SWEEP_END, _SWEEP, limit, age)


def _found(row: Row | None, key_id: str) -> Row:
    if row is None:
        raise not_found("api_key", key_id)
    return row
