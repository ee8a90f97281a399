"""How many calls of a user may wait for jobs at once, and what those that differ cost the database."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from morag_meta.db.database import Database
from morag_meta.rpc.places import Places
from morag_meta.uow import UnitOfWork
from morag_meta.workers import openings as looking
from morag_meta.workers.openings import Openings
from morag_meta.workers.rules import Appetite
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service, User, serving
from tests.workers.fleet import Fleet, ids, seconds

_LIMIT = 3
_ALL = jobs_pb2.WatchJobsRequest()


@pytest.fixture(scope="module")
def narrow(backend: Backend) -> Iterator[Service]:
    """Serve with three places for each user."""
    with serving(backend, stream_limit=_LIMIT) as service:
        yield service


@pytest.fixture
def owner(narrow: Service) -> User:
    """Give a fresh user of that server."""
    return narrow.new_user()


def _poll(fleet: Fleet, worker_id: str, **fields: Any) -> Any:
    """Ask for a job, and do not wait for the answer."""
    request = pb.LeaseJobsRequest(worker_id=worker_id, wait=seconds(25), **fields)
    return fleet.stub.LeaseJobs.future(request)


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_user_has_so_many_waiting_calls_and_streams(narrow: Service, owner: User) -> None:
    """One more is refused with the limit and with when to ask again; other users wait all the same."""
    fleet = Fleet(owner.channel)
    worker, other = fleet.register().id, narrow.new_user()
    before = len(narrow.app.openings)
    calls = [_poll(fleet, worker, kinds=[f"K{number}"]) for number in range(2)]
    narrow.wait_for_places(owner, 2)
    stream = owner.channel.jobs.WatchJobs(_ALL)
    next(stream)

    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS") as refusal:
        fleet.lease(worker, wait=25)
    assert (refusal.metadata, refusal.retry) == ({"limit": str(_LIMIT)}, 1.0)
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS") as refusal:
        next(owner.channel.jobs.WatchJobs(_ALL))
    assert (refusal.metadata, refusal.retry) == ({"limit": str(_LIMIT)}, None)
    assert len(narrow.app.openings) == before + 2
    others = Fleet(other.channel)
    calls.append(_poll(others, others.register().id))
    narrow.wait_for_places(other, 1)

    stream.cancel()
    narrow.wait_for_places(owner, 2)
    calls.append(_poll(fleet, worker))
    narrow.wait_for_places(owner, 3)
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS"):
        fleet.lease(worker, wait=25)
    for call in calls:
        call.cancel()
    _until(lambda: len(narrow.app.openings) == before)


def test_a_place_is_free_again_after_each_end_of_a_wait(narrow: Service, owner: User) -> None:
    """Whether a wait ended with a job, without one or with its caller's leaving, its place is another's."""
    fleet, work = Fleet(owner.channel), Work(owner)
    worker = fleet.register().id
    before = len(narrow.app.openings)
    for _ in range(2):
        calls = [_poll(fleet, worker) for _ in range(_LIMIT)]
        narrow.wait_for_places(owner, _LIMIT)
        job = work.add_job(kind="A")
        _until(lambda calls=calls: any(call.done() for call in calls))  # type: ignore[misc]
        (answered,) = [call for call in calls if call.done()]
        assert ids(answered.result().leases) == [job.id]
        assert fleet.lease(worker, wait=0.3) == []
        for call in calls:
            call.cancel()
        _until(lambda: len(narrow.app.openings) == before)


def test_who_need_not_wait_is_answered_without_a_place(narrow: Service, owner: User) -> None:
    """Where all places are taken a call that does not wait is answered, and so is one that finds a job."""
    fleet, work = Fleet(owner.channel), Work(owner)
    worker = fleet.register().id
    before = len(narrow.app.openings)
    calls = [_poll(fleet, worker, kinds=["OTHER"]) for _ in range(_LIMIT)]
    narrow.wait_for_places(owner, _LIMIT)
    assert fleet.lease(worker) == []
    job = work.add_job(kind="A")
    assert ids(fleet.lease(worker, wait=25, kinds=["A"])) == [job.id]
    for call in calls:
        call.cancel()
    _until(lambda: len(narrow.app.openings) == before)


async def test_appetites_of_a_user_are_looked_for_in_turn(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many that differ a look takes so many of each user, those first that waited longest for one."""
    asked: list[Appetite] = []
    enough = asyncio.Event()

    def candidates(appetite: Appetite, _: int) -> Callable[[UnitOfWork], list[Any]]:
        asked.append(appetite)
        if asked.count(others) == 6:  # the last of each look
            enough.set()
        return lambda _: []

    monkeypatch.setattr(looking, "_LOOKED_FOR", 4)
    monkeypatch.setattr(looking, "_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(looking, "_candidates", candidates)
    database = Database.open(service.url)
    openings = Openings(database, lambda: None, Places(1000))
    openings.start()
    mine = [Appetite(user.id, ("PENDING",), (f"K{number}",)) for number in range(10)]
    others = Appetite("another", ("PENDING",))
    with contextlib.ExitStack() as waiting:
        for appetite in (*mine, *mine):
            waiting.enter_context(openings.ticket(user.id, appetite))
        waiting.enter_context(openings.ticket("another", others))
        running = asyncio.create_task(openings.run())
        await asyncio.wait_for(enough.wait(), 20)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    database.close()

    ends = [place for place, appetite in enumerate(asked) if appetite is others][:6]
    looks = [asked[start + 1 : end] for start, end in itertools.pairwise((-1, *ends))]
    assert [len(look) for look in looks] == [4] * 6
    for first in range(4):
        assert set(itertools.chain(*looks[first : first + 3])) == set(mine)
