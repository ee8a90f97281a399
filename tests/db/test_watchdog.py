"""The watchdog: what it cuts, and that nothing ends it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

from morag_meta.db.database import Database
from morag_meta.db.engine import DatabaseOptions
from morag_meta.errors import Unavailable
from morag_meta.uow import UnitOfWork
from tests.cli.command import restored_logging

_ENDLESS = sa.text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")


def _run_endlessly(uow: UnitOfWork) -> None:
    uow.one(_ENDLESS)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Log to a disk without room, in the way that lets whoever logs know."""
    full = os.open("/dev/full", os.O_WRONLY)
    with restored_logging(), open(full, "wb", buffering=0) as disk:  # noqa: PTH123 - a descriptor
        structlog.configure(
            processors=[structlog.processors.JSONRenderer(serializer=lambda line, **_: repr(line).encode())],
            logger_factory=structlog.BytesLoggerFactory(disk),
        )
        with pytest.raises(OSError, match="No space left"):
            structlog.get_logger().warning("x")
        yield


async def test_a_log_that_fails_does_not_end_the_watchdog(full_disk: None, tmp_path: Path) -> None:
    """Of two endless statements both are cut, although not a line about the first can be written."""
    database = Database(DatabaseOptions(url=f"sqlite:///{tmp_path / 'morag.db'}", statement_timeout=0.1))
    running = [database.read(_run_endlessly) for _ in range(2)]
    ended = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 30)
    assert [type(error) for error in ended] == [Unavailable, Unavailable]
    database.close()
