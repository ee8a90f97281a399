"""Tokens: where a client goes on, for whom a token is good, and what happens when it is too old."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db.schema import job_events, job_floors, job_log
from morag_meta.errors import Invalid
from morag_meta.ids import new_id
from morag_meta.jobs.listing import Filter
from morag_meta.jobs.resume import MOST_SEEN, Place, Seal
from morag_meta.server.secrets import root_secrets
from moragmeta.v1 import jobs_pb2 as pb
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.jobs.many import Many, numbers_by_job
from tests.refusals import refused
from tests.service import Service

KEY = bytes(range(32))
STORE = new_id()


def _seal(**chosen: Any) -> Seal:
    return Seal(KEY, STORE, Filter(**{"owner_id": "o"} | chosen))


def test_a_token_says_its_place_again() -> None:
    """What a token was made of comes out of it: the position, and the jobs whose snapshots were newer."""
    seal, seen = _seal(), {new_id(): number for number in range(1, MOST_SEEN + 1)}

    assert seal.open(seal.make(0)) == Place(0)
    assert seal.open(seal.make(2**60, seen)) == Place(2**60, seen)
    assert seal.open(seal.begin()) == Place(None)
    assert len(seal.make(2**60, seen)) <= 1000


def test_a_token_holds_for_one_store_reach_and_filter() -> None:
    """Another key, store, owner or filter refuses it; the order of a list in the filter is no difference."""
    token = _seal(kinds=("A", "B")).make(7)
    others = [
        Seal(bytes(32), STORE, Filter("o", kinds=("A", "B"))),
        Seal(KEY, new_id(), Filter("o", kinds=("A", "B"))),
        _seal(kinds=("A", "B"), owner_id="-"),
        _seal(kinds=("A",)),
        _seal(document_types=("A", "B")),
    ]

    assert _seal(kinds=("B", "A")).open(token) == Place(7)
    for other in others:
        with pytest.raises(Invalid):
            other.open(token)


def test_a_damaged_token_is_refused() -> None:
    """Any other spelling of a token, and anything that is none, is refused."""
    seal, chance = _seal(), random.Random(3)  # noqa: S311 - a test's choice of damage
    token = seal.make(12345, {new_id(): 3})
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
    damaged = {token[:at] + chance.choice(letters) + token[at + 1 :] for at in range(len(token))} - {token}
    for text in [*damaged, token[:-4], token + "AAAA", token + "=", "", "é", "AAAA", " " + token]:
        with pytest.raises(Invalid):
            seal.open(text)


def test_a_foreign_token_tells_nothing(service: Service, work: Work) -> None:
    """Another user's token, one of another filter, and garbage are INVALID_ARGUMENT alike."""
    other = Work(service.new_user())
    foreign, narrow = Many(other.jobs).synced(), Many(work.jobs, filter=pb.JobFilter(kinds=["A"])).synced()
    for token in (foreign.token, narrow.token, "garbage", foreign.token[:-2]):
        with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN", "resume_token"):
            list(work.jobs.WatchJobs(pb.WatchJobsRequest(resume_token=token)))
    foreign.leave()
    narrow.leave()


def test_every_token_resumes_right_behind_its_frame(backend: Backend, service: Service, work: Work) -> None:
    """From whichever frame a client comes back, to another process as well, it gets exactly the rest."""
    elsewhere = Service(service.url, backend.name)
    try:
        there = elsewhere.channel(api_key=work.user.key).jobs
        many = Many(work.jobs, include_snapshot=True).synced()
        jobs = [work.add_job(kind="REINDEX") for _ in range(3)]
        for job in jobs:
            work.start(job.id)
            work.complete(job.id, 1)
        many.wait_for(jobs[2].id, 3)
        many.leave()
        for place, frame in enumerate(many.frames[:-1]):
            for stub in (work.jobs, there):
                again = Many(stub, resume_token=frame.resume_token, include_snapshot=True)
                again.wait_for(jobs[2].id, 3)
                again.leave()
                assert again.frames == many.frames[place + 1 :]
    finally:
        elsewhere.close()


