"""Streams and leases of narrowed keys hold the inside alone, also what comes to be there later."""

from __future__ import annotations

import threading
import time
from typing import Any

from google.protobuf.duration_pb2 import Duration

from moragmeta.v1 import jobs_pb2, servers_pb2, workers_pb2
from tests.backends.databases import Backend
from tests.grants.scene import tenant
from tests.narrowing.scene import House, delete_database, lease, register
from tests.narrowing.test_reach import _move
from tests.refusals import refused
from tests.service import User, serving


def _watch(user: User, **fields: Any) -> Any:
    """Watch jobs, with a snapshot; give the stream, and the ids in the snapshot."""
    request = jobs_pb2.WatchJobsRequest(include_snapshot=True, filter=jobs_pb2.JobFilter(**fields))
    stream: Any = user.channel.jobs.WatchJobs(request)
    snapshot: list[str] = []
    for frame in stream:
        if frame.HasField("sync"):
            return stream, snapshot, frame.resume_token
        snapshot.append(frame.snapshot.id)
    raise AssertionError("the stream ended")


def _next_job(stream: Any) -> str:
    frame = next(each for each in stream if each.HasField("event"))
    return str(frame.event.job_id)


def test_a_stream_tells_of_the_inside_alone(house: House, way: str) -> None:
    """Snapshot, live changes and a resumed stream of a narrowed key hold no job of the outside."""
    here, there = (house.all.job(house.all.document(place).id) for place in (house.inside, house.outside))
    key = house.narrowed(way)
    wide, everything, _ = _watch(house.all.user)
    stream, snapshot, token = _watch(key)
    assert (snapshot, sorted(everything)) == ([here.id], sorted([here.id, there.id]))
    places = (house.outside, house.inside, "", house.inside)
    made = [house.all.job(house.all.document(place).id).id for place in places]
    assert [_next_job(stream) for _ in range(2)] == [made[1], made[3]]
    assert [_next_job(wide) for _ in range(4)] == made
    resumed: Any = key.channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(resume_token=token))
    assert [_next_job(resumed) for _ in range(2)] == [made[1], made[3]]
    for each in (stream, wide, resumed):
        each.cancel()


def test_a_new_database_on_the_server_is_heard_of(house: House) -> None:
    """A stream of a key that is narrowed to a server tells of databases that were made after it began."""
    stream, _, _ = _watch(house.narrowed("server"))
    later = house.database("later", house.inner_server)
    elsewhere = house.database("elsewhere", house.all.server)
    house.all.job(house.all.document(elsewhere).id)
    job = house.all.job(house.all.document(later).id)
    assert _next_job(stream) == job.id
    stream.cancel()


def test_a_token_is_of_one_reach(house: House, way: str) -> None:
    """The resume token of a wide key is of no use to a narrowed one, nor the other way."""
    key = house.narrowed(way)
    for one, other in ((house.all.user, key), (key, house.all.user)):
        stream, _, token = _watch(one)
        stream.cancel()
        with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN", "resume_token"):
            list(other.channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(resume_token=token)))


def test_one_job_is_watched_only_inside(house: House, way: str) -> None:
    """WatchJob follows a job of the inside to its end, and does not find one of the outside."""
    here, there = (house.all.job(house.all.document(place).id) for place in (house.inside, house.outside))
    key = house.narrowed(way)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        list(key.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=there.id)))
    stream: Any = key.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=here.id))
    house.all.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=here.id))
    assert [frame.event.state for frame in stream if frame.HasField("event")][-1] == (
        jobs_pb2.JOB_STATE_CANCELLED
    )


def _follow(key: User, job_id: str) -> Any:
    """Watch a job of which one event is there, and give the stream behind that."""
    stream: Any = key.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id))
    assert next(stream).event.sequence == 1
    return stream


def _cancel(house: House, job_id: str) -> None:
    house.all.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id))


def test_one_job_is_watched_for_as_long_as_it_is_reached(house: House, way: str) -> None:
    """Of a job whose database is deleted who named its server hears no more; who named the database does."""
    job = house.all.job(house.all.document().id)
    key = house.narrowed(way)
    stream = _follow(key, job.id)
    delete_database(house.all.user, house.inside)
    _cancel(house, job.id)
    if way == "server":
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            next(stream)
        assert refusal.metadata == {"resource_type": "job", "resource_id": job.id}
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            key.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))
    else:
        assert [frame.event.state for frame in stream] == [jobs_pb2.JOB_STATE_CANCELLED]
        key.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))


