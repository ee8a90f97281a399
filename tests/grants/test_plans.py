"""How databases find what is shared: by the row's key and the grant's; and that owners pay nothing for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.sharing import Grantee, Level
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import database_grants, databases, documents, jobs, users
from morag_meta.documents import actions as documents_actions
from morag_meta.documents.identity import OnDuplicate, Outcome
from morag_meta.documents.listing import Filter, parse_order
from morag_meta.ids import new_id
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.listing import Filter as JobFilter
from morag_meta.jobs.sharing import as_owner_sees
from morag_meta.uow import UnitOfWork
from tests.backends.databases import Backend
from tests.documents.conftest import Owner, add_owner
from tests.plans import Plan, analyze

MANY = 300
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_KEYS = {
    f"{kind}{table}"
    for table in ("databases", "documents", "jobs", "database_grants", "quotas")
    for kind in ("pk_", "sqlite_autoindex_")
}


@dataclass(frozen=True)
class Shared:
    """An owner, a grantee of many databases, and one of these with a document and a job."""

    database: Database
    owner_id: str
    grantee: Grantee
    database_id: str
    document_id: str
    job_id: str


@pytest.fixture(scope="module")
def shared(backend: Backend) -> Iterator[Shared]:
    """Fill a database with many grants, and bring its statistics up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        owner_id, grantee_id = (add_owner(uow, f"{name}@example.org") for name in ("owner", "grantee"))
        uow.commit()
    owner = Owner(database, owner_id)
    database_id = owner.add_database("shared")
    document, _ = owner.upload(database_id=database_id)
    with database.unit_of_work() as uow:
        job = create_job(uow, owner_id, kind="REINDEX", document_id=document["id"])
        for table, row in ((documents, document), (jobs, uow.jobs.get(owner_id, job["id"]))):
            copies = [{**row, "id": new_id()} for _ in range(MANY)]
            named = [{**copy, "name": copy["id"]} if "name" in copy else copy for copy in copies]
            uow.run_many(sa.insert(table), named)
        _fill(uow, owner_id, grantee_id, database_id)
        uow.commit()
    for name in ("users", "databases", "documents", "jobs", "database_grants"):
        analyze(database, name)
    yield Shared(
        database, owner_id, Grantee(grantee_id, Level.READER), database_id, document["id"], job["id"]
    )
    database.close()
    backend.drop(url)


def _fill(uow: UnitOfWork, owner_id: str, grantee_id: str, database_id: str) -> None:
    """Share many databases with the grantee, and one of them with many others."""
    template = uow.databases.get(owner_id, database_id)
    copies = [{**template, "id": new_id(), "name": f"copy {number}"} for number in range(MANY * 10)]
    user = uow.users.get(owner_id, owner_id)
    others = [{**user, "id": new_id(), "email": f"{number}@others.example.org"} for number in range(MANY)]
    pairs = [(row["id"], grantee_id) for row in (*copies[:MANY], template)]
    pairs += [(database_id, row["id"]) for row in others]
    uow.run_many(sa.insert(databases), copies)
    uow.run_many(sa.insert(users), others)
    grants = [
        {
            "database_id": place,
            "grantee_id": user_id,
            "owner_id": owner_id,
            "level": "READER",
            "grantor_id": owner_id,
            "create_time": _START + dt.timedelta(seconds=number),
            "update_time": _START,
        }
        for number, (place, user_id) in enumerate(pairs)
    ]
    uow.run_many(sa.insert(database_grants), grants)


class _Second(Plan):
    """The plan of the second statement that some work runs: the first one finds nothing."""

    def __init__(self, database: Database, work: Callable[[UnitOfWork], object]) -> None:
        seen: list[tuple[sa.Executable, dict[str, Any]]] = []

        def note(uow: UnitOfWork) -> object:
            kept = uow.one

            def one(statement: sa.Executable, **parameters: Any) -> Any:
                seen.append((statement, parameters))
                return kept(statement, **parameters)

            uow.one = one  # type: ignore[method-assign]
            return work(uow)

        with database.unit_of_work() as uow:
            note(uow)
        statement, parameters = seen[1]
        super().__init__(database, lambda uow: uow.one(statement, **parameters))


_ONE: dict[str, Callable[[Shared], Callable[[UnitOfWork], object]]] = {
    "get a database": lambda s: lambda uow: uow.databases.get(s.grantee.user_id, s.database_id, s.grantee),
    "lock a database": lambda s: lambda uow: uow.databases.lock(s.grantee.user_id, s.database_id, s.grantee),
    "get a document": lambda s: lambda uow: uow.documents.get(s.grantee.user_id, s.document_id, s.grantee),
    "lock a document": lambda s: lambda uow: uow.documents.lock(s.grantee.user_id, s.document_id, s.grantee),
    "get a job": lambda s: lambda uow: uow.jobs.get(s.grantee.user_id, s.job_id, s.grantee),
    "lock a job": lambda s: lambda uow: uow.jobs.lock(s.grantee.user_id, s.job_id, s.grantee),
}


