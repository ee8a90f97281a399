"""Every statement of the service binds whose rows it touches, and the rule itself finds one that does not."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.sql.functions import FunctionElement

import morag_meta
from morag_meta.db import schema
from morag_meta.db.database import Database
from morag_meta.db.schema import api_keys, databases, documents, jobs, servers, users
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.statements import everyone, owned, reach, shared, system
from morag_meta.errors import NotFound
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import documents_pb2, jobs_pb2
from tests.house.owners import OWNED, Watch, fault_of
from tests.service import Service, User

_ID: sa.BindParameter[str] = sa.bindparam("id")
_OWNER: sa.BindParameter[str] = sa.bindparam("owner_id")
_GRANTEE: sa.BindParameter[str] = sa.bindparam("grantee_id")
_TO_GRANTEE = grants.c.grantee_id == _GRANTEE
_BY_DATABASE = grants.c.database_id == documents.c.database_id

_GOOD = {
    "one of an owner": sa.select(servers).where(servers.c.id == _ID, reach(servers)),
    "all of an owner": sa.select(servers).where(owned(servers)).order_by(servers.c.id),
    "all of everyone": sa.select(servers).where(everyone()),
    "a change": sa.update(servers).where(servers.c.id == _ID, owned(servers)).values(name="x"),
    "a removal": sa.delete(servers).where(owned(servers)),
    "conditions within conditions": sa.select(servers).where(
        sa.and_(servers.c.active, sa.and_(owned(servers)))
    ),
    "a union": sa.union_all(*(sa.select(table.c.id).where(owned(table)) for table in (servers, documents))),
    "a table without owners": sa.select(users).where(users.c.id == _ID),
    "a marked one": system(sa.select(api_keys).where(api_keys.c.key_hash == _ID), "it says who calls"),
    "a row with its owner": sa.insert(servers).values(owner_id=_OWNER, id=_ID),
    "one that is shared": shared(documents, documents.c.database_id).where(documents.c.id == _ID),
    "a shared database": shared(databases, databases.c.id).with_for_update(),
    "shared by a condition": sa.select(documents).where(_BY_DATABASE, _TO_GRANTEE),
    "the grants to a user": sa.select(grants).where(_TO_GRANTEE),
    "a removal of those": sa.delete(grants).where(_TO_GRANTEE),
}
_BAD: dict[str, Any] = {
    "one half of a union": sa.union_all(
        sa.select(servers.c.id).where(owned(servers)), sa.select(servers.c.id).where(servers.c.id == _ID)
    ),
    "one by its id": sa.select(servers).where(servers.c.id == _ID),
    "all": sa.select(servers),
    "some columns": sa.select(documents.c.name).where(documents.c.id == _ID),
    "the owner or else": sa.select(servers).where(sa.or_(owned(servers), servers.c.active)),
    "another column than the owner": sa.select(servers).where(servers.c.name == _OWNER),
    "an owner that is only shown": sa.select(servers, _OWNER.label("owner")).where(servers.c.id == _ID),
    "not the owner": sa.select(servers).where(servers.c.owner_id != _OWNER),
    "an owner fixed in the text": sa.select(servers).where(servers.c.owner_id == "0195a000"),
    "a change by id": sa.update(jobs).where(jobs.c.id == _ID).values(phase="x"),
    "a change of everything": sa.update(jobs).values(owner_id=_OWNER),
    "a removal by id": sa.delete(jobs).where(jobs.c.id == _ID),
    "a join": sa.select(users.c.name).join(servers, servers.c.owner_id == users.c.id),
    "within a condition": sa.select(users).where(users.c.id.in_(sa.select(servers.c.owner_id))),
    "a row without its owner": sa.insert(servers).values(id=_ID),
    "plain text": sa.text("SELECT name FROM servers WHERE owner_id = :owner_id"),
    "marked without a reason": system(sa.select(servers), ""),
    "shared with anybody": sa.select(documents).join(grants, _BY_DATABASE).where(documents.c.id == _ID),
    "shared, but not by the database": sa.select(documents)
    .join(grants, grants.c.owner_id == documents.c.owner_id)
    .where(_TO_GRANTEE),
    "another database than the row's": sa.select(documents)
    .join(grants, grants.c.database_id == sa.bindparam("database_id"))
    .where(_TO_GRANTEE),
    "shared or not": sa.select(documents).outerjoin(grants, sa.and_(_BY_DATABASE, _TO_GRANTEE)),
    "the grantee or else": sa.select(documents)
    .join(grants, _BY_DATABASE)
    .where(sa.or_(_TO_GRANTEE, documents.c.state == "INGESTED")),
    "the grantee as the owner": sa.select(documents).where(documents.c.owner_id == _GRANTEE),
    "more than what is shared": shared(documents, documents.c.database_id).join(
        jobs, jobs.c.owner_id == documents.c.owner_id
    ),
    "a change for a grantee": sa.update(documents).where(_TO_GRANTEE).values(name="x"),
    "every grant": sa.select(grants),
}


@pytest.mark.parametrize("name", _GOOD)
def test_a_statement_that_binds_its_owner_passes(name: str) -> None:
    """The ways in which stores write statements are accepted."""
    assert fault_of(_GOOD[name]) == ""


@pytest.mark.parametrize("name", _BAD)
def test_a_statement_that_does_not_is_found(name: str) -> None:
    """The ways in which a statement would reach into other people's rows are each found."""
    assert "binds neither owner nor grantee of" in fault_of(_BAD[name])


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what a tuple or a dict holds, each with its place, and anything else as it is."""
    if isinstance(value, tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        yield from ((f"[{place!r}]", part) for place, part in items)
    else:
        yield "", value


def _constants() -> Iterator[tuple[str, Any]]:
    """Give every statement that a module of the service holds, also in a tuple or a dict."""
    for module in pkgutil.walk_packages(morag_meta.__path__, "morag_meta."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            for place, part in _parts(value):
                if isinstance(part, sa.Executable) and not isinstance(part, FunctionElement):
                    yield f"{module.name}.{name}{place}", part


_CONSTANTS = dict(_constants())


@pytest.mark.parametrize("name", _CONSTANTS)
def test_each_statement_of_the_service_binds_its_owner(name: str) -> None:
    """Each constant statement binds owner or grantee, or says why not.

    What an insert binds shows as it runs.
    """
    statement = _CONSTANTS[name]
    if not isinstance(statement, sa.Insert):
        assert fault_of(statement) == ""


def test_there_are_statements_to_look_at() -> None:
    """The search finds the stores' statements, and the tables that have owners."""
    assert len(_CONSTANTS) > 60
    assert {
        "servers",
        "databases",
        "database_grants",
        "documents",
        "jobs",
        "job_events",
        "api_keys",
        "sessions",
    } <= OWNED
    assert {name for name, table in schema.metadata.tables.items() if "owner_id" in table.c} == OWNED