def test_a_token_from_before_sync_begins_again(work: Work) -> None:
    """Who was cut off within the snapshot gets all of it again, even where it does not ask for one."""
    jobs = {work.add_job(kind="REINDEX").id for _ in range(3)}
    first = Many(work.jobs, include_snapshot=True).synced()
    again = Many(work.jobs, resume_token=first.frames[0].resume_token).synced()
    first.leave()
    again.leave()

    assert {frame.snapshot.id for frame in again.of_kind("snapshot")} == jobs
    assert again.of_kind("sync")[0].sync.snapshot_size == 3


def test_a_token_that_names_jobs_does_not_repeat_what_their_snapshots_hold(
    service: Service, work: Work
) -> None:
    """Events that a snapshot held already are not sent again to who resumes before their positions."""
    start = Many(work.jobs).synced()
    job, other = work.add_job(kind="REINDEX"), work.add_job(kind="REINDEX")
    for each in (job, other):
        work.start(each.id)
        work.progress(each.id, 1, 10)
    start.wait_for(other.id, 3)
    start.leave()
    seal = _seal_of(service, work)
    place = seal.open(start.frames[0].resume_token)
    assert place.position is not None
    many = Many(work.jobs, resume_token=seal.make(place.position, {job.id: 2}))
    many.wait_for(other.id, 3)
    work.complete(job.id, 2)
    many.wait_for(job.id, 4)
    many.leave()

    assert numbers_by_job(many.frames) == {job.id: [3, 4], other.id: [1, 2, 3]}
    assert seal.open(many.token).seen == {}


def _seal_of(service: Service, work: Work) -> Seal:
    """Give what seals the tokens of a user's whole stream, as the server does."""
    return Seal(_key_of(service), _store_of(service), Filter(work.user.id))


def test_a_token_below_the_floor_is_refused_with_one_that_works(service: Service, work: Work) -> None:
    """After events were removed an old token is POSITION_TRIMMED, and the answer holds a usable one."""
    start = Many(work.jobs).synced()
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    work.progress(job.id, 1, 10)
    work.complete(job.id, 2)
    start.wait_for(job.id, 4)
    start.leave()
    with service.database.unit_of_work() as uow:
        gone = uow.log.page(0, 100_000)
        floor = next(row["position"] for row in gone if (row["job_id"], row["number"]) == (job.id, 2))
        uow.connection.execute(
            sa.delete(job_events).where(job_events.c.job_id == job.id, job_events.c.number <= 2)
        )
        uow.connection.execute(sa.insert(job_floors).values(owner_id=work.user.id, position=floor))
        uow.connection.execute(sa.update(job_log).values(removals=job_log.c.removals + 1))
        uow.commit()
    with refused("OUT_OF_RANGE", "POSITION_TRIMMED") as refusal:
        list(work.jobs.WatchJobs(pb.WatchJobsRequest(resume_token=start.frames[1].resume_token)))
    many = Many(work.jobs, resume_token=refusal.metadata["oldest_resume_token"])
    many.wait_for(job.id, 4)
    many.leave()

    assert many.told == [(job.id, 3), (job.id, 4)]
    token = Seal(_key_of(service), _store_of(service), Filter("-")).make(floor - 1)
    request = pb.WatchJobsRequest(filter=pb.JobFilter(owner_id="-"), resume_token=token)
    with refused("OUT_OF_RANGE", "POSITION_TRIMMED"):
        list(service.admin.channel.jobs.WatchJobs(request))


def _key_of(service: Service) -> bytes:
    return root_secrets(service.settings).keys("resume-token")()[0]


def _store_of(service: Service) -> str:
    with service.database.unit_of_work() as uow:
        return str(uow.log.look()["store_id"])


def test_a_token_beyond_the_log_is_refused(service: Service, work: Work) -> None:
    """A position that the log has not reached, as after an older copy was restored, is OUT_OF_RANGE."""
    token = Seal(_key_of(service), _store_of(service), Filter(work.user.id)).make(2**40)
    with refused("OUT_OF_RANGE", "POSITION_BEYOND_END"):
        list(work.jobs.WatchJobs(pb.WatchJobsRequest(resume_token=token)))
