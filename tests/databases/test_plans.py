"""How lists and lookups of servers and databases find their rows: by index, without scanning a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import databases, servers
from morag_meta.db.unit import Row
from morag_meta.ids import new_id
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.plans import Plan, analyze

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
OWNERS, ROWS = 4, 1500


class Filled:
    """A database in which four owners have many servers and databases."""

    def __init__(self, database: Database) -> None:
        """Fill it, and look at one owner of it."""
        self.database = database
        for number in range(OWNERS):
            with database.unit_of_work() as uow:
                email = f"{number}@example.org"
                user = create_user(uow, name="Somebody", email=email, role=Role.USER, password_hash=None)
                uow.commit()
            self.owner_id = str(user["id"])
            self.server_id = self._fill()
        for table in ("servers", "databases"):
            analyze(database, table)

    def _fill(self) -> str:
        with self.database.unit_of_work() as uow:
            server = uow.servers.add(new_id(), self.owner_id, name="n", kind="QDRANT", host="h", port=1)
            rows = _many(server)
            uow.run_many(sa.insert(servers), rows)
            template = uow.databases.add(new_id(), self.owner_id, server_id=server["id"], name="n")
            children = _many(template)
            for number, child in enumerate(children):
                child["server_id"] = rows[number % 60]["id"]
            uow.run_many(sa.insert(databases), children)
            uow.commit()
        return str(rows[0]["id"])


def _many(template: Row) -> list[dict[str, Any]]:
    return [
        {
            **template,
            "id": new_id(),
            "name": f"n{number}",
            "create_time": START + dt.timedelta(seconds=number),
        }
        for number in range(ROWS)
    ]


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Filled]:
    """The filled database, with statistics that are up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    yield Filled(database)
    database.close()
    backend.drop(url)


def page(filled: Filled, table: str, *, reach: str, following: bool, **filters: Any) -> Plan:
    """Explain a page of a list, the first one or one far from the start."""
    after = {"create_time": START + dt.timedelta(seconds=ROWS // 2), "id": new_id()} if following else None
    return Plan(filled.database, lambda uow: getattr(uow, table).page(reach, after, 51, **filters))


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("table", ["servers", "databases"])
def test_an_own_list_follows_the_index_of_its_order(filled: Filled, table: str, following: bool) -> None:
    """A page of one's own rows is read newest first from the index, wherever it begins."""
    plan = page(filled, table, reach=filled.owner_id, following=following)
    index = f"ix_{table}__owner_id_create_time_id"
    assert (plan.indexes, plan.scans, plan.sorts) == ({index}, False, False), plan.text


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("table", ["servers", "databases"])
def test_the_list_of_everybody_follows_the_index_of_time(filled: Filled, table: str, following: bool) -> None:
    """A page of all owners' rows is read newest first from the index over all of them."""
    plan = page(filled, table, reach="-", following=following)
    assert (plan.indexes, plan.sorts) == ({f"ix_{table}__create_time_id"}, False), plan.text


@pytest.mark.parametrize("following", [False, True])
def test_the_list_of_a_server_follows_its_index(filled: Filled, following: bool) -> None:
    """The databases of a server are read newest first from the index of owner and server."""
    plan = page(filled, "databases", reach=filled.owner_id, following=following, server_id=filled.server_id)
    indexes = {"ix_databases__owner_id_server_id_create_time"}
    assert (plan.indexes, plan.scans, plan.sorts) == (indexes, False, False), plan.text


@pytest.mark.parametrize("table", ["servers", "databases"])
def test_one_row_is_found_by_its_key(filled: Filled, table: str) -> None:
    """A lookup reads a unique index that holds the id."""
    with filled.database.unit_of_work() as uow:
        id = getattr(uow, table).page(filled.owner_id, None, 1)[0]["id"]
    plan = Plan(filled.database, lambda uow: getattr(uow, table).get(filled.owner_id, id))
    keys = {f"sqlite_autoindex_{table}_1", f"pk_{table}", f"uq_{table}__owner_id_id", "PRIMARY"}
    assert plan.indexes, plan.text
    assert plan.indexes <= keys, plan.text


def test_the_databases_of_a_server_are_counted_and_locked_by_its_index(filled: Filled) -> None:
    """What a deletion asks of a server's databases touches no others."""
    owner, server = filled.owner_id, filled.server_id
    for plan in (
        Plan(filled.database, lambda uow: uow.databases.count_on_server(owner, server)),
        Plan(filled.database, lambda uow: uow.databases.lock_on_server(owner, server)),
    ):
        assert plan.indexes == {"ix_databases__owner_id_server_id_create_time"}, plan.text
        assert not plan.scans, plan.text
