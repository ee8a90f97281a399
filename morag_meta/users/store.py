"""Every statement over users and their settings.

A user's own id is the owner of the user's row, so these statements bind ``:owner_id`` to ``users.id``.
Sessions are ``auth/store.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.clock import clock
from morag_meta.db.schema import user_settings as settings
from morag_meta.db.schema import users
from morag_meta.db.statements import EVERYONE, Path, after_row, everyone, owned, reach, system
from morag_meta.db.text import contains
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found
from morag_meta.ids import new_id

_IN_REACH: Final = sa.or_(users.c.id == sa.bindparam("owner_id"), sa.bindparam("owner_id") == EVERYONE)
_GET: Final = sa.select(users).where(users.c.id == sa.bindparam("user_id"), _IN_REACH)
_LOCK: Final = _GET.add_columns(clock).with_for_update()
_BY_EMAIL: Final = system(
    sa.select(users).where(users.c.email == sa.bindparam("email")),
    "a log-in says who it is by the email",
    Path.LOGIN,
)
_ANY: Final = system(
    sa.select(users.c.id).limit(1), "the first start asks whether there is anybody", Path.ACCOUNTS
)
_OTHER_ADMINS: Final = system(
    sa.select(sa.func.count().label("count"))
    .select_from(users)
    .where(users.c.role == "ADMIN", users.c.active, users.c.id != sa.bindparam("user_id")),
    "that an ADMIN is left is a matter of all users",
    Path.ACCOUNTS,
)
_ADD: Final = system(sa.insert(users), "who is made is nobody yet", Path.ACCOUNTS)
_CHANGED: Final = ("name", "email", "avatar", "role", "active", "password_hash", "revision", "update_time")
_CHANGE: Final = (
    sa.update(users)
    .where(users.c.id == sa.bindparam("owner_id"))
    .values({name: sa.bindparam(f"new_{name}", type_=users.c[name].type) for name in _CHANGED})
)
_DELETE: Final = sa.delete(users).where(users.c.id == sa.bindparam("owner_id"))

_GET_SETTINGS: Final = sa.select(settings).where(
    settings.c.owner_id == sa.bindparam("user_id"), reach(settings)
)
_LOCK_SETTINGS: Final = _GET_SETTINGS.with_for_update()
_ADD_SETTINGS: Final = sa.insert(settings)
_SETTINGS_CHANGED: Final = (
    "theme",
    "language",
    "notifications",
    "auto_save",
    "default_database_id",
    "preferences",
    "revision",
    "update_time",
)
_CHANGE_SETTINGS: Final = (
    sa.update(settings)
    .where(owned(settings))
    .values({name: sa.bindparam(f"new_{name}", type_=settings.c[name].type) for name in _SETTINGS_CHANGED})
)
_CLEAR_DEFAULT: Final = (
    sa.update(settings)
    .where(owned(settings), settings.c.default_database_id == sa.bindparam("database_id"))
    .values(
        default_database_id=None,
        revision=settings.c.revision + 1,
        update_time=sa.bindparam("new_update_time"),
    )
)
_DELETE_SETTINGS: Final = sa.delete(settings).where(owned(settings))

DEFAULT_SETTINGS: Final[dict[str, Any]] = {
    "theme": "LIGHT",
    "language": "en",
    "notifications": True,
    "auto_save": True,
    "default_database_id": None,
    "preferences": {},
}
"""What the settings of a new user hold, and what a cleared field goes back to."""


@lru_cache(maxsize=32)
def _page(*, after: bool, role: bool, active: bool, text: bool) -> sa.Select[Any]:
    """The list of all users, newest first, with the filters that are present."""
    conditions: list[sa.ColumnElement[bool]] = [everyone()]
    if role:
        conditions.append(users.c.role == sa.bindparam("role"))
    if active:
        conditions.append(users.c.active == sa.bindparam("active"))
    if text:
        conditions.append(
            sa.or_(
                contains(users.c.name, sa.bindparam("text")),
                contains(users.c.email, sa.bindparam("email_text")),
            )
        )
    if after:
        conditions += after_row(users.c.create_time, users.c.id, descending=True)
    ordered = sa.select(users).where(*conditions).order_by(users.c.create_time.desc(), users.c.id.desc())
    return ordered.limit(sa.bindparam("limit"))


class UserStore:
    """Accounts."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: str, user_id: str) -> Row:
        """Give a user in reach: oneself, or anybody for an ADMIN.

        Raises:
            NotFound: there is none, or it is somebody else.
        """
        return _found(self._unit.one(_GET, owner_id=reach, user_id=user_id), user_id)

    def lock(self, reach: str, user_id: str) -> Row:
        """Give a user in reach, and let nobody else change it before this transaction ends.

        Beside the user's columns the row has clock, the database's time.

        Raises:
            NotFound: as ``get``.
        """
        return _found(self._unit.one(_LOCK, owner_id=reach, user_id=user_id), user_id)

    def find_by_email(self, email: str) -> Row | None:
        """Give the user of a normalised email."""
        return self._unit.one(_BY_EMAIL, email=email)

    def any(self) -> bool:
        """Say whether there is any user at all."""
        return self._unit.one(_ANY) is not None

    def other_active_admins(self, user_id: str) -> int:
        """Count the active ADMINs beside this user; lock the epoch first for the number to stay true."""
        row = self._unit.one(_OTHER_ADMINS, user_id=user_id)
        return int(row["count"]) if row is not None else 0

    def page(
        self,
        reach: str,
        after: Mapping[str, Any] | None,
        limit: int,
        *,
        role: str,
        active: bool | None,
        text: str,
    ) -> list[Row]:
        """List users, newest first, at most ``limit`` of them after the last one given.

        Only for everyone's reach; any other finds nothing. ``role`` and ``text`` empty and ``active`` None
        mean no filter. ``text`` is looked for as it is in the name, and in lower case in the email.
        """
        given = {"role": role, "active": active, "text": text}
        if text:
            given["email_text"] = text.lower()
        if after is not None:
            given |= {"after_create_time": after["create_time"], "after_id": after["id"]}
        parameters = {name: value for name, value in given.items() if value not in ("", None)}
        statement = _page(
            after=after is not None, role=bool(role), active=active is not None, text=bool(text)
        )
        return self._unit.all(statement, owner_id=reach, limit=limit, **parameters)

    def add(self, *, name: str, email: str, role: str, password_hash: str | None) -> Row:
        """Add an active user.

        Raises:
            AlreadyExists: the email is taken.
        """
        row = {
            "id": new_id(),
            "name": name,
            "email": email,
            "password_hash": password_hash,
            "avatar": None,
            "role": role,
            "active": True,
            "revision": 1,
            "create_time": self._unit.now,
            "update_time": self._unit.now,
        }
        self._unit.run(_ADD, **row)
        return row

    def change(self, row: Row, **changes: Any) -> Row:
        """Change columns of a locked user, and give the row as it then is.

        Raises:
            AlreadyExists: the new email is taken.
        """
        new = {**row, **changes, "revision": row["revision"] + 1, "update_time": self._unit.now}
        values = {f"new_{name}": new[name] for name in _CHANGED}
        self._unit.run(_CHANGE, owner_id=row["id"], **values)
        return new

    def delete(self, user_id: str) -> None:
        """Remove a user of whom nothing else is left."""
        self._unit.run(_DELETE, owner_id=user_id)


