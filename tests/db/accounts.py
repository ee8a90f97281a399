"""Users as rows that tests of the unit of work write, change and count."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.schema import users
from morag_meta.db.unit import Row
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user


def new_email() -> str:
    """Give an email that nobody has."""
    return f"{uuid.uuid4().hex}@unit.test"


def add(uow: UnitOfWork, email: str) -> Row:
    """Add a user with settings: two rows."""
    return create_user(uow, name="Ada", email=email)


def exists(database: Database, email: str) -> bool:
    """Say whether another unit of work sees the user."""
    with database.unit_of_work() as uow:
        return uow.users.find_by_email(email) is not None


def made(database: Database) -> str:
    """Add a user for good, and give the id."""
    with database.unit_of_work() as uow:
        row = add(uow, new_email())
        uow.commit()
    return str(row["id"])


def rename(uow: UnitOfWork, id: str, name: str) -> Row:
    """Change a user's name under the row's lock."""
    return uow.users.change(uow.users.lock("-", id), name=name)


def name_of(database: Database, id: str) -> Any:
    """Read a user's name in a unit of its own."""
    with database.unit_of_work() as uow:
        row = uow.one(sa.select(users.c.name).where(users.c.id == sa.bindparam("user_id")), user_id=id)
    return None if row is None else row["name"]
