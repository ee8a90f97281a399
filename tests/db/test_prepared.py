"""Statements that are made ready once give what SQLAlchemy would give at each execution."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.schema import documents
from morag_meta.ids import new_id
from tests.db.accounts import made

_ONE = sa.select(documents).where(documents.c.id == sa.bindparam("one"))
_SOME = sa.select(documents.c.id).where(documents.c.id.in_(sa.bindparam("some", expanding=True)))
_TRAPS = "100 % %s %(one)s :one ? \\ ' \" ; -- \u00e9\u4e2d"


@contextmanager
def listening(database: Database) -> Iterator[None]:
    """Have SQLAlchemy run every statement itself, as it does while somebody listens."""

    def listen(*_: Any) -> None:
        return

    sa.event.listen(database.engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", listen)


def added(database: Database) -> str:
    """Add a document with values of every type, and give its id."""
    owner = made(database)
    fields = {
        "name": _TRAPS,
        "type": "pdf",
        "source": None,
        "size_bytes": 2**40,
        "quality": 0.125,
        "metadata": {"text": _TRAPS, "nested": [1, None, True, 0.5]},
        "ingest_time": dt.datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=dt.UTC),
    }
    with database.unit_of_work() as uow:
        row = uow.documents.add(owner, fields)
        uow.commit()
    return str(row["id"])


def test_both_ways_write_and_read_the_same(database: Database) -> None:
    """Rows written and read by either way are equal, in every type and with every odd character."""
    ids = [added(database)]
    with listening(database):
        ids.append(added(database))
        with database.unit_of_work() as uow:
            slowly = [uow.one(_ONE, one=id) for id in ids]
    with database.unit_of_work() as uow:
        ready = [uow.one(_ONE, one=id) for id in ids]

    assert ready == slowly
    assert [row and (row["name"], row["metadata"]["text"]) for row in ready] == [(_TRAPS, _TRAPS)] * 2
    assert [row and type(row["size_bytes"]) for row in ready] == [int, int]


def test_what_runs_soon_is_kept_as_it_was_said(database: Database) -> None:
    """A statement that travels with the next one writes the same values, signs of percent among them."""
    id = added(database)
    rename = (
        sa.update(documents)
        .where(documents.c.id == sa.bindparam("one"))
        .values(source=sa.bindparam("new_source"))
    )
    with database.unit_of_work() as uow:
        uow.run_soon(rename, one=id, new_source=_TRAPS)
        read = uow.one(_ONE, one=id)
        uow.run_soon(rename, one=id, new_source=f"{_TRAPS}!")
        uow.commit()
    with database.unit_of_work() as uow:
        kept = uow.one(_ONE, one=id)

    assert read is not None
    assert read["source"] == _TRAPS
    assert kept is not None
    assert kept["source"] == f"{_TRAPS}!"


def test_what_was_to_run_soon_is_gone_with_a_rollback(database: Database) -> None:
    """Leaving the unit without COMMIT leaves nothing of it."""
    id = added(database)
    change = (
        sa.update(documents).where(documents.c.id == sa.bindparam("one")).values(source=sa.bindparam("new"))
    )
    with database.unit_of_work() as uow:
        uow.run_soon(change, one=id, new="never")
    with database.unit_of_work() as uow:
        kept = uow.one(_ONE, one=id)

    assert kept is not None
    assert kept["source"] is None


def test_a_list_of_any_length_is_found(database: Database) -> None:
    """A statement with a list of values has no prepared form, and works all the same."""
    ids = [added(database) for _ in range(3)]
    with database.unit_of_work() as uow:
        for some in (ids, ids[:1], []):
            found = {row["id"] for row in uow.all(_SOME, some=some)}
            assert found == set(some)


def test_a_forgotten_parameter_is_not_null(database: Database) -> None:
    """A parameter without a value is refused, where NULL would find or write the wrong thing."""
    with database.unit_of_work() as uow, pytest.raises(TypeError, match="one"):
        uow.one(_ONE, owner_id=new_id())
