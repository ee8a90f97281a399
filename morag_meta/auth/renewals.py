"""Every statement that renews what an old generation of a secret made: keyed hashes and sealed credentials.

Each walks along an index and takes a batch of rows that are not of the generation that makes now. A row is
changed only where it still is as it was read, so that any number may renew at once, be killed, and begin
anew. Tries are moved by ``auth/tries.py``, what is of which generation is counted by ``auth/makers.py``, and
when what is renewed stands in ``server/renewing.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.credentials import seal_of
from morag_meta.db.clock import Clock
from morag_meta.db.schema import api_keys, password_resets, request_records, servers, sessions, tries
from morag_meta.db.statements import Path, owned, system
from morag_meta.db.unit import Row, Unit

_WHY: Final = "a change of the service's secret concerns what everybody has"


@dataclass(frozen=True, slots=True)
class Hashed:
    """A column of keyed hashes: how its rows are walked along, and by what each is found again."""

    name: str
    column: sa.Column[Any]
    order: sa.Column[Any]
    key: tuple[sa.Column[Any], ...]

    @property
    def table(self) -> Any:
        """The table that has the column."""
        return self.column.table


KEYS: Final = Hashed("api_keys", api_keys.c.key_hash, api_keys.c.id, (api_keys.c.owner_id, api_keys.c.id))
RESETS: Final = Hashed(
    "password_resets",
    password_resets.c.token_hash,
    password_resets.c.owner_id,
    (password_resets.c.owner_id,),
)
REQUESTS: Final = Hashed(
    "request_records",
    request_records.c.fingerprint,
    request_records.c.create_time,
    (request_records.c.owner_id, request_records.c.method, request_records.c.request_id),
)
TRIES: Final = Hashed(
    "tries", tries.c.account, tries.c.expire_time, (tries.c.kind, tries.c.account, tries.c.address)
)

SEALED: Final = (servers.c.password_sealed, servers.c.api_key_sealed)


def begins(column: sa.Column[Any], name: str = "prefix") -> sa.ColumnElement[bool]:
    """Whether a text begins with what ``beginning`` binds; letters' case counts on every database."""
    beginning = sa.bindparam(name, type_=sa.String())
    return sa.func.substr(column, 1, sa.bindparam(f"{name}_length", type_=sa.Integer)) == beginning


def beginning(prefix: str, name: str = "prefix") -> dict[str, Any]:
    """Give what ``begins`` of that name binds."""
    return {name: prefix, f"{name}_length": len(prefix)}


def _old(hashed: Hashed) -> sa.ColumnElement[bool]:
    old = sa.not_(begins(hashed.column))
    return sa.and_(old, hashed.column != "") if hashed is TRIES else old  # of addresses, whoever it was


def _batch(hashed: Hashed, *, after: bool) -> sa.Select[Any]:
    columns = dict.fromkeys((*hashed.key, hashed.order, hashed.column))
    batch = sa.select(*columns).where(_old(hashed)).order_by(hashed.order)
    if after:
        batch = batch.where(hashed.order >= sa.bindparam("after", type_=hashed.order.type))
    return system(batch.limit(sa.bindparam("limit", type_=sa.Integer)), _WHY, Path.SECRETS)


def _bound(key: sa.Column[Any]) -> str:
    return key.name if key.name == "owner_id" else f"of_{key.name}"


def _renew(hashed: Hashed) -> sa.Update:
    same = [key == sa.bindparam(_bound(key)) for key in hashed.key]
    unchanged = hashed.column == sa.bindparam("was")
    return sa.update(hashed.table).where(*same, unchanged).values({hashed.column: sa.bindparam("new")})


_HASHES: Final = (KEYS, RESETS, REQUESTS)
_BATCHES: Final = {
    (each.name, after): _batch(each, after=after) for each in (*_HASHES, TRIES) for after in (False, True)
}
_RENEWALS: Final = {each.name: _renew(each) for each in _HASHES}
_OLD_SEALS: Final = sa.or_(*(sa.and_(column.is_not(None), sa.not_(begins(column))) for column in SEALED))
_SERVERS: Final = system(
    sa.select(servers.c.id, servers.c.owner_id, *SEALED)
    .where(_OLD_SEALS, servers.c.id >= sa.bindparam("after"))
    .order_by(servers.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer)),
    _WHY,
    Path.SECRETS,
)
_RESEAL: Final = {
    column.name: sa.update(servers)
    .where(owned(servers), servers.c.id == sa.bindparam("of_id"), column == sa.bindparam("was"))
    .values({column: sa.bindparam("new")})
    for column in SEALED
}

_OPEN: Final = sa.and_(
    sessions.c.end_time.is_(None),
    sessions.c.expire_time > Clock(),
    sa.not_(begins(sessions.c.refresh_hash)),
)
_OLD_SESSIONS: Final = system(
    sa.select(sa.func.count().label("rows"), sa.func.max(sessions.c.expire_time).label("last")).where(_OPEN),
    _WHY,
    Path.SECRETS,
)
_END_SESSIONS: Final = system(sa.update(sessions).where(_OPEN).values(end_time=Clock()), _WHY, Path.SECRETS)


class RenewalStore:
    """What an old generation made."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def old(self, hashed: Hashed, generation: str, after: Any, limit: int) -> list[Row]:
        """Give a batch of rows whose hash is of another generation, in the order of ``hashed``.

        It begins with rows at ``after``, None for the first ones.
        """
        where = {} if after is None else {"after": after}
        statement = _BATCHES[hashed.name, after is not None]
        return self._unit.all(statement, limit=limit, **beginning(f"{generation}."), **where)

    def renew(self, hashed: Hashed, rows: Sequence[tuple[Row, str]]) -> None:
        """Give each row its new hash, unless it has changed meanwhile."""
        column = hashed.column.name
        for row, new in rows:  # one by one, as each is within its own owner's reach
            self._unit.run(_RENEWALS[hashed.name], **_found(hashed, row), was=row[column], new=new)

    def sealed(self, key_id: str, after: str, limit: int) -> list[Row]:
        """Give servers with a credential that another key than this one sealed, in the order of their ids."""
        return self._unit.all(_SERVERS, after=after, limit=limit, **beginning(seal_of(key_id)))

    def reseal(self, row: Row, name: str, sealed: str) -> None:
        """Write a credential that was sealed anew, unless it was changed meanwhile."""
        given = {"owner_id": row["owner_id"], "of_id": row["id"]}
        self._unit.run(_RESEAL[name], **given, was=row[name], new=sealed)

    def old_sessions(self, generation: str) -> Row:
        """Give ``rows``, the number of open sessions whose refresh token another key made, and ``last``.

        That is when the last of them ends; None where there are none.
        """
        found = self._unit.one(_OLD_SESSIONS, **beginning(f"{generation}."))
        return found or {"rows": 0, "last": None}

    def end_sessions(self, generation: str) -> int:
        """End those sessions now, and give their number."""
        return self._unit.run(_END_SESSIONS, **beginning(f"{generation}."))


def _found(hashed: Hashed, row: Row) -> dict[str, Any]:
    return {_bound(key): row[key.name] for key in hashed.key}
