"""What is kept for a time is removed after it, however much of it there is."""

from __future__ import annotations

import asyncio
import datetime as dt

import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.requests import KEPT
from morag_meta.db.schema import request_records
from morag_meta.server.sweeper import Retention, sweep, sweeps

OLD, NEW = 2300, 7


def test_a_sweep_removes_every_old_record_and_no_other(database_url: str) -> None:
    """Records older than a day go, in as many batches as it takes, and the young ones stay."""
    migrate.upgrade(database_url)
    database = Database.open(database_url)
    now = dt.datetime.now(dt.UTC)
    records = [
        {
            "owner_id": "",
            "method": "m",
            "request_id": str(number),
            "fingerprint": "f",
            "receipt": {},
            "create_time": now
            - (KEPT + dt.timedelta(seconds=number + 1) if number < OLD else dt.timedelta()),
        }
        for number in range(OLD + NEW)
    ]
    with database.unit_of_work() as uow:
        uow.run_many(sa.insert(request_records), records)
        uow.commit()

    async def swept() -> int:
        return await sweep(database, sweeps(Retention())["request_records"], asyncio.Event())

    assert asyncio.run(swept()) == OLD
    with database.unit_of_work() as uow:
        left = uow.connection.execute(sa.select(sa.func.count()).select_from(request_records)).scalar_one()
    database.close()

    assert left == NEW