@pytest.mark.parametrize("name", _ONE)
def test_a_shared_row_is_found_by_keys(shared: Shared, name: str) -> None:
    """One shared row takes its own key and the grant's, and scans and sorts nothing."""
    plan = _Second(shared.database, _ONE[name](shared))
    assert (plan.scans, plan.sorts) == (False, False), plan.text
    most = 3 if name == "lock a document" else 2  # with the owner's quota
    assert 1 <= len(plan.indexes) <= most, plan.text  # MariaDB calls the primary key of each table PRIMARY
    keys = {index for index in plan.indexes if index == "PRIMARY" or index.rstrip("_0123456789") in _KEYS}
    by_owner = {index for index in plan.indexes if index.endswith("__owner_id_id")}
    assert plan.indexes == keys | by_owner, plan.text


def test_whose_a_shared_database_is_takes_one_key(shared: Shared) -> None:
    """Who shares a database is found by the grant's own key."""
    plan = Plan(shared.database, lambda uow: uow.grants.owner_of(shared.grantee, shared.database_id))
    assert (len(plan.indexes), plan.scans, plan.sorts) == (1, False, False), plan.text


@pytest.mark.parametrize("following", [False, True])
def test_lists_of_grants_follow_their_indexes(shared: Shared, following: bool) -> None:
    """The grants on a database, those to a user, and the databases shared with one come in index order."""
    time = _START + dt.timedelta(seconds=MANY // 2)
    after = {"create_time": time, "share_time": time, "database_id": "5", "grantee_id": "5", "id": "5"}
    given = after if following else None
    to_user = "ix_database_grants__grantee_id_create_time"
    user_id = shared.grantee.user_id
    work: list[tuple[Callable[[UnitOfWork], object], str]] = [
        (
            lambda uow: uow.grants.page_on(shared.owner_id, shared.database_id, given, 51),
            "ix_database_grants__owner_id_database_id_create_time",
        ),
        (lambda uow: uow.grants.page_to(user_id, given, 51), to_user),
        (lambda uow: uow.databases.page_shared(user_id, given, 11), to_user),
    ]
    for each, index in work:
        plan = Plan(shared.database, each)
        assert index in plan.indexes, plan.text
        assert (plan.scans, plan.sorts) == (False, False), plan.text


@contextmanager
def _heard(database: Database) -> Iterator[list[str]]:
    """Note each statement that is run."""
    heard: list[str] = []

    def hear(*arguments: Any) -> None:
        heard.append(arguments[2])

    sa.event.listen(database.engine, "before_cursor_execute", hear)
    yield heard
    sa.event.remove(database.engine, "before_cursor_execute", hear)


def test_owners_run_no_statement_more(shared: Shared) -> None:
    """What is the caller's own is read and listed by one statement, which names no grant."""
    me = Grantee(shared.owner_id, Level.READER)
    reach, order = shared.owner_id, parse_order("")
    inside = Filter(database_id=shared.database_id)
    reads: list[Callable[[UnitOfWork], object]] = [
        lambda uow: uow.databases.get(reach, shared.database_id, me),
        lambda uow: uow.documents.get(reach, shared.document_id, me),
        lambda uow: uow.documents.find_many(reach, [shared.document_id], me),
        lambda uow: documents_actions.list_page(uow, reach, inside, order, None, 51, me),
        lambda uow: uow.jobs.get(reach, shared.job_id, me),
        lambda uow: uow.jobs.position(reach, shared.job_id, me),
        lambda uow: (as_owner_sees(uow, JobFilter(reach), me), uow.jobs.get(reach, shared.job_id, me)),
    ]
    for read in reads:
        with shared.database.unit_of_work() as uow:
            uow.send_begin()
            with _heard(shared.database) as heard:
                read(uow)
        assert len(heard) == 1, heard
        assert "database_grants" not in heard[0]


def test_grantees_run_one_statement_more(shared: Shared) -> None:
    """What is shared is read by two statements: one that finds nothing, and one by the grant."""
    for read in (_ONE["get a document"], _ONE["get a job"], _ONE["get a database"]):
        with shared.database.unit_of_work() as uow:
            uow.send_begin()
            with _heard(shared.database) as heard:
                read(shared)(uow)
        assert ["database_grants" in statement for statement in heard] == [False, True]


@pytest.mark.parametrize("together", [False, True])
def test_a_grant_is_locked_behind_what_it_opens(shared: Shared, together: bool) -> None:
    """An upload by a grant locks it last, so that it never waits for who has locked a document before it."""
    grantee = Grantee(shared.grantee.user_id, Level.WRITER)
    with shared.database.unit_of_work() as uow:
        grant = uow.grants.find(shared.owner_id, shared.database_id, grantee.user_id)
        assert grant is not None
        uow.grants.change(grant, "WRITER", None)
        known = uow.documents.get(shared.owner_id, shared.document_id)
        fields = {name: known[name] for name in ("name", "type", "database_id")} | {"content_hash": "new"}
        upload = (fields, OnDuplicate.NEW_VERSION)
        with _heard(shared.database) as heard:
            if together:
                ((_, outcome),) = documents_actions.create_documents(uow, grantee.user_id, [upload], grantee)
            else:
                _, outcome = documents_actions.create_document(uow, grantee.user_id, *upload, grantee)
        uow.rollback()
    assert outcome is Outcome.NEW_VERSION
    (wrote,) = (place for place, said in enumerate(heard) if said.startswith("UPDATE documents"))
    granted = [place for place, said in enumerate(heard) if "database_grants" in said]
    assert granted[-1] > wrote, heard
    assert all(place > wrote for place in granted if "FOR UPDATE" in heard[place]), heard
