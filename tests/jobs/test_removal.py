"""PurgeJobs and retention: what goes, what stays, and what watchers can tell from the log."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from morag_meta.db.schema import job_checkpoints, job_events, job_log, jobs
from morag_meta.db.statements import EVERYONE
from morag_meta.jobs.removal import Purged
from tests.jobs.written import Shelf

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def test_only_jobs_that_ended_before_the_time_go(shelf: Shelf) -> None:
    """Open jobs stay however old, and so do those that ended at the time or after it."""
    owner, time = shelf.owner(), shelf.now - DAY
    gone = shelf.write(
        owner, *({"end_time": time - HOUR, "state": s} for s in ("FINISHED", "FAILED", "CANCELLED"))
    )
    old = {"create_time": time - 9 * DAY, "end_time": None}
    stay = shelf.write(
        owner,
        {"end_time": time},
        {"end_time": time + HOUR},
        *({"state": s, **old} for s in ("PENDING", "WAITING_FOR_REMOTE_WORKER", "PROCESSING")),
        first=100,
    )

    assert shelf.purge(owner, time) == Purged(len(gone), more=False)

    assert shelf.job_ids() == set(stay)
    assert set(shelf.column(sa.select(job_events.c.job_id))) == set(stay)


def test_the_longest_ended_go_first(shelf: Shelf) -> None:
    """Of more jobs than may be removed at once the longest ended go, and it says that more are left."""
    owner = shelf.owner()
    ids = shelf.write(owner, *({"end_time": shelf.now - n * HOUR} for n in (1, 5, 3, 2, 4)))

    assert shelf.purge(owner, limit=2) == Purged(2, more=True)
    assert shelf.job_ids() == {ids[0], ids[2], ids[3]}
    assert shelf.purge(owner, limit=3) == Purged(3, more=False)
    assert shelf.purge(owner) == Purged(0, more=False)


def test_jobs_with_very_many_events_go_in_several_calls(shelf: Shelf) -> None:
    """One transaction removes some 20,000 events at most, but always at least one job."""
    owner = shelf.owner()
    shelf.write(owner, *({"event_number": count} for count in (30_000, 15_000, 4_000, 15_000)))

    assert [shelf.purge(owner) for _ in range(4)] == [
        Purged(1, more=True),
        Purged(2, more=True),
        Purged(1, more=False),
        Purged(0, more=False),
    ]


def test_successors_and_checkpoints_are_let_go(shelf: Shelf) -> None:
    """A checkpoint goes with its job, and the job that repeats it stays, without naming it any more."""
    owner = shelf.owner()
    (first,) = shelf.write(owner, {"state": "FAILED", "end_time": shelf.now - DAY})
    (second,) = shelf.write(owner, {"state": "PENDING", "predecessor_id": first}, first=50)
    point = {"job_id": first, "owner_id": owner, "attempt": 1, "data": b"x", "update_time": shelf.now}
    shelf.do(lambda uow: uow.run(sa.insert(job_checkpoints), **point))

    assert shelf.purge(owner).jobs == 1

    assert shelf.job_ids() == {second}
    assert shelf.column(sa.select(jobs.c.predecessor_id)) == [None]
    assert shelf.column(sa.select(job_checkpoints.c.job_id)) == []


def test_a_chain_of_successors_goes_as_one(shelf: Shelf) -> None:
    """Jobs that repeat each other are removed together when all of them have ended."""
    owner = shelf.owner()
    chain: list[str | None] = [None]
    for place in range(4):
        chain += shelf.write(owner, {"state": "FAILED", "predecessor_id": chain[-1]}, first=10 * place + 1)

    assert shelf.purge(owner) == Purged(4, more=False)
    assert shelf.job_ids() == set()


def test_an_owners_floor_is_the_highest_position_removed(shelf: Shelf) -> None:
    """An owner's floor rises to what was removed of that owner; nobody else's moves, and none ever falls."""
    one, other = shelf.owner(), shelf.owner()
    shelf.write(one, {"end_time": shelf.now - 2 * HOUR}, {"end_time": shelf.now - DAY}, first=1)
    shelf.write(other, {"end_time": shelf.now - DAY}, first=5)
    shelf.do(lambda uow: uow.run(sa.update(job_log).values(position=6)))

    shelf.purge(one, shelf.now - 20 * HOUR)
    assert (shelf.floors(), shelf.log()) == ({one: 4}, (6, 1))
    shelf.purge(one)
    assert (shelf.floors(), shelf.log()) == ({one: 4}, (6, 2))
    shelf.purge(other)
    assert (shelf.floors(), shelf.log()) == ({one: 4, other: 6}, (6, 3))
    shelf.purge(EVERYONE)
    assert shelf.log() == (6, 3)


def test_one_call_raises_the_floors_of_all_owners(shelf: Shelf) -> None:
    """A purge of everybody's jobs raises each owner's own floor, and counts as one removal."""
    owners = [shelf.owner() for _ in range(3)]
    for place, owner in enumerate(owners):
        shelf.write(owner, {}, first=10 * place + 1)

    assert shelf.purge(EVERYONE).jobs == 3
    assert shelf.floors() == {owner: 10 * place + 2 for place, owner in enumerate(owners)}
    assert shelf.log()[1] == 1


def test_events_that_nobody_could_see_yet_take_a_position_of_their_own(shelf: Shelf) -> None:
    """A job goes although its events have no position yet; the floor is then above every position given."""
    one, other = shelf.owner(), shelf.owner()
    shelf.write(one, {}, first=None)
    shelf.write(other, {}, first=1)
    shelf.do(lambda uow: uow.run(sa.update(job_log).values(position=7)))

    assert shelf.purge(EVERYONE).jobs == 2

    assert shelf.floors() == {one: 8, other: 2}
    assert shelf.log() == (8, 1)


def test_deleting_a_users_jobs_is_told_as_a_removal(shelf: Shelf) -> None:
    """Every job of a user goes, open or not, and the floor and the count of removals say so."""
    owner, other = shelf.owner(), shelf.owner()
    shelf.write(owner, {"state": "PENDING"}, {}, first=3)
    kept = shelf.write(other, {}, first=20)
    shelf.do(lambda uow: uow.run(sa.update(job_log).values(position=30)))

    assert shelf.do(lambda uow: uow.jobs.delete_all(owner)) == 2
    assert (shelf.floors(), shelf.log(), shelf.job_ids()) == ({owner: 6}, (30, 1), set(kept))
    shelf.write(owner, {"state": "PENDING"}, first=None)
    assert shelf.do(lambda uow: uow.jobs.delete_all(owner)) == 1
    assert (shelf.floors(), shelf.log()) == ({owner: 31}, (31, 2))
    assert shelf.do(lambda uow: uow.jobs.delete_all(owner)) == 0
    assert shelf.log() == (31, 2)


def test_jobs_are_kept_for_their_retention(shelf: Shelf) -> None:
    """By the database's clock, whoever's they are: those that ended so long ago go, and no others."""
    one, other = shelf.owner(), shelf.owner()
    shelf.write(one, {"end_time": shelf.now - 2 * DAY}, first=1)
    shelf.write(other, {"end_time": shelf.now - 3 * DAY}, first=5)
    (kept,) = shelf.write(other, {"end_time": shelf.now - HOUR, "create_time": shelf.now - 9 * DAY}, first=9)

    assert shelf.do(lambda uow: uow.job_removals.expire_jobs(DAY)) == 2
    assert shelf.job_ids() == {kept}
    assert shelf.floors() == {one: 2, other: 6}
    assert shelf.do(lambda uow: uow.job_removals.expire_jobs(DAY)) == 0


def test_old_events_go_but_for_a_jobs_newest(shelf: Shelf) -> None:
    """Events older than their retention go, oldest first; the newest of a job stays as long as the job."""
    owner = shelf.owner()
    (opened,) = shelf.write(owner, {"state": "PROCESSING", "event_number": 4}, events=4, first=1)
    (ended,) = shelf.write(owner, {"event_number": 3}, events=3, first=5)
    shelf.age_events(opened, [4 * DAY, 3 * DAY, DAY, DAY])
    shelf.age_events(ended, [3 * DAY] * 3)

    assert shelf.do(lambda uow: uow.job_removals.expire_events(2 * DAY)) == 4
    assert (shelf.numbers(opened), shelf.numbers(ended)) == ([3, 4], [3])
    assert (shelf.floors(), shelf.log()[1]) == ({owner: 6}, 1)
    assert shelf.do(lambda uow: uow.job_removals.expire_events(HOUR)) == 1
    assert shelf.numbers(opened) == [4]
    assert shelf.do(lambda uow: uow.job_removals.expire_events(HOUR)) == 0
    assert (shelf.floors(), shelf.log()[1]) == ({owner: 6}, 2)


def test_events_without_a_position_are_not_trimmed(shelf: Shelf) -> None:
    """What the sequencer has not come to yet stays, however old: no watcher could have seen it."""
    owner = shelf.owner()
    (job,) = shelf.write(owner, {"state": "PENDING", "event_number": 3}, events=3, first=None)
    shelf.age_events(job, [3 * DAY] * 3)

    assert shelf.do(lambda uow: uow.job_removals.expire_events(DAY)) == 0
    assert shelf.numbers(job) == [1, 2, 3]


def test_events_are_trimmed_in_batches(shelf: Shelf) -> None:
    """One transaction trims so many events at most, and what is left of a job's is always its newest ones."""
    owner = shelf.owner()
    ids = shelf.write(owner, *({"event_number": 5} for _ in range(3)), events=5, first=1)
    for job_id in ids:
        shelf.age_events(job_id, [9 * DAY - number * HOUR for number in range(5)])

    seen = []
    while removed := shelf.do(lambda uow: uow.job_removals.expire_events(DAY, 5)):
        seen.append(removed)
        assert all(shelf.numbers(job_id) == list(range(6))[-len(shelf.numbers(job_id)) :] for job_id in ids)
    assert seen == [5, 5, 2]
