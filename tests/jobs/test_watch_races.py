"""What happens between two looks of a watcher: what it was promised may be gone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from morag_meta.auth.principal import ANONYMOUS, Role
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.errors import NotFound
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.feed import Feed
from morag_meta.jobs.watch import _Watcher
from morag_meta.rpc.access import Access
from morag_meta.rpc.stream import Stream, StreamOptions
from morag_meta.rpc.turns import Turns
from morag_meta.users.actions import create_user


class _Wire:
    """Where a stream's bytes go."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self.sent.append(data)


def test_a_job_deleted_between_two_looks_ends_its_stream_at_once(database_url: str) -> None:
    """A watcher of a job that goes before its events are read is told NOT_FOUND, without a poll."""
    migrate.upgrade(database_url)
    database = Database.open(database_url)
    with database.unit_of_work() as uow:
        owner = create_user(uow, name="Owner", email="owner@example.org")["id"]
        job = create_job(uow, owner, kind="REINDEX")["id"]
        uow.commit()

    async def watch() -> float:
        feed = Feed(database, 60.0, lambda _: None)
        feed.start()
        stream = Stream(
            _Wire(),
            StreamOptions(),
            Turns(),
            ANONYMOUS,
            Access(public=False, minimum_role=Role.VIEWER, scopes=()),
            "",
        )
        watcher: Any = _Watcher(feed, stream, owner, job, 0)
        found, _ = await watcher.open()
        await database.write(lambda uow: uow.jobs.delete_all(owner))
        topic, _ = feed.subscribe(job, found, stream)
        started = time.monotonic()
        with pytest.raises(NotFound):
            await asyncio.wait_for(watcher.follow(topic, behind=True), 5.0)
        return time.monotonic() - started

    assert asyncio.run(watch()) < 5.0
    database.close()
