"""The unit of work: kept when it says so, together or not at all, and what follows follows the commit."""

from __future__ import annotations

import ast
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import morag_meta
from morag_meta.db.database import Database
from morag_meta.db.schema import users
from morag_meta.errors import AlreadyExists
from morag_meta.uow import UnitOfWork
from tests.db.accounts import add, exists, made, name_of, new_email, rename


def test_leaving_without_commit_keeps_nothing(database: Database) -> None:
    """A block that ends without commit() has done nothing."""
    email = new_email()
    with database.unit_of_work() as uow:
        add(uow, email)
        assert uow.users.find_by_email(email) is not None
    assert not exists(database, email)


def test_commit_keeps_everything(database: Database) -> None:
    """What stands before commit() is kept, and what comes after it in the block is not."""
    one, two = new_email(), new_email()
    with database.unit_of_work() as uow:
        add(uow, one)
        uow.commit()
        uow.begin()
        add(uow, two)
    assert (exists(database, one), exists(database, two)) == (True, False)


def test_an_exception_keeps_nothing(database: Database) -> None:
    """A block that raises has done nothing, and the exception comes out as it was."""
    email, error = new_email(), KeyError("mine")

    def block() -> None:
        with database.unit_of_work() as uow:
            add(uow, email)
            raise error

    with pytest.raises(KeyError) as caught:
        block()
    assert caught.value is error
    assert not exists(database, email)


async def test_a_failing_write_keeps_nothing(database: Database) -> None:
    """Work that raises in the worker's thread has done nothing, and says what it said."""
    email = new_email()

    def work(uow: UnitOfWork) -> None:
        add(uow, email)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.write(work)
    assert not exists(database, email)
    await database.write(lambda uow: add(uow, email))
    assert exists(database, email)


def test_a_unit_with_a_failed_statement_cannot_be_committed(database: Database) -> None:
    """Who swallows a database's refusal cannot commit half of what was meant, whichever database it is."""
    taken, email = new_email(), new_email()
    with database.unit_of_work() as uow:
        add(uow, taken)
        uow.commit()
    with database.unit_of_work() as uow:
        add(uow, email)
        with pytest.raises(AlreadyExists):
            add(uow, taken)
        with pytest.raises(RuntimeError, match="failed"):
            uow.users.find_by_email(email)
        with pytest.raises(RuntimeError, match="failed"):
            uow.commit()
    assert not exists(database, email)


def test_a_transaction_is_not_begun_twice(database: Database) -> None:
    """Beginning again would commit what was done so far on some databases, so it is an error."""
    with database.unit_of_work() as uow, pytest.raises(RuntimeError):
        uow.begin()


def test_effects_follow_the_commit_alone(database: Database) -> None:
    """Effects run once, in their order, after the rows are there for others; never after a rollback."""
    email, seen = new_email(), []
    with database.unit_of_work() as uow:
        add(uow, email)
        uow.after_commit(lambda: seen.append(("first", exists(database, email))))
        uow.after_commit(lambda: seen.append(("second", True)))
        assert seen == []
        uow.commit()
        uow.begin()
        uow.after_commit(lambda: seen.append(("never", True)))
    assert seen == [("first", True), ("second", True)]


def test_announcements_follow_the_commit_alone(database: Database) -> None:
    """Each announced topic is told once, to every listener, in the committing thread, after the commit."""
    email, heard = new_email(), []
    for _ in range(2):
        database.listen(lambda topics: heard.append((topics, threading.get_ident(), exists(database, email))))
    with database.unit_of_work() as uow:
        uow.announce("a/1")
        uow.rollback()
        uow.begin()
        add(uow, email)
        for topic in ("b/1", "b/2", "b/1"):
            uow.announce(topic)
        assert heard == []
        uow.commit()
        uow.begin()
        uow.announce("c/1")
    assert heard == [(("b/1", "b/2"), threading.get_ident(), True)] * 2


def test_a_unit_has_one_time(database: Database) -> None:
    """Everything that a unit writes bears one time, which is aware UTC."""
    with database.unit_of_work() as uow:
        one, two = add(uow, new_email()), add(uow, new_email())
        assert one["create_time"] == two["update_time"] == uow.now
        assert uow.now.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


def test_a_connection_is_given_back_clean(database: Database) -> None:
    """After a unit that failed, the same connection serves the next without a transaction left over."""
    id = made(database)

    def block() -> None:
        with database.unit_of_work() as uow:
            rename(uow, id, "half")
            raise ZeroDivisionError

    for _ in range(20):  # more than there are connections
        with pytest.raises(ZeroDivisionError):
            block()
    with database.unit_of_work() as uow:
        rename(uow, id, "whole")
        uow.commit()
    assert name_of(database, id) == "whole"


async def test_a_snapshot_agrees_with_itself(database: Database) -> None:
    """Statements of a snapshot see one state, though a change is committed between them."""
    id = made(database)
    names: list[Any] = []

    def read(uow: UnitOfWork) -> None:
        statement = sa.select(users.c.name).where(users.c.id == sa.bindparam("user_id"))
        for name in ("one", "two"):
            row = uow.one(statement, user_id=id)
            names.append(row and row["name"])
            with database.unit_of_work() as other:
                rename(other, id, name)
                other.commit()

    await database.read(read, snapshot=True)
    assert names == ["Ada", "Ada"]
    assert name_of(database, id) == "two"


async def test_a_plain_read_opens_no_transaction(database: Database) -> None:
    """Each statement of a plain read sees what was committed before it."""
    id = made(database)
    names: list[Any] = []

    def read(uow: UnitOfWork) -> None:
        statement = sa.select(users.c.name).where(users.c.id == sa.bindparam("user_id"))
        for name in ("one", "two"):
            with database.unit_of_work() as other:
                rename(other, id, name)
                other.commit()
            row = uow.one(statement, user_id=id)
            names.append(row and row["name"])

    await database.read(read)
    assert names == ["one", "two"]


def test_nothing_below_the_unit_of_work_commits() -> None:
    """No store, action, rule, converter or servicer commits or rolls back; only who opened the unit does."""
    root = Path(morag_meta.__file__).parent
    for path in root.rglob("*.py"):
        if path.stem not in ("store", "actions", "rules", "convert", "servicer", "listing", "statements"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("commit", "rollback", "begin"), f"{path}:{node.lineno}"
