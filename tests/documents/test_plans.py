"""How the databases find documents: by the index that is meant for it, without scanning or sorting."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import documents
from morag_meta.documents.identity import IDENTITIES
from morag_meta.documents.listing import Filter, parse_order
from morag_meta.documents.rules import State
from morag_meta.ids import new_id
from tests.backends.databases import Backend
from tests.documents.conftest import Owner, add_owner
from tests.plans import Plan

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
OWNERS, DATABASES, DOCUMENTS = 4, 9, 1500


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Owner]:
    """One of several owners with many documents, in a database whose statistics are up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        owners = [Owner(database, add_owner(uow, f"{number}@example.org")) for number in range(OWNERS)]
        uow.commit()
    for owner in owners:
        _fill(owner, [None, *(owner.add_database(f"papers {number}") for number in range(DATABASES))])
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE TABLE documents" if backend.name == "mariadb" else "ANALYZE")
    yield owners[1]
    database.close()
    backend.drop(url)


def _fill(owner: Owner, databases: list[str | None]) -> None:
    """Spread documents over states, and over databases and none."""
    states = ["PENDING", "INGESTED", "INGESTED", "INGESTED", "DEPRECATED", "DELETED", "INGESTING"]
    with owner.database.unit_of_work() as uow:
        template = uow.documents.add(owner.id, {"name": "template", "type": "pdf"})
        rows = []
        for number in range(DOCUMENTS):
            state = states[number % len(states)]
            database = databases[number % len(databases)]
            rows.append(
                {
                    **template,
                    "id": new_id(),
                    "database_id": database,
                    "live_scope": None if state == State.DELETED else database or "-",
                    "name": f"{number * 7919 % DOCUMENTS}.pdf",
                    "external_id": f"e{number}",
                    "content_hash": f"h{number}",
                    "state": state,
                    "create_time": START + dt.timedelta(seconds=number),
                    "update_time": START + dt.timedelta(seconds=number * 7919 % DOCUMENTS),
                }
            )
        uow.run_many(sa.insert(documents), rows)
        uow.commit()


def page(owner: Owner, order: str = "", *, reach: str = "", following: bool = False, **filters: Any) -> Plan:
    """Explain a page of a list, the first one or one far from the start."""
    chosen, by = Filter(**filters), parse_order(order)
    middle = {"name": "5.pdf"}.get(by.column, START + dt.timedelta(seconds=DOCUMENTS // 2))
    after = {by.column: middle, "id": new_id()} if following else None
    return Plan(owner.database, lambda uow: uow.documents.page(reach or owner.id, chosen, by, after, 51))


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize(
    ("order", "index"),
    [
        ("", "ix_documents__owner_id_create_time_id"),
        ("create_time", "ix_documents__owner_id_create_time_id"),
        ("update_time desc", "ix_documents__owner_id_update_time_id"),
        ("name", "ix_documents__owner_id_name_id"),
        ("name desc", "ix_documents__owner_id_name_id"),
    ],
)
def test_an_own_list_follows_the_index_of_its_order(
    filled: Owner, order: str, index: str, following: bool
) -> None:
    """A page of one's own documents is read from the index of the order, wherever it begins."""
    plan = page(filled, order, following=following)
    assert (plan.indexes, plan.scans, plan.sorts) == ({index}, False, False), plan.text


@pytest.mark.parametrize(("order", "bound"), [("", "create_time <="), ("name", "name)::text >=")])
def test_a_following_page_begins_where_the_last_one_ended(filled: Owner, order: str, bound: str) -> None:
    """PostgreSQL enters the index at the page's first row, instead of passing over all before it."""
    plan = page(filled, order, following=True)
    if filled.database.dialect == "postgresql":
        conditions = re.findall(r'"Index Cond": "([^"]*)"', plan.text)
        assert [bound in condition for condition in conditions] == [True], plan.text


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("inside", [True, False])
def test_the_list_of_a_database_follows_its_index(filled: Owner, inside: bool, following: bool) -> None:
    """The documents of a database, or of none, are read newest first from their index."""
    with filled.database.unit_of_work() as uow:
        database_id = uow.databases.page(filled.id, None, 1)[0]["id"] if inside else "-"
    plan = page(filled, following=following, database_id=database_id)
    index = "ix_documents__owner_id_database_id_create_time"
    assert (plan.indexes, plan.scans, plan.sorts) == ({index}, False, False), plan.text


@pytest.mark.parametrize("following", [False, True])
def test_the_list_of_a_state_follows_its_index(filled: Owner, following: bool) -> None:
    """The documents in one state are read newest first from their index."""
    plan = page(filled, following=following, states=("PENDING",))
    index = "ix_documents__owner_id_state_create_time"
    assert (plan.indexes, plan.scans, plan.sorts) == ({index}, False, False), plan.text


@pytest.mark.parametrize("field", ["external_id", "content_hash"])
def test_a_filter_by_identity_follows_its_index(filled: Owner, field: str) -> None:
    """The documents with an external id or a hash are found by it, whatever database they are in."""
    chosen: dict[str, Any] = {field: {"external_id": "e5", "content_hash": "h5"}[field]}
    plan = page(filled, **chosen)
    if filled.database.dialect == "sqlite":  # which names the index of a constraint by its number
        assert f"owner_id=? AND {field}=?" in plan.text
    else:
        assert plan.indexes == {f"uq_documents__owner_id_{field}_live_scope"}, plan.text
    assert not plan.scans, plan.text


@pytest.mark.parametrize("following", [False, True])
def test_the_list_of_everybody_follows_the_index_of_time(filled: Owner, following: bool) -> None:
    """The documents of all owners are read newest first from the index over all of them."""
    plan = page(filled, reach="-", following=following)
    assert (plan.indexes, plan.sorts) == ({"ix_documents__create_time_id"}, False), plan.text


def test_a_document_is_found_by_its_key(filled: Owner) -> None:
    """One document is read by its id, alone or with its owner's."""
    with filled.database.unit_of_work() as uow:
        id = uow.documents.page(filled.id, Filter(), parse_order(""), None, 1)[0]["id"]
    plan = Plan(filled.database, lambda uow: uow.documents.get(filled.id, id))
    keys = {"sqlite_autoindex_documents_1", "pk_documents", "uq_documents__owner_id_id", "PRIMARY"}
    assert plan.indexes, plan.text
    assert plan.indexes <= keys, plan.text


def test_the_same_document_is_found_by_its_identities(filled: Owner) -> None:
    """Each identity is looked up in an index that ends with it (for a name, the list's does as well)."""
    with filled.database.unit_of_work() as uow:
        chosen = Filter(database_id="-", states=("INGESTED",))
        row = uow.documents.page(filled.id, chosen, parse_order("create_time"), None, 1)[0]
    plan = Plan(filled.database, lambda uow: uow.documents.find_same(filled.id, "-", row))
    by_name = {"uq_documents__owner_id_name_live_scope", "ix_documents__owner_id_name_id"}
    if filled.database.dialect == "sqlite":  # which names the index of a constraint by its number
        by_name |= {index for index in plan.indexes if "autoindex" in index}
    assert len(plan.indexes) == len(IDENTITIES), plan.text
    assert plan.indexes & by_name, plan.text
    assert not plan.scans, plan.text
