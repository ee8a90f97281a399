"""Removing jobs and events while others do the same, or work on jobs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from morag_meta.db.schema import job_events
from morag_meta.db.statements import EVERYONE
from morag_meta.jobs.removal import Purged
from tests.backends.databases import chosen_kinds
from tests.jobs.written import Shelf

DAY = dt.timedelta(days=1)


@pytest.mark.parametrize("kind", ["purge", "events"])
def test_several_removals_at_once_share_the_work(shelf: Shelf, kind: str) -> None:
    """Of many at once none fails or waits for another's end, and together they remove everything once."""
    owners = [shelf.owner() for _ in range(3)]
    previous: list[str | None] = [None] * 3
    for _ in range(20):
        for place, owner in enumerate(owners):
            given = {"state": "FAILED", "predecessor_id": previous[place], "event_number": 3}
            (previous[place],) = shelf.write(owner, given, events=3, first=1)
    shelf.do(
        lambda uow: uow.connection.execute(sa.update(job_events).values(create_time=shelf.now - 9 * DAY))
    )
    steps: dict[str, Callable[[], tuple[int, bool]]] = {
        "purge": lambda: dataclasses.astuple(shelf.purge(EVERYONE, limit=7)),
        "events": lambda: _trim(shelf),
    }
    counts, errors = _at_once(steps[kind])

    assert errors == []
    assert sum(counts) == (60 if kind == "purge" else 120)
    assert len(shelf.job_ids()) == (0 if kind == "purge" else 60)


def _trim(shelf: Shelf) -> tuple[int, bool]:
    removed = shelf.do(lambda uow: uow.job_removals.expire_events(DAY, 10))
    return removed, bool(shelf.column(sa.select(job_events.c.number).where(job_events.c.number < 3)))


def _at_once(step: Callable[[], tuple[int, bool]]) -> tuple[list[int], list[BaseException]]:
    """Have four threads take a step for as long as there is more to do; give the counts and the errors."""
    counts: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        more = True
        try:
            while more:
                count, more = step()
                counts.append(count)
        except BaseException as error:  # noqa: BLE001 - whatever it is fails the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, errors


_BESIDE = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)


@_BESIDE
def test_a_job_whose_successor_is_busy_is_left_for_later(shelf: Shelf) -> None:
    """While somebody holds the lock of a job, its predecessor stays, nothing waits, and the rest goes."""
    owner = shelf.owner()
    (held,) = shelf.write(owner, {"state": "FAILED"}, first=1)
    (successor,) = shelf.write(owner, {"state": "PENDING", "predecessor_id": held}, first=11)
    shelf.write(owner, {}, first=21)
    with shelf.database.unit_of_work() as uow:
        uow.jobs.lock(owner, successor)
        assert shelf.purge(owner) == Purged(1, more=True)
        assert shelf.job_ids() == {held, successor}

    assert shelf.purge(owner) == Purged(1, more=False)
    assert shelf.job_ids() == {successor}


@_BESIDE
def test_a_removal_waits_for_nobody_who_reports(shelf: Shelf) -> None:
    """Jobs that somebody has locked are passed over, by the purge and by the trimming of events."""
    owner = shelf.owner()
    free, held = shelf.write(owner, {"event_number": 2}, {"event_number": 2}, first=1)
    for job_id in (free, held):
        shelf.age_events(job_id, [9 * DAY] * 2)
    with shelf.database.unit_of_work() as uow:
        uow.jobs.lock(owner, held)
        assert shelf.do(lambda other: other.job_removals.expire_events(DAY)) == 1
        assert shelf.purge(owner) == Purged(1, more=True)

    assert (shelf.job_ids(), shelf.numbers(held)) == ({held}, [1, 2])


@_BESIDE
def test_a_held_job_of_very_many_events_keeps_no_other(shelf: Shelf) -> None:
    """A purge passes over the longest ended job where somebody holds it, whatever it alone would remove."""
    owner = shelf.owner()
    ago = shelf.now - DAY
    (held,) = shelf.write(owner, {"event_number": 30_000, "end_time": ago})
    shelf.write(owner, {}, {}, first=11)
    with shelf.database.unit_of_work() as uow:
        uow.jobs.lock(EVERYONE, held)
        assert shelf.purge(owner) == Purged(2, more=True)
    assert shelf.job_ids() == {held}


@_BESIDE
def test_old_events_of_a_held_job_keep_no_others(shelf: Shelf) -> None:
    """Where all that one look finds is of jobs that somebody holds, the events behind it go."""
    owner = shelf.owner()
    held = shelf.write(owner, {"event_number": 5}, {"event_number": 5}, events=5, first=1)
    (free,) = shelf.write(owner, {"event_number": 3}, events=3, first=11)
    for job_id in held:
        shelf.age_events(job_id, [9 * DAY] * 5)
    shelf.age_events(free, [5 * DAY] * 3)
    with shelf.database.unit_of_work() as uow:
        for job_id in held:
            uow.jobs.lock(EVERYONE, job_id)
        assert shelf.do(lambda uow: uow.job_removals.expire_events(DAY, 4)) == 2
    assert (shelf.numbers(free), shelf.numbers(held[0])) == ([3], [1, 2, 3, 4, 5])
