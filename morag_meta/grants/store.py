"""Every statement that keeps grants; the rows they open are found by ``shared`` (``db/statements.py``).

A grant is the database owner's row. Who writes by one holds its row until the transaction ends, so a
revocation follows what was begun before it, and nothing is written after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.sharing import Grantee
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.statements import Path, after_row, narrowed_to, owned, system
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found

_c = grants.c
_ON: Final = _c.database_id == sa.bindparam("database_id")
_TO: Final = _c.grantee_id == sa.bindparam("grantee_id")

_FIND: Final = sa.select(grants).where(_ON, _TO, owned(grants))
_OWNER: Final = sa.select(_c.owner_id).where(_ON, _TO)
_ANY: Final = sa.select(_c.database_id).where(owned(grants)).limit(1)
_ADD: Final = sa.insert(grants)
_CHANGE: Final = (
    sa.update(grants)
    .where(_ON, _TO, owned(grants))
    .values(
        level=sa.bindparam("new_level"),
        grantor_id=sa.bindparam("new_grantor_id"),
        update_time=sa.bindparam("new_update_time"),
    )
)
_REMOVE: Final = sa.delete(grants).where(_ON, _TO, owned(grants))
_REMOVE_ON: Final = sa.delete(grants).where(_ON, owned(grants))
_DELETE_OWNED: Final = sa.delete(grants).where(owned(grants))
_DELETE_GIVEN: Final = sa.delete(grants).where(_TO)
_FORGET_GRANTOR: Final = system(
    sa.update(grants).where(_c.grantor_id == sa.bindparam("gone_id")).values(grantor_id=sa.null()),
    "a user who goes is named nowhere, whosever the database is",
    Path.PURGE,
)


@lru_cache
def _page(*, on_database: bool, after: bool) -> sa.Select[Any]:
    """The grants on a database, or to a user, the newest first."""
    other = _c.grantee_id if on_database else _c.database_id
    statement = sa.select(grants).where(*((_ON, owned(grants)) if on_database else (_TO,)))
    if after:
        statement = statement.where(*after_row(_c.create_time, other, descending=True))
    return statement.order_by(_c.create_time.desc(), other.desc()).limit(
        sa.bindparam("limit", type_=sa.Integer)
    )


class GrantStore:
    """The grants on all databases."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def find(self, owner_id: str, database_id: str, grantee_id: str) -> Row | None:
        """Give the grant of a user on an owner's database, if there is one."""
        return self._unit.one(_FIND, owner_id=owner_id, database_id=database_id, grantee_id=grantee_id)

    def owner_of(self, grantee: Grantee, database_id: str) -> str | None:
        """Give the owner of a database that is shared with a user, whatever for; None where it is not."""
        statement, bound = narrowed_to(_OWNER, _c.database_id, grantee.narrowing)
        row = self._unit.one(statement, database_id=database_id, grantee_id=grantee.user_id, **bound)
        return None if row is None else row["owner_id"]

    def shares_any(self, owner_id: str) -> bool:
        """Say whether an owner shares any database at all."""
        return self._unit.one(_ANY, owner_id=owner_id) is not None

    def page_on(
        self, owner_id: str, database_id: str, after: Mapping[str, Any] | None, limit: int
    ) -> list[Row]:
        """List at most ``limit`` grants on an owner's database, newest first, after a row's keys.

        The keys are ``create_time`` and ``grantee_id``.
        """
        keys = _after(after, "grantee_id")
        statement = _page(on_database=True, after=bool(keys))
        return self._unit.all(statement, owner_id=owner_id, database_id=database_id, limit=limit, **keys)

    def page_to(self, grantee_id: str, after: Mapping[str, Any] | None, limit: int) -> list[Row]:
        """List at most ``limit`` grants to a user, newest first, after a row's keys.

        The keys are ``create_time`` and ``database_id``.
        """
        keys = _after(after, "database_id")
        return self._unit.all(
            _page(on_database=False, after=bool(keys)), grantee_id=grantee_id, limit=limit, **keys
        )

    def add(
        self, owner_id: str, database_id: str, grantee_id: str, level: str, grantor_id: str | None
    ) -> Row:
        """Add a grant on a locked database.

        Raises:
            Collision: the user was deleted meanwhile.
        """
        now = self._unit.now
        row = {
            "database_id": database_id,
            "grantee_id": grantee_id,
            "owner_id": owner_id,
            "level": level,
            "grantor_id": grantor_id,
            "create_time": now,
            "update_time": now,
        }
        self._unit.run(_ADD, **row)
        return row

    def change(self, row: Row, level: str, grantor_id: str | None) -> Row:
        """Set the level of a grant on a locked database, and give the grant as it is then."""
        new = {**row, "level": level, "grantor_id": grantor_id, "update_time": self._unit.now}
        key = {name: row[name] for name in ("owner_id", "database_id", "grantee_id")}
        written = {f"new_{name}": new[name] for name in ("level", "grantor_id", "update_time")}
        self._unit.run(_CHANGE, **key, **written)
        return new

    def remove(self, owner_id: str, database_id: str, grantee_id: str) -> None:
        """Remove a grant.

        Raises:
            NotFound: there is none.
        """
        key = {"owner_id": owner_id, "database_id": database_id, "grantee_id": grantee_id}
        if not self._unit.run(_REMOVE, **key):
            raise not_found("grant", grantee_id)

    def remove_on(self, owner_id: str, database_id: str) -> int:
        """Remove every grant on a database that goes, and give their number."""
        return self._unit.run(_REMOVE_ON, owner_id=owner_id, database_id=database_id)

    def delete_all(self, user_id: str) -> None:
        """Remove the grants on a user's databases and those to the user, and who gave the others."""
        self._unit.run(_DELETE_OWNED, owner_id=user_id)
        self._unit.run(_DELETE_GIVEN, grantee_id=user_id)
        self._unit.run(_FORGET_GRANTOR, gone_id=user_id)


def _after(after: Mapping[str, Any] | None, other: str) -> dict[str, Any]:
    return {} if after is None else {"after_create_time": after["create_time"], "after_id": after[other]}
