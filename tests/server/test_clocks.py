"""A process whose clock is an hour off: what is kept for a time goes when that is over by the database's."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.requests import KEPT
from morag_meta.db.schema import metadata
from morag_meta.db.unit import Unit
from morag_meta.server.sweeper import Retention, sweep, sweeps
from tests.db.rows import engine_of, fill, sample

HOUR: Final = dt.timedelta(hours=1)
HALF: Final = HOUR / 2
DAY: Final = dt.timedelta(days=1)
SWEPT: Final[Mapping[str, tuple[str, dt.timedelta]]] = {
    "request_records": ("create_time", KEPT),
    "password_resets": ("expire_time", dt.timedelta()),
    "reset_requests": ("ask_time", HOUR),
    "tries": ("expire_time", dt.timedelta()),
    "sessions": ("expire_time", dt.timedelta()),
    "api_key_calls": ("day", 92 * DAY),
    "audit_events": ("time", 365 * DAY),
}
"""What is swept by a time of its own: by which column, and how long after that."""


@pytest.mark.parametrize("offset", [-HOUR, HOUR], ids=["an hour late", "an hour early"])
def test_a_sweep_goes_by_the_databases_clock(
    database_url: str, offset: dt.timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has half an hour to live is left alone, and what has been over for as long goes."""
    migrate.upgrade(database_url)
    fill(database_url, {"users", "api_keys", *SWEPT})
    database = Database.open(database_url)
    wrong = property(lambda _: dt.datetime.now(dt.UTC) + offset)
    monkeypatch.setattr(Unit, "now", wrong)

    _end_all(database_url, HALF)
    _sweep(database)
    living = _left(database_url)
    _end_all(database_url, -HALF)
    _sweep(database)
    over = _left(database_url)
    database.close()

    assert living == set(SWEPT)
    assert over == set()


def test_all_that_is_swept_is_looked_at() -> None:
    """What is not here goes by the times of jobs and workers, which have tests of their own."""
    assert sweeps(Retention()).keys() - SWEPT.keys() == {"jobs", "job_events", "workers"}
    assert SWEPT.keys() <= sample().keys()


def _end_all(url: str, left: dt.timedelta) -> None:
    """Let the time of every row be over in so long."""
    now = dt.datetime.now(dt.UTC)
    with engine_of(url).begin() as connection:
        for name, (column, kept) in SWEPT.items():
            values: dict[str, Any] = {column: now + left - kept}
            connection.execute(sa.update(metadata.tables[name]).values(values))


def _sweep(database: Database) -> None:
    async def swept() -> None:
        for batch in sweeps(Retention()).values():
            await sweep(database, batch, asyncio.Event())

    asyncio.run(swept())


def _left(url: str) -> set[str]:
    with engine_of(url).connect() as connection:
        return {
            name for name in SWEPT if connection.execute(sa.select(metadata.tables[name]).limit(1)).first()
        }
