"""What is kept for a time goes in batches once that is over, and nothing else does."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.requests import KEPT
from morag_meta.db.schema import request_records, sessions
from morag_meta.uow import UnitOfWork
from tests.db.accounts import made


def _age_sessions(uow: UnitOfWork, owner: str, age: dt.timedelta) -> None:
    uow.sessions.add(owner, str(uuid.uuid4()), refresh_hash=uuid.uuid4().hex, expire_time=uow.now - age)


def _age_records(uow: UnitOfWork, owner: str, age: dt.timedelta) -> None:
    key = {"owner_id": owner, "method": "X.Y", "request_id": uuid.uuid4().hex, "fingerprint": "f"}
    uow.run(sa.insert(request_records), **key, create_time=uow.now - KEPT - age)


def _sweep(database: Database, table: sa.Table, limit: int) -> int:
    with database.unit_of_work() as uow:
        number = (uow.sessions if table is sessions else uow.requests).sweep(limit)
        uow.commit()
    return number


@pytest.mark.parametrize(
    ("table", "add"),
    [(sessions, _age_sessions), (request_records, _age_records)],
    ids=["sessions", "records"],
)
def test_what_is_over_goes_in_batches(
    database: Database, table: sa.Table, add: Callable[[UnitOfWork, str, dt.timedelta], None]
) -> None:
    """Each transaction removes at most its limit, the oldest first; what is not over stays."""
    owner = made(database)
    with database.unit_of_work() as uow:
        for minutes in (1, 2, 3, 4, 5, -1):
            add(uow, owner, dt.timedelta(minutes=minutes))
        uow.commit()
    left = sa.select(sa.func.count().label("n")).where(table.c.owner_id == sa.bindparam("owner"))
    seen = []
    for _ in range(4):
        removed = _sweep(database, table, 2)
        with database.unit_of_work() as uow:
            row = uow.one(left, owner=owner)
        assert row is not None
        seen.append((removed, row["n"]))
    assert seen == [(2, 4), (2, 2), (1, 1), (0, 1)]
