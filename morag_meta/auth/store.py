"""The rows behind credentials: sessions, the epoch of authorization, and what a credential stands for.

The epoch is one number in one row. Whatever may take standing away from a cached principal raises it in
the same transaction; every process reads it each second and drops what it cached under an older one
(``auth/epoch.py``). Who changes a user or ends a session locks the epoch's row before all others, so that
such changes, the protection of the last ADMIN among them, follow one another.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import api_keys, auth_epoch, sessions, users
from morag_meta.db.statements import end_of_batch, owned, system
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import Reason, Unavailable
from morag_meta.ids import new_id

EPOCH_TOPIC: Final = "auth_epoch:"
"""What a unit of work announces when it raised the epoch; the new one follows."""

_EPOCH: Final = sa.select(auth_epoch.c.epoch).where(auth_epoch.c.id == 1)
_LOCK_EPOCH: Final = _EPOCH.with_for_update()
_BUMP: Final = sa.update(auth_epoch).where(auth_epoch.c.id == 1).values(epoch=auth_epoch.c.epoch + 1)

_ADD_SESSION: Final = sa.insert(sessions)
_BY_REFRESH: Final = system(
    sa.select(
        sessions.c.id.label("session_id"),
        sessions.c.expire_time,
        sessions.c.end_time,
        users.c.id.label("user_id"),
        users.c.role,
        users.c.active,
    )
    .join_from(sessions, users, users.c.id == sessions.c.owner_id)
    .where(sessions.c.refresh_hash == sa.bindparam("refresh_hash")),
    "the refresh token is the credential that says whose session it is",
)
_IS_OPEN: Final = sessions.c.end_time.is_(None)
_REFRESHED: Final = (
    sa.update(sessions)
    .where(owned(sessions), sessions.c.id == sa.bindparam("session_id"), _IS_OPEN)
    .values(refresh_time=sa.bindparam("new_refresh_time"))
)
_END: Final = (
    sa.update(sessions)
    .where(owned(sessions), sessions.c.id == sa.bindparam("session_id"), _IS_OPEN)
    .values(end_time=sa.bindparam("new_end_time"))
)
_END_ALL: Final = (
    sa.update(sessions).where(owned(sessions), _IS_OPEN).values(end_time=sa.bindparam("new_end_time"))
)
_DELETE_ALL: Final = sa.delete(sessions).where(owned(sessions))
_WHY_SWEPT: Final = "sessions of every user go once they are over"
_SWEEP_END: Final = end_of_batch(sessions.c.expire_time, _WHY_SWEPT)
_SWEEP: Final = system(sa.delete(sessions).where(sessions.c.expire_time <= sa.bindparam("last")), _WHY_SWEPT)


def _standing(*columns: Any, table: sa.Table, found: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Read a credential's row, its user and the epoch as of one moment; the epoch also without a row."""
    whole = sa.outerjoin(auth_epoch, table, found).outerjoin(users, users.c.id == table.c.owner_id)
    read = sa.select(
        auth_epoch.c.epoch,
        table.c.id.label("credential_id"),
        table.c.expire_time,
        *columns,
        users.c.id.label("user_id"),
        users.c.role,
        users.c.active,
    )
    statement = read.select_from(whole).where(auth_epoch.c.id == 1)
    return system(statement, "a credential is what says who calls")


_KEY_COLUMNS: Final = (
    api_keys.c.scopes,
    api_keys.c.disable_time,
    api_keys.c.allowed_addresses,
    api_keys.c.rate_per_1000_s,
    api_keys.c.rate_burst,
    api_keys.c.revoke_time.label("end_time"),
)
_KEY_BY_HASH: Final = _standing(
    *_KEY_COLUMNS, table=api_keys, found=api_keys.c.key_hash == sa.bindparam("key_hash")
)
_KEY_BY_ID: Final = _standing(*_KEY_COLUMNS, table=api_keys, found=api_keys.c.id == sa.bindparam("key_id"))
_SESSION_BY_ID: Final = _standing(
    sessions.c.end_time, table=sessions, found=sessions.c.id == sa.bindparam("session_id")
)


