"""What the writer does when the database refuses, breaks off, or comes back: nothing twice, nothing mute."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, cast

import pytest
import structlog

from morag_meta.audit.rules import Actor, Entry
from morag_meta.audit.store import Filter
from morag_meta.audit.writer import AuditWriter
from morag_meta.db.database import Database
from morag_meta.db.unit import CommitUnknown
from morag_meta.errors import Reason, Unavailable
from morag_meta.uow import UnitOfWork
from tests.service import Service

Work = Callable[[UnitOfWork], Any]


class _Unknown(enum.StrEnum):
    SOMEBODY = "SOMEBODY"  # which the table's check does not know


class _Line:
    """A database whose writes end as a test says, whatever became of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ends: list[tuple[bool, Exception]] = []  # whether it is written, and what is said of it

    async def write(self, work: Work) -> None:
        """Write, and say what is next to be said."""
        if not self.ends:
            return await self._database.write(work)
        takes, error = self.ends.pop(0)
        if takes:
            await self._database.write(work)
        raise error


@pytest.fixture
def line(service: Service) -> _Line:
    """Give a line to the service's database."""
    return _Line(service.database)


@pytest.fixture
def writer(line: _Line) -> AuditWriter:
    """Give a writer behind that line."""
    return AuditWriter(cast("Database", line))


def _entry(event: str, number: int = 0, actor: Any = Actor.PUBLIC) -> Entry:
    return Entry(event=event, method=f"Try.Number{number}", outcome="NOT_FOUND", actor=actor)


def _counts(service: Service, event: str) -> list[int]:
    with service.database.unit_of_work() as uow:
        return sorted(row["count"] for row in uow.audit.page(Filter(event=event), None, 1000))


async def test_an_entry_that_is_refused_takes_no_other_with_it(service: Service, writer: AuditWriter) -> None:
    """It is dropped, counted and logged by its method alone; what waits beside and behind it is written."""
    for number in range(3):
        writer.note(_entry("poison.beside", number))
    unknown = cast("Actor", _Unknown.SOMEBODY)
    writer.note(Entry("poison.bad", "Bad.Method", actor=unknown, agent="told", count=2))
    for number in range(600):
        writer.note(_entry("poison.behind", number))
    with structlog.testing.capture_logs() as logs:
        await writer.flush()
        await writer.flush()
    assert _counts(service, "poison.beside") == [1] * 3
    assert _counts(service, "poison.behind") == [1] * 600
    assert _counts(service, "poison.bad") == []
    assert writer.dropped == 2
    (said,) = [line for line in logs if line["log_level"] == "error"]
    assert said["method"] == "Bad.Method"
    assert "told" not in str(logs)
    assert "SOMEBODY" not in str(logs)


@pytest.mark.parametrize("takes", [True, False])
async def test_a_commit_in_doubt_is_settled(
    service: Service, writer: AuditWriter, line: _Line, takes: bool
) -> None:
    """Whether it took or not, each entry is there once, and equal ones of later are counted beside it."""
    event = f"doubt.{takes}"
    for number in range(3):
        writer.note(_entry(event, number))
    line.ends = [(takes, CommitUnknown()), (False, _away()), (takes, CommitUnknown())]
    for _ in range(3):
        await writer.flush()
        writer.note(_entry(event, 0))
    await writer.flush()
    assert sum(_counts(service, event)) == 6
    assert _counts(service, event) == [1, 1, 1, 3]
    await writer.flush()
    assert sum(_counts(service, event)) == 6
    assert writer.dropped == 0


async def test_a_doubt_while_entries_go_one_by_one_is_settled(
    service: Service, writer: AuditWriter, line: _Line
) -> None:
    """A COMMIT that breaks while a refused entry is looked for has nothing written twice, or not at all."""
    for number in range(3):
        writer.note(_entry("doubt.single", number))
    line.ends = [(False, ValueError("no")), (True, CommitUnknown())]
    for _ in range(2):
        await writer.flush()
    assert _counts(service, "doubt.single") == [1, 1, 1]
    assert writer.dropped == 0


def _away() -> Unavailable:
    return Unavailable("the database is away", reason=Reason.DATABASE_UNAVAILABLE)


async def test_what_came_before_an_outage_is_counted_with_what_comes_after(
    service: Service, writer: AuditWriter, line: _Line
) -> None:
    """Equal entries of a long outage stay one row, and nothing of them is dropped."""
    line.ends = [(False, _away())] * 5
    for _ in range(6):
        writer.note(_entry("outage.try"))
        await writer.flush()
    assert _counts(service, "outage.try") == [6]
