"""Time that passes for one job: everything that is dated on its row moves back, as no test waits for days."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.schema import job_events, jobs

_TIMES = tuple(column for column in jobs.c if column.name.endswith("_time") or column.name == "not_before")


def let_pass(database: Database, job_id: str, **passed: float) -> None:
    """Let time pass for a job and its events, as long as a timedelta of these parts."""
    back = dt.timedelta(**passed)
    with database.unit_of_work() as uow:
        row = row_of(database, job_id)
        moved = {column.name: row[column.name] - back for column in _TIMES if row[column.name] is not None}
        uow.connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(**moved))
        of_job = job_events.c.job_id == job_id
        told = uow.connection.execute(sa.select(job_events.c.number, job_events.c.create_time).where(of_job))
        moves = [{"nth": number, "earlier": time - back} for number, time in told]
        uow.run_many(
            sa.update(job_events)
            .where(of_job, job_events.c.number == sa.bindparam("nth"))
            .values(create_time=sa.bindparam("earlier")),
            moves,
        )
        uow.commit()


def row_of(database: Database, job_id: str) -> dict[str, Any]:
    """Give the row of a job."""
    with database.engine.connect() as connection:
        found = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().one()
    return dict(found)


def events_of(database: Database, job_id: str) -> list[dict[str, Any]]:
    """Give the events of a job, in their order."""
    wanted = sa.select(job_events).where(job_events.c.job_id == job_id).order_by(job_events.c.number)
    with database.engine.connect() as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]