class EpochStore:
    """The epoch of authorization."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def current(self) -> int:
        """Give the epoch.

        Raises:
            Unavailable: the database has no epoch, because it was never migrated.
        """
        return int(_present(self._unit.one(_EPOCH))["epoch"])

    def lock(self) -> int:
        """Give the epoch, and let nobody else raise it before this transaction ends."""
        return int(_present(self._unit.one(_LOCK_EPOCH))["epoch"])

    def bump(self) -> int:
        """Raise the epoch in this transaction, and give the new one; its watches are told after COMMIT."""
        self._unit.run(_BUMP)
        epoch = self.current()
        self._unit.announce(f"{EPOCH_TOPIC}{epoch}")
        return epoch


class SessionStore:
    """Log-ins. A session's refresh token is kept as a keyed hash alone."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def add(self, owner_id: str, *, refresh_hash: str, expire_time: dt.datetime) -> Row:
        """Open a session."""
        row = {
            "id": new_id(),
            "owner_id": owner_id,
            "refresh_hash": refresh_hash,
            "create_time": self._unit.now,
            "refresh_time": self._unit.now,
            "expire_time": expire_time,
            "end_time": None,
        }
        self._unit.run(_ADD_SESSION, **row)
        return row

    def find_by_refresh(self, refresh_hash: str) -> Row | None:
        """Give the session of a refresh token with its user, also when it is over.

        Keys: session_id, expire_time, end_time, user_id, role, active.
        """
        return self._unit.one(_BY_REFRESH, refresh_hash=refresh_hash)

    def refreshed(self, owner_id: str, session_id: str) -> bool:
        """Note that the session was refreshed now; False when it is over."""
        now = self._unit.now
        count = self._unit.run(_REFRESHED, owner_id=owner_id, session_id=session_id, new_refresh_time=now)
        return count == 1

    def end(self, owner_id: str, session_id: str) -> None:
        """End one session now."""
        self._unit.run(_END, owner_id=owner_id, session_id=session_id, new_end_time=self._unit.now)

    def end_all(self, owner_id: str) -> None:
        """End every session of a user now."""
        self._unit.run(_END_ALL, owner_id=owner_id, new_end_time=self._unit.now)

    def delete_all(self, owner_id: str) -> int:
        """Remove every session of a user, and give their number."""
        return self._unit.run(_DELETE_ALL, owner_id=owner_id)

    def sweep(self, limit: int = 1000) -> int:
        """Remove the sessions that expired first, and give their number.

        Once that is less than ``limit``, none is left.
        """
        found = self._unit.one(_SWEEP_END, before=self._unit.now, limit=limit)
        if found is None or found["last"] is None:
            return 0
        return self._unit.run(_SWEEP, last=found["last"])


class StandingStore:
    """What a credential stands for, read with the epoch in one statement.

    Keys of each row: epoch, credential_id, expire_time, end_time, user_id, role, active, and for an API key
    scopes, disable_time, allowed_addresses, rate_per_1000_s and rate_burst. All but the epoch are None when
    the credential does not exist.
    """

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def of_key(self, key_hash: str) -> Row:
        """Give the standing of the API key with this hash."""
        return _present(self._unit.one(_KEY_BY_HASH, key_hash=key_hash))

    def of_key_id(self, key_id: str) -> Row:
        """Give the standing of the API key with this id."""
        return _present(self._unit.one(_KEY_BY_ID, key_id=key_id))

    def of_session(self, session_id: str) -> Row:
        """Give the standing of the session with this id."""
        return _present(self._unit.one(_SESSION_BY_ID, session_id=session_id))


def _present(row: Row | None) -> Row:
    if row is None:
        raise Unavailable("the database is not migrated", reason=Reason.DATABASE_UNAVAILABLE, retry_after=1.0)
    return row
