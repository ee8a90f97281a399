"""What a credential stands for, and the epoch of authorization.

The epoch is one number in one row. Whatever may take standing away from a cached principal raises it in
the same transaction; every process reads it each second and drops what it cached under an older one
(``auth/epoch.py``). Who changes a user or ends a session locks the epoch's row before all others, so that
such changes, the protection of the last ADMIN among them, follow one another. The statements over
sessions stand in ``auth/sessions.py``.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.principal import Principal
from morag_meta.db.schema import api_keys, auth_epoch, sessions, users
from morag_meta.db.statements import Path, system
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import Reason, Unavailable

EPOCH_TOPIC: Final = "auth_epoch:"
"""What a unit of work announces when it raised the epoch; the new one follows."""

_EPOCH: Final = sa.select(auth_epoch.c.epoch).where(auth_epoch.c.id == 1)
_LOCK_EPOCH: Final = _EPOCH.with_for_update()
_BUMP: Final = sa.update(auth_epoch).where(auth_epoch.c.id == 1).values(epoch=auth_epoch.c.epoch + 1)


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
    return system(statement, "a credential is what says who calls", Path.LOGIN)


_KEY_COLUMNS: Final = (
    api_keys.c.scopes,
    api_keys.c.disable_time,
    api_keys.c.allowed_addresses,
    api_keys.c.rate_per_1000_s,
    api_keys.c.rate_burst,
    api_keys.c.database_ids,
    api_keys.c.server_ids,
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


class StandingStore:
    """What a credential stands for, read with the epoch in one statement.

    Keys of each row: epoch, credential_id, expire_time, end_time, user_id, role, active, and for an API key
    scopes, disable_time, allowed_addresses, rate_per_1000_s, rate_burst, database_ids and server_ids. All
    but the epoch are None when the credential does not exist.
    """

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def of_principal(self, principal: Principal) -> Row:
        """Give the standing of a principal's credential as it is now."""
        if principal.key_id:
            return self.of_key_id(principal.key_id)
        return self.of_session(principal.session_id)

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
