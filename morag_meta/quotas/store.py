"""Every statement over quotas, and the counting of what they bound.

A user's quotas are locked last of all that a transaction locks, at its commit, and whoever holds them locks
nothing more; so they add no way for two transactions to wait for each other. Once they are locked, all is
counted that was committed by whoever held them before; so what was counted stays true until the commit.
Who is bounded by the installation's defaults alone gets a row without limits, to be locked likewise.
What is counted stands in the tables themselves: a counter of its own would have to be kept by everything
that ends, deletes or shrinks something, and could drift.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.counted import Resource
from morag_meta.db.schema import api_keys, databases, documents, jobs, quotas, servers
from morag_meta.db.statements import owned
from morag_meta.db.unit import Row, Unit
from morag_meta.quotas.rules import Use, check

RESOURCES: Final = tuple(Resource)
_NEVER: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # when limits were set of whom none ever was
_GET: Final = sa.select(quotas).where(owned(quotas))
_LOCK: Final = _GET.with_for_update()
_ADD: Final = sa.insert(quotas)
_CHANGE: Final = (
    sa.update(quotas)
    .where(owned(quotas))
    .values({name: sa.bindparam(f"new_{name}") for name in (*RESOURCES, "update_time")})
)
_DELETE: Final = sa.delete(quotas).where(owned(quotas))


def _number(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0)), 0)


# States are named one by one that the indexes which lead with them are used.
_LIVE: Final = documents.c.state.in_(("PENDING", "INGESTING", "INGESTED", "DEPRECATED"))
_OPEN: Final = jobs.c.state.in_(("PENDING", "WAITING_FOR_REMOTE_WORKER", "PROCESSING"))
# What was replaced works on for a while, and does not count, so that a key can be replaced at the limit; of
# those only that go beyond one for each that was not, or replacing again and again would pass every limit.
_NOT_REPLACED: Final = _number(api_keys.c.successor_id.is_(None))
_IN_GRACE: Final = _number(
    api_keys.c.successor_id.is_not(None),
    api_keys.c.expire_time > sa.bindparam("now", type_=api_keys.c.expire_time.type),
)
_KEYS: Final = sa.case((_IN_GRACE > _NOT_REPLACED, _IN_GRACE), else_=_NOT_REPLACED).label("used")
_COUNT: Final = sa.func.count().label("used")
_BYTES: Final = sa.func.coalesce(sa.func.sum(documents.c.size_bytes), 0).label("used")
_COUNTS: Final[Mapping[Resource, tuple[sa.Table, sa.Label[Any], tuple[sa.ColumnElement[bool], ...]]]] = {
    Resource.DOCUMENTS: (documents, _COUNT, (_LIVE,)),
    Resource.STORAGE_BYTES: (documents, _BYTES, (_LIVE,)),
    Resource.DATABASES: (databases, _COUNT, ()),
    Resource.SERVERS: (servers, _COUNT, ()),
    Resource.API_KEYS: (api_keys, _KEYS, (api_keys.c.revoke_time.is_(None),)),
    Resource.OPEN_JOBS: (jobs, _COUNT, (_OPEN,)),
}


@cache
def _uses(resources: frozenset[Resource]) -> sa.CompoundSelect[Any]:
    return sa.union_all(
        *(
            sa.select(sa.literal_column(f"'{resource}'").label("resource"), used)
            .select_from(table)
            .where(owned(table), *conditions)
            for resource, (table, used, conditions) in _COUNTS.items()
            if resource in resources
        )
    )


class QuotaStore:
    """The quotas of users; who has no limit of their own has the installation's, if there is one."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, owner_id: str) -> Row:
        """Give a user's own limits; ``update_time`` is None where none was ever set."""
        return _known(owner_id, self._unit.one(_GET, owner_id=owner_id))

    @property
    def defaults(self) -> Mapping[str, int]:
        """The limits of who has none of their own, by resource."""
        return self._unit.default_quotas

    def uses(self, owner_id: str, limits: Row, resources: Collection[Resource] = RESOURCES) -> list[Use]:
        """Count what a user has of resources."""
        used = self._count(owner_id, resources)
        return [self._use(resource, used[resource], limits) for resource in RESOURCES if resource in used]

    def count(self, owner_id: str, resource: Resource) -> int:
        """Count what a user has of a resource."""
        return self._count(owner_id, {resource})[resource]

    def check(self, owner_id: str, grown: Collection[Resource]) -> list[str]:
        """Lock the quotas of a user who has more of something now, and give the warnings.

        Raises:
            QuotaExceeded: a limit is passed.
        """
        row = self._unit.one(_LOCK, owner_id=owner_id)
        limits = _known(owner_id, row)
        bounded = [each for each in grown if limits[each] is not None or each in self.defaults]
        if bounded and row is None:
            self._unit.run(_ADD, **{**limits, "update_time": _NEVER})  # of two at once, one does it all again
        return check(owner_id, self.uses(owner_id, limits, bounded)) if bounded else []

    def set(
        self, owner_id: str, limits: Mapping[str, int | None], matches: Callable[[Row], None] | None = None
    ) -> Row:
        """Set limits of a user whose row is locked, and give all of them.

        ``matches`` sees those of before once they are locked, and may raise.
        """
        old = self._unit.one(_LOCK, owner_id=owner_id)
        if matches is not None:
            matches(_known(owner_id, old))
        new = {**_known(owner_id, old), **limits, "update_time": self._unit.now}
        if old is None:
            self._unit.run(_ADD, **new)
        else:
            written = {f"new_{name}": new[name] for name in (*RESOURCES, "update_time")}
            self._unit.run(_CHANGE, owner_id=owner_id, **written)
        return new

    def delete_all(self, owner_id: str) -> None:
        """Remove the quotas of a user."""
        self._unit.run(_DELETE, owner_id=owner_id)

    def _count(self, owner_id: str, resources: Collection[Resource]) -> dict[str, int]:
        now = {"now": self._unit.now} if Resource.API_KEYS in resources else {}
        rows = self._unit.all(_uses(frozenset(resources)), owner_id=owner_id, **now)
        return {row["resource"]: int(row["used"]) for row in rows}

    def _use(self, resource: Resource, used: int, limits: Row) -> Use:
        own, default = limits[resource], self.defaults.get(resource)
        return Use(resource, used, default if own is None else own, own is None and default is not None)


def _known(owner_id: str, row: Row | None) -> Row:
    if row is None:
        return {"owner_id": owner_id, **dict.fromkeys(RESOURCES), "update_time": None}
    return {**row, "update_time": None} if row["update_time"] == _NEVER else row
