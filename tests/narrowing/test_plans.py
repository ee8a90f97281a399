"""How the databases find what a narrowed key reaches: by indexes; and that nobody else pays for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.narrowing import Narrowing, Reach
from morag_meta.auth.sharing import Grantee, Level
from morag_meta.databases import store as databases_store
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import databases, documents, servers
from morag_meta.db.statements import EVERYONE, narrow
from morag_meta.documents.listing import Filter as DocumentFilter
from morag_meta.documents.listing import parse_order as document_order
from morag_meta.ids import new_id
from morag_meta.jobs.listing import Filter, parse_order
from morag_meta.jobs.wanted import Wanted
from morag_meta.uow import UnitOfWork
from tests.backends.databases import Backend
from tests.documents.conftest import Owner, add_owner
from tests.jobs.written import write_jobs
from tests.plans import Plan, Work, analyze

OWNERS, SERVERS, DATABASES, MANY = 8, 150, 150, 3000
_SECOND = dt.timedelta(seconds=1)
SHAPES = ("databases", "servers", "both")


@dataclass(frozen=True)
class Filled:
    """A database in which an owner has much in many places, and some of these places."""

    database: Database
    owner_id: str
    places: tuple[str, ...]
    servers: tuple[str, ...]
    document_id: str
    job_id: str

    def narrowing(self, shape: str) -> Narrowing:
        """Name some of the places."""
        named = self.places[:3] if shape != "servers" else ()
        return Narrowing(named, self.servers[:2] if shape != "databases" else ())

    def reach(self, shape: str) -> Reach:
        """Give the owner's reach, narrowed to them."""
        return Reach(self.owner_id, self.narrowing(shape))


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Filled]:
    """Fill a database, and bring its statistics up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        owners = [Owner(database, add_owner(uow, f"{number}@example.org")) for number in range(OWNERS)]
        uow.commit()
    found = [_fill(owner) for owner in owners]
    for name in ("servers", "databases", "documents", "jobs", "job_events"):
        analyze(database, name)
    yield found[1]
    database.close()
    backend.drop(url)


def _fill(owner: Owner) -> Filled:
    place, start = owner.add_database("template"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with owner.database.unit_of_work() as uow:
        template = uow.databases.get(owner.id, place)
        server = uow.servers.get(owner.id, template["server_id"])
        on = [{**server, "id": new_id(), "name": f"s{number}"} for number in range(SERVERS)]
        uow.run_many(sa.insert(servers), on)
        spread: list[dict[str, Any]] = [
            {**template, "id": new_id(), "name": f"d{number}", "server_id": on[number % SERVERS]["id"]}
            for number in range(DATABASES)
        ]
        uow.run_many(sa.insert(databases), spread)
        document = uow.documents.add(owner.id, {"name": "first", "type": "pdf"})
        made = [
            {
                **document,
                "id": new_id(),
                "name": new_id(),
                "create_time": start + dt.timedelta(seconds=number),
            }
            | {
                "database_id": spread[number % DATABASES]["id"],
                "live_scope": spread[number % DATABASES]["id"],
            }
            for number in range(MANY)
        ]
        for begin in range(0, MANY, 500):
            uow.run_many(sa.insert(documents), made[begin : begin + 500])
        places = [row["id"] for row in spread]
        given = [
            {"database_id": row["database_id"], "document_id": row["id"], "create_time": row["create_time"]}
            | ({"state": "PENDING", "end_time": None} if number % 3 else {})
            for number, row in enumerate(made)
        ]
        jobs = write_jobs(uow, owner.id, given, events=1, first=None)
        uow.commit()
    ids = tuple(row["id"] for row in on)
    return Filled(owner.database, owner.id, tuple(places), ids, made[0]["id"], jobs[0])


_ROWS: dict[str, Callable[[Filled, Reach], Work]] = {
    "get a server": lambda f, r: lambda uow: _quietly(uow.servers.get, r, f.servers[0]),
    "get a database": lambda f, r: lambda uow: uow.databases.get(r, f.places[0]),
    "lock a database": lambda f, r: lambda uow: uow.databases.lock(r, f.places[0]),
    "get a document": lambda f, r: lambda uow: uow.documents.get(r, f.document_id),
    "lock a document": lambda f, r: lambda uow: uow.documents.lock(r, f.document_id),
    "get documents": lambda f, r: lambda uow: uow.documents.find_many(r, [f.document_id]),
    "get a job": lambda f, r: lambda uow: uow.jobs.get(r, f.job_id),
    "lock a job": lambda f, r: lambda uow: uow.jobs.lock(r, f.job_id),
    "watch a job": lambda f, r: lambda uow: uow.jobs.position(r, f.job_id),
}


def _quietly(get: Callable[[Reach, str], object], reach: Reach, id: str) -> None:
    """Look for what a key that names databases alone does not reach."""
    if reach.narrowing is not None and reach.narrowing.servers:
        get(reach, id)
    else:
        get(Reach(reach.owner_id), id)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", _ROWS)
def test_a_row_within_is_found_by_keys(filled: Filled, name: str, shape: str) -> None:
    """One row takes its own key and that of its database, and scans and sorts nothing."""
    plan = Plan(filled.database, _ROWS[name](filled, filled.reach(shape)))
    assert (plan.scans, plan.sorts) == (False, False), plan.text


_FIRST = document_order("")
_LISTS: dict[str, tuple[Callable[[Filled, Reach, UnitOfWork], object], str]] = {
    "servers": (lambda _, r, uow: uow.servers.page(r, None, 51), "servers"),
    "databases": (lambda _, r, uow: uow.databases.page(r, None, 51), "databases"),
    "documents": (lambda _, r, uow: uow.documents.page(r, DocumentFilter(), _FIRST, None, 51), "documents"),
    "documents by name": (
        lambda _, r, uow: uow.documents.page(r, DocumentFilter(), document_order("name"), None, 51),
        "documents",
    ),
    "jobs": (lambda _, r, uow: uow.jobs.page(_chosen(r), parse_order(""), None, 51), "jobs"),
    "a snapshot": (lambda _, r, uow: uow.jobs.snapshot(_chosen(r), None, 51), "jobs"),
    "figures": (lambda _, r, uow: uow.job_stats.oldest_open_age(_chosen(r)), "jobs"),
    "events": (lambda _, r, uow: uow.log.page_of(_chosen(r), 0, 100, 51), "job_events"),
    "what a worker takes": (lambda f, r, uow: uow.queue.candidates(_wanted(f.owner_id, r), 41), "jobs"),
}


def _chosen(reach: Reach) -> Filter:
    return Filter(reach.owner_id, narrowing=reach.narrowing)


def _wanted(whose: str, reach: Reach) -> Wanted:
    return Wanted(whose, ("PENDING",), narrowing=reach.narrowing)


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in _LISTS for shape in SHAPES if (name, shape) != ("servers", "databases")],
)
def test_a_narrowed_list_follows_an_index(filled: Filled, name: str, shape: str) -> None:
    """Lists come from an index of their table; sorted is at most what lies within the few databases named."""
    make, table = _LISTS[name]
    plan = Plan(filled.database, lambda uow: make(filled, filled.reach(shape), uow))
    assert not plan.scans, plan.text
    assert plan.indexes, plan.text
    if filled.database.dialect != "mariadb":  # which calls every primary key PRIMARY
        assert any(table in index for index in plan.indexes), plan.text


@pytest.mark.parametrize("shape", SHAPES)
def test_a_narrowed_worker_of_everybodys_jobs_goes_the_way_of_any(filled: Filled, shape: str) -> None:
    """What is next for everybody's worker comes from the indexes by which it comes without a narrowing.

    PostgreSQL thinks looking through queues so dear that it rather hashes a table of jobs as short as this.
    Documents and their databases are found by keys everywhere.
    """
    plain = Plan(filled.database, lambda uow: uow.queue.candidates(Wanted(EVERYONE, ("PENDING",)), 41))
    wanted = _wanted(EVERYONE, filled.reach(shape))
    plan = Plan(filled.database, lambda uow: uow.queue.candidates(wanted, 41))
    if filled.database.dialect != "postgresql":
        assert plan.indexes >= plain.indexes, (plan.text, plain.text)
        assert (plan.scans, plan.sorts) == (plain.scans, plain.sorts), plan.text
    for table in ("documents", "databases", "place"):
        assert f"SCAN {table}" not in plan.text, plan.text
        assert f'"table": "{table}", "type": "ALL"' not in plan.text, plan.text
        assert f'"Seq Scan", "Relation Name": "{table}"' not in plan.text, plan.text


def test_documents_of_one_database_are_read_in_its_order(filled: Filled) -> None:
    """Where one database is named, by the key alone or by the filter, its own index gives the page."""
    one = Reach(filled.owner_id, Narrowing(filled.places[:1]))
    for reach, named in ((one, ""), (one, filled.places[0]), (filled.reach("both"), filled.places[0])):
        chosen = DocumentFilter(database_id=named)
        plan = _page(filled, reach, chosen)
        assert (plan.scans, plan.sorts) == (False, False), plan.text
        assert "ix_documents__owner_id_database_id_create_time" in plan.indexes, plan.text


def _page(filled: Filled, reach: Reach, chosen: DocumentFilter, order: str = "") -> Plan:
    """Explain a page of documents."""
    return Plan(
        filled.database, lambda uow: uow.documents.page(reach, chosen, document_order(order), None, 51)
    )


def test_who_is_not_narrowed_runs_the_statements_of_before(filled: Filled) -> None:
    """Without a narrowing the statement is the very one that there was, and binds what it bound."""
    get = databases_store._GET  # noqa: SLF001 - it is that one that must not change
    for reach in (filled.owner_id, Reach(filled.owner_id)):
        assert narrow(get, databases.c.id, reach) == (get, {"owner_id": filled.owner_id})
    statement, bound = narrow(get, databases.c.id, filled.reach("databases"))
    assert statement is not get
    assert narrow(get, databases.c.id, filled.reach("databases"))[0] is statement
    assert set(bound) == {"owner_id", "within_databases"}


def test_what_is_shared_and_within_is_found_by_keys(filled: Filled) -> None:
    """A narrowed grantee's look for a row of another's takes keys alone."""

    def look(uow: UnitOfWork) -> object:
        grantee = Grantee(filled.owner_id, Level.READER, filled.narrowing("both"))
        return uow.grants.owner_of(grantee, filled.places[0])

    plan = Plan(filled.database, look)
    assert (plan.scans, plan.sorts) == (False, False), plan.text