class SettingsStore:
    """Each user's settings."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: str, user_id: str) -> Row:
        """Give the settings of a user in reach.

        Raises:
            NotFound: there is no such user, or it is somebody else.
        """
        return _found(self._unit.one(_GET_SETTINGS, owner_id=reach, user_id=user_id), user_id)

    def lock(self, reach: str, user_id: str) -> Row:
        """Give the settings of a user in reach, and let nobody else change them meanwhile.

        Raises:
            NotFound: as ``get``.
        """
        return _found(self._unit.one(_LOCK_SETTINGS, owner_id=reach, user_id=user_id), user_id)

    def add(self, owner_id: str) -> None:
        """Add the settings of a new user, with their defaults."""
        stamps = {"revision": 1, "create_time": self._unit.now, "update_time": self._unit.now}
        self._unit.run(_ADD_SETTINGS, owner_id=owner_id, **DEFAULT_SETTINGS, **stamps)

    def change(self, row: Row, **changes: Any) -> Row:
        """Change columns of locked settings, and give the row as it then is."""
        new = {**row, **changes, "revision": row["revision"] + 1, "update_time": self._unit.now}
        values = {f"new_{name}": new[name] for name in _SETTINGS_CHANGED}
        self._unit.run(_CHANGE_SETTINGS, owner_id=row["owner_id"], **values)
        return new

    def clear_default_database(self, owner_id: str, database_id: str) -> None:
        """Let the owner's settings name no default database where they name this one, which goes."""
        parameters = {"owner_id": owner_id, "database_id": database_id, "new_update_time": self._unit.now}
        self._unit.run(_CLEAR_DEFAULT, **parameters)

    def delete_all(self, owner_id: str) -> None:
        """Remove the settings of a user."""
        self._unit.run(_DELETE_SETTINGS, owner_id=owner_id)


def _found(row: Row | None, user_id: str) -> Row:
    if row is None:
        raise not_found("user", user_id)
    return row
