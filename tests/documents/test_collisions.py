"""Units of work that meet: the second waits for the first, and then starts anew if it changed the ground."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.documents.actions import create_document, delete_document, update_document
from morag_meta.documents.identity import OnDuplicate, Outcome
from morag_meta.errors import Collision
from morag_meta.uow import UnitOfWork
from tests.documents.conftest import Owner

T = TypeVar("T")


def to_the_end(database: Database, work: Callable[[UnitOfWork], T], runs: list[int]) -> T:
    """Run work as a server does, until it does not collide; ``runs`` counts."""
    while True:
        runs.append(1)
        try:
            with database.unit_of_work() as uow:
                done = work(uow)
                uow.commit()
                return done
        except Collision:
            continue


@contextmanager
def meeting(
    database: Database, table: str, first: Callable[[UnitOfWork], Any], second: Callable[[UnitOfWork], T]
) -> Iterator[Future[T]]:
    """Let the second work reach for a lock on the table after the first has taken it and before it commits.

    On SQLite, where one writes at a time, the second begins after the first.
    """
    reached = threading.Event()
    runs: list[int] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if f"FROM {table}" in statement.replace("`", "") and "FOR UPDATE" in statement:
            reached.set()

    with ThreadPoolExecutor(1) as pool:
        with database.unit_of_work() as uow:
            first(uow)
            sa.event.listen(database.engine, "before_cursor_execute", note)
            waiting = pool.submit(to_the_end, database, second, runs)
            if database.dialect != "sqlite":
                assert reached.wait(10)
            uow.commit()
        sa.event.remove(database.engine, "before_cursor_execute", note)
        yield waiting
        assert len(runs) == (1 if database.dialect == "sqlite" else 2)


def test_a_document_that_moves_meanwhile_is_locked_anew(owner: Owner) -> None:
    """A deletion that locked the database which the document has left starts again with the right one."""
    home, away = owner.add_database("home"), owner.add_database("away")
    id = owner.upload(database_id=home)[0]["id"]
    with meeting(
        owner.database,
        "databases",
        lambda uow: update_document(uow, owner.id, id, {"database_id": away}),
        lambda uow: delete_document(uow, owner.id, id),
    ) as deleted:
        assert deleted.result(20)["database_id"] == away
    with owner.database.unit_of_work() as uow:
        counts = [uow.databases.get(owner.id, database)["document_count"] for database in (home, away)]
    assert counts == [0, 0]


def test_a_document_that_is_renamed_meanwhile_is_not_the_same(owner: Owner) -> None:
    """An upload that waited for the document of its name, and got one of another, creates its own."""
    id = owner.upload(name="a.pdf")[0]["id"]
    fields = {"name": "a.pdf", "type": "pdf"}
    with meeting(
        owner.database,
        "documents",
        lambda uow: update_document(uow, owner.id, id, {"name": "b.pdf"}),
        lambda uow: create_document(uow, owner.id, fields, OnDuplicate.NEW_VERSION),
    ) as uploaded:
        row, outcome = uploaded.result(20)
    assert (outcome, row["name"], row["version"]) == (Outcome.CREATED, "a.pdf", 1)
    with owner.database.unit_of_work() as uow:
        assert uow.documents.get(owner.id, id)["version"] == 1


def test_a_document_that_is_deleted_meanwhile_is_uploaded_anew(owner: Owner) -> None:
    """An upload that waited for a document which is then deleted creates another."""
    id = owner.upload(name="a.pdf")[0]["id"]
    fields = {"name": "a.pdf", "type": "pdf"}
    with meeting(
        owner.database,
        "documents",
        lambda uow: delete_document(uow, owner.id, id),
        lambda uow: create_document(uow, owner.id, fields, OnDuplicate.RETURN_EXISTING),
    ) as uploaded:
        row, outcome = uploaded.result(20)
    assert outcome is Outcome.CREATED
    assert row["id"] != id
