"""A database in this process, for what documents do below the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.documents.actions import create_document
from morag_meta.documents.identity import OnDuplicate, Outcome
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork


@dataclass(frozen=True, slots=True)
class Owner:
    """A user of a database, who makes documents and databases in it."""

    database: Database
    id: str

    def add_database(self, name: str = "papers") -> str:
        """Make a server and a database on it; give the database's id."""
        with self.database.unit_of_work() as uow:
            server = uow.servers.add(
                new_id(),
                self.id,
                name=f"server of {name}",
                kind="QDRANT",
                host="localhost",
                port=6333,
                username=None,
                password_sealed=None,
                api_key_sealed=None,
                default_database=None,
                default_collection=None,
                active=True,
                last_connect_time=None,
                config={},
            )
            row = uow.databases.add(new_id(), self.id, server_id=server["id"], name=name)
            uow.commit()
            return str(row["id"])

    def upload(self, on_duplicate: OnDuplicate = OnDuplicate.REJECT, **fields: Any) -> tuple[Row, Outcome]:
        """Register a document in a unit of work of its own."""
        with self.database.unit_of_work() as uow:
            done = create_document(uow, self.id, {"name": "a.pdf", "type": "pdf", **fields}, on_duplicate)
            uow.commit()
            return done


def add_owner(uow: UnitOfWork, email: str) -> str:
    """Make a user with settings; give the id."""
    user = uow.users.add(name="Somebody", email=email, role="USER", password_hash=None)
    uow.settings.add(user["id"])
    return str(user["id"])


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database at the newest revision."""
    migrate.upgrade(database_url)
    opened = Database.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
def owner(database: Database) -> Owner:
    """A user of the database."""
    with database.unit_of_work() as uow:
        id = add_owner(uow, "owner@example.org")
        uow.commit()
    return Owner(database, id)