def test_a_job_that_is_reached_no_more_is_not_caught_up_with(house: House) -> None:
    """Of many events at once, read from what is kept, none is told after the server's deletion."""
    job = house.all.job(house.all.document().id)
    stream = _follow(house.narrowed("server"), job.id)
    calls = house.all.user.channel
    delete = servers_pb2.DeleteServerRequest(id=house.inner_server, force=True)
    calls.servers.DeleteServer(delete)
    calls.jobs.StartJob(jobs_pb2.StartJobRequest(id=job.id))
    for number in range(1, 4):
        report: dict[str, Any] = {"attempt": 1, "report_number": number, "percentage": number}
        calls.jobs.UpdateJobProgress(jobs_pb2.UpdateJobProgressRequest(id=job.id, **report))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        list(stream)


def test_an_idle_stream_ends_with_its_database_too(backend: Backend) -> None:
    """A server-narrowed key's stream on a job to which nothing happens ends at its next heartbeat."""
    with serving(backend, stream_heartbeat=0.3) as service:
        house = House.of(service, tenant(service))
        job = house.all.job(house.all.document().id)
        stream = _follow(house.narrowed("server"), job.id)
        assert next(stream).heartbeat.sequence == 1
        delete_database(house.all.user, house.inside)
        deleted = time.monotonic()
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            list(stream)
        assert time.monotonic() - deleted < 8


def test_a_job_whose_document_moved_out_is_watched_to_its_end(house: House, way: str) -> None:
    """A stream agrees with GetJob: the job is of the database that it was made in, and the next is not."""
    document = house.all.document()
    job, key = house.all.job(document.id), house.narrowed(way)
    stream = _follow(key, job.id)
    _move(house.all.user, document.id, house.outside)
    later = house.all.job(document.id)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        list(key.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=later.id)))
    _cancel(house, job.id)
    assert [frame.event.state for frame in stream] == [jobs_pb2.JOB_STATE_CANCELLED]
    key.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))


def test_a_worker_leases_the_inside_alone(house: House, way: str) -> None:
    """A narrowed key leases no job of the outside, reports of none, and none whose document has left."""
    left = house.all.document()
    jobs = {
        name: house.all.job(document_id)
        for name, document_id in (
            ("outside", house.all.document(house.outside).id),
            ("left", left.id),
            ("inside", house.all.document().id),
        )
    }
    _move(house.all.user, left.id, house.outside)
    key = house.narrowed(way, scopes=["jobs:work"])
    worker = register(key)
    (mine,) = lease(key, worker, max_jobs=10)
    assert mine.job.id == jobs["inside"].id
    assert lease(key, worker, max_jobs=10) == []
    theirs = lease(house.all.user, register(house.all.user), max_jobs=10)
    assert {each.job.id for each in theirs} == {jobs["outside"].id, jobs["left"].id}
    for each in theirs:
        if each.job.id == jobs["outside"].id:
            beat = workers_pb2.HeartbeatJobRequest(job_id=each.job.id, lease_token=each.token)
            with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
                key.channel.workers.HeartbeatJob(beat)
    done = jobs_pb2.CompleteJobRequest(
        id=mine.job.id, attempt=mine.job.attempt, report_number=1, lease_token=mine.token
    )
    assert key.channel.jobs.CompleteJob(done).job.state == jobs_pb2.JOB_STATE_FINISHED


def test_who_waits_is_woken_for_the_inside_alone(house: House, way: str) -> None:
    """A narrowed worker that waits takes no other's turn: each job wakes one that may have it, at once."""
    key = house.narrowed(way)
    narrow, wide = register(key, kinds=["A"]), register(house.all.user, kinds=["A"])
    got: dict[str, list[str]] = {}

    def wait(name: str, user: User, worker: str) -> None:
        got[name] = [each.job.id for each in lease(user, worker, wait=Duration(seconds=20))]

    waiting = [threading.Thread(target=wait, args=("narrow", key, narrow))]
    waiting[0].start()
    time.sleep(0.5)  # the narrowed one waits longest, and would be the first to be told
    waiting.append(threading.Thread(target=wait, args=("wide", house.all.user, wide)))
    waiting[1].start()
    time.sleep(0.5)
    documents = [house.all.document(place).id for place in (house.outside, house.inside)]
    outside = house.all.job(documents[0], kind="A").id
    waiting[1].join(15)
    assert got == {"wide": [outside]}
    inside = house.all.job(documents[1], kind="A").id
    waiting[0].join(15)
    assert got == {"wide": [outside], "narrow": [inside]}
