"""Every statement over sessions: log-ins, their refresh tokens as keyed hashes alone, and their ends.

What a credential stands for is ``auth/store.py``'s, and how a session goes on ``users/sessions.py``'s.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.clock import Clock, clock
from morag_meta.db.schema import sessions, users
from morag_meta.db.statements import EVERYONE, Path, after_row, end_of_batch, everyone, owned, reach, system
from morag_meta.db.sweep import sweep
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found

_IS_OPEN: Final = sessions.c.end_time.is_(None)
_ID: Final = sessions.c.id == sa.bindparam("session_id")
_SHOWN: Final = [
    sessions.c[name]
    for name in ("id", "owner_id", "create_time", "refresh_time", "expire_time", "address", "user_agent")
]
_TOKENS: Final = (sessions.c.refresh_hash, sessions.c.previous_hash, sessions.c.rotate_time)

_ADD: Final = sa.insert(sessions).values(create_time=Clock(), refresh_time=Clock())
_FIND: Final = system(
    sa.select(
        sessions.c.id,
        sessions.c.owner_id,
        sessions.c.expire_time,
        sessions.c.end_time,
        *_TOKENS,
        users.c.active,
        clock,
    )
    .join_from(sessions, users, users.c.id == sessions.c.owner_id)
    .where(_ID),
    "the refresh token is the credential that says whose session it is",
    Path.LOGIN,
)
_LOCK: Final = (
    sa.select(
        sessions.c.id, sessions.c.owner_id, sessions.c.expire_time, sessions.c.end_time, *_TOKENS, clock
    )
    .where(_ID, owned(sessions))
    .with_for_update()
)
_KEPT: Final = ("refresh_hash", "previous_hash", "rotate_time", "refresh_time", "address", "user_agent")
_KEEP: Final = (
    sa.update(sessions)
    .where(owned(sessions), _ID)
    .values({name: sa.bindparam(f"new_{name}", type_=sessions.c[name].type) for name in _KEPT})
)
_OWNER: Final = sa.select(sessions.c.owner_id).where(_ID, reach(sessions))
_END: Final = sa.update(sessions).where(owned(sessions), _ID, _IS_OPEN).values(end_time=Clock())
_END_ALL: Final = sa.update(sessions).where(owned(sessions), _IS_OPEN).values(end_time=Clock())
_DELETE_ALL: Final = sa.delete(sessions).where(owned(sessions))
_WHY_SWEPT: Final = "sessions of every user go once they are over"
_SWEEP_END: Final = end_of_batch(sessions.c.expire_time, _WHY_SWEPT)
_SWEEP: Final = system(
    sa.delete(sessions).where(sessions.c.expire_time <= sa.bindparam("last")), _WHY_SWEPT, Path.SWEEPER
)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a session is used, as the peer's address and its user agent say; None for what is not known."""

    address: str | None = None
    user_agent: str | None = None


@lru_cache(maxsize=4)
def _page(*, after: bool, all_owners: bool) -> sa.Select[Any]:
    """The list of open sessions, newest first, of one owner or of all."""
    conditions: list[sa.ColumnElement[bool]] = [everyone() if all_owners else owned(sessions)]
    conditions += [_IS_OPEN, sessions.c.expire_time > Clock()]
    if after:
        conditions += after_row(sessions.c.create_time, sessions.c.id, descending=True)
    ordered = sa.select(*_SHOWN).where(*conditions)
    ordered = ordered.order_by(sessions.c.create_time.desc(), sessions.c.id.desc())
    return ordered.limit(sa.bindparam("limit"))


class SessionStore:
    """Log-ins."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def add(
        self,
        owner_id: str,
        session_id: str,
        *,
        refresh_hash: str,
        expire_time: dt.datetime,
        device: Device = Device(),
    ) -> None:
        """Open a session, which ends by the database's clock."""
        row = {
            "id": session_id,
            "owner_id": owner_id,
            "refresh_hash": refresh_hash,
            "previous_hash": None,
            "rotate_time": None,
            "expire_time": expire_time,
            "end_time": None,
            "address": device.address,
            "user_agent": device.user_agent,
        }
        self._unit.run(_ADD, **row)

    def find(self, session_id: str) -> Row | None:
        """Give a session with its tokens' hashes, also when it is over.

        Keys: id, owner_id, expire_time, end_time, refresh_hash, previous_hash, rotate_time, active, which is
        its user's, and clock, the database's time.
        """
        return self._unit.one(_FIND, session_id=session_id)

    def lock(self, owner_id: str, session_id: str) -> Row | None:
        """Give a session as ``find`` does, without ``active``, and let nobody else change it meanwhile."""
        return self._unit.one(_LOCK, owner_id=owner_id, session_id=session_id)

    def rotate(self, row: Row, refresh_hash: str, device: Device) -> None:
        """Give a locked session another refresh token; the present one becomes the previous one."""
        tokens = {"refresh_hash": refresh_hash, "previous_hash": row["refresh_hash"]}
        self._keep(row, device, **tokens, rotate_time=row["clock"])

    def touch(self, row: Row, device: Device) -> None:
        """Note that a locked session was refreshed, by the token that it replaced last."""
        tokens = {column.name: row[column.name] for column in _TOKENS}
        self._keep(row, device, **tokens)

    def owner(self, reach: str, session_id: str) -> str:
        """Say whose a session in reach is, also when it is over.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        row = self._unit.one(_OWNER, owner_id=reach, session_id=session_id)
        if row is None:
            raise not_found("session", session_id)
        return str(row["owner_id"])

    def page(self, reach: str, after: Mapping[str, Any] | None, limit: int) -> list[Row]:
        """List open sessions of an owner, or of all, newest first, at most ``limit`` after the last one."""
        parameters = {}
        if after is not None:
            parameters = {"after_create_time": after["create_time"], "after_id": after["id"]}
        statement = _page(after=after is not None, all_owners=reach == EVERYONE)
        return self._unit.all(statement, owner_id=reach, limit=limit, **parameters)

    def end(self, owner_id: str, session_id: str) -> bool:
        """End one session now; False when it was over."""
        return self._unit.run(_END, owner_id=owner_id, session_id=session_id) == 1

    def end_all(self, owner_id: str) -> int:
        """End every open session of a user now, and give their number."""
        return self._unit.run(_END_ALL, owner_id=owner_id)

    def delete_all(self, owner_id: str) -> int:
        """Remove every session of a user, and give their number."""
        return self._unit.run(_DELETE_ALL, owner_id=owner_id)

    def sweep(self, limit: int = 1000) -> int:
        """Remove the sessions that expired first, and give their number.

        Once that is less than ``limit``, none is left.
        """
        return sweep(self._unit, _SWEEP_END, _SWEEP, limit)

    def _keep(self, row: Row, device: Device, **tokens: Any) -> None:
        values = {**tokens, "refresh_time": row["clock"]}
        values |= {"address": device.address, "user_agent": device.user_agent}
        new = {f"new_{name}": value for name, value in values.items()}
        self._unit.run(_KEEP, owner_id=row["owner_id"], session_id=row["id"], **new)