def test_what_runs_is_watched(service: Service, user: User, statements_watched: Watch) -> None:
    """Statements that are built by filters, and inserts with their parameters, are judged as they run."""
    user.channel.documents.ListDocuments(
        documents_pb2.ListDocumentsRequest(types=["odd"], states=[documents_pb2.DOCUMENT_STATE_PENDING])
    )
    user.channel.jobs.ListJobs(jobs_pb2.ListJobsRequest(filter=jobs_pb2.JobFilter(kinds=["odd"])))
    assert len(statements_watched) > 3
    assert statements_watched.faults == []


def test_a_planted_statement_is_caught_as_it_runs(
    service: Service, statements_watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose statement forgot the owner is found when it is used."""
    planted = sa.select(servers).where(servers.c.id == _ID)  # a new one, as none is judged twice
    monkeypatch.setattr("morag_meta.servers.store._GET", planted)
    database: Database = service.database
    with database.unit_of_work() as uow, pytest.raises(NotFound):
        uow.servers.get("-", "x")
    assert "binds neither owner nor grantee of servers" in statements_watched.faults.pop()


def test_tests_own_statements_are_not_judged(service: Service, statements_watched: Watch) -> None:
    """What a test runs itself is its own affair."""

    def look(uow: UnitOfWork) -> Any:
        return uow.all(_BAD["all"])

    with service.database.unit_of_work() as uow:
        look(uow)
    assert statements_watched.faults == []
