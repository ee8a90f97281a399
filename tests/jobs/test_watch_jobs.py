"""One stream over many jobs: what matches now, then every change that concerns the filter, once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from morag_meta.jobs.channels import PAGE
from moragmeta.v1 import jobs_pb2 as pb
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.jobs.many import Many, expect_whole
from tests.refusals import Refusal, read_details
from tests.service import Service, serving


def _filter(**parts: Any) -> pb.JobFilter:
    return pb.JobFilter(**parts)


def test_what_is_comes_first_and_then_what_happens(work: Work) -> None:
    """The snapshot shows each job as it is, `sync` counts them, and each later change is an event."""
    done, busy = work.add_job(kind="REINDEX"), work.add_job(kind="REINDEX")
    work.cancel(done.id)
    work.start(busy.id)
    many = Many(work.jobs, include_snapshot=True).synced()
    fresh = work.add_job(kind="OTHER")
    work.progress(busy.id, 1, 50)
    many.wait_for(busy.id, 3)
    many.wait_for(fresh.id, 1)
    many.leave()

    kinds = [frame.WhichOneof("frame") for frame in many.frames]
    assert kinds == ["snapshot", "snapshot", "sync", "event", "event"]
    shown = {frame.snapshot.id: frame.snapshot for frame in many.of_kind("snapshot")}
    assert (shown[done.id].state, shown[done.id].last_sequence) == (pb.JOB_STATE_CANCELLED, 2)
    assert shown[busy.id] == work_job_at(shown[busy.id], state=pb.JOB_STATE_PROCESSING, last_sequence=2)
    assert many.of_kind("sync")[0].sync.snapshot_size == 2
    assert many.told == [(fresh.id, 1), (busy.id, 3)]
    assert all(0 < len(frame.resume_token) <= 1000 for frame in many.frames)


def work_job_at(job: pb.Job, **fields: Any) -> pb.Job:
    """Give a job with other fields, to compare it with itself."""
    other = pb.Job()
    other.CopyFrom(job)
    other.MergeFrom(pb.Job(**fields))
    return other


def test_without_a_snapshot_only_what_happens_from_now_on_comes(work: Work) -> None:
    """`sync` comes at once with nothing before it, and no change that was committed before the call."""
    job = work.add_job(kind="REINDEX")
    many = Many(work.jobs).synced()
    assert [frame.WhichOneof("frame") for frame in many.frames] == ["sync"]
    assert many.frames[0].sync.snapshot_size == 0
    work.start(job.id)
    many.wait_for(job.id, 2)
    many.leave()

    assert many.told == [(job.id, 2)]


def test_nobody_sees_the_jobs_of_others(service: Service, work: Work) -> None:
    """A user's stream has that user's jobs alone; an ADMIN's has everybody's where `-` is asked for."""
    other = Work(service.new_user())
    mine, theirs = Many(work.jobs).synced(), Many(other.jobs).synced()
    admin = Many(service.admin.channel.jobs, filter=_filter(owner_id="-")).synced()
    one = Many(service.admin.channel.jobs, filter=_filter(owner_id=other.user.id)).synced()
    first, second = work.add_job(kind="REINDEX"), other.add_job(kind="REINDEX")
    mine.wait_for(first.id, 1)
    theirs.wait_for(second.id, 1)
    one.wait_for(second.id, 1)
    admin.wait_for(second.id, 1)
    for many in (mine, theirs, admin, one):
        many.leave()

    assert mine.told == [(first.id, 1)]
    assert theirs.told == one.told == [(second.id, 1)]
    ours = [told for told in admin.told if told[0] in (first.id, second.id)]  # others' leases may expire
    assert ours == [(first.id, 1), (second.id, 1)]


def test_the_change_that_leaves_the_filter_is_told_once(work: Work) -> None:
    """Who watches PENDING jobs sees a job come, and leave as it starts, and nothing of it after that."""
    many = Many(work.jobs, filter=_filter(states=[pb.JOB_STATE_PENDING])).synced()
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    work.progress(job.id, 1, 10)
    work.complete(job.id, 2)
    last = work.add_job(kind="REINDEX")
    many.wait_for(last.id, 1)
    many.leave()

    assert many.told == [(job.id, 1), (job.id, 2), (last.id, 1)]
    assert [frame.leaves_filter for frame in many.of_kind("event")] == [False, True, False]
    left = many.events[1]
    assert (left.previous_state, left.state) == (pb.JOB_STATE_PENDING, pb.JOB_STATE_PROCESSING)


def test_every_part_of_the_filter_is_heeded(work: Work) -> None:
    """Kind, document, type and state each let pass exactly the changes of the jobs that they mean."""
    document = work.add_document()
    filters: dict[str, Any] = {
        "kind": {"kinds": ["A", "B"]},
        "document": {"document_id": document},
        "type": {"document_types": ["txt"]},
        "none": {"document_types": ["pdf"]},
        "state": {"states": [pb.JOB_STATE_CANCELLED]},
        "both": {"kinds": ["A"], "states": [pb.JOB_STATE_CANCELLED]},
    }
    streams = {name: Many(work.jobs, filter=_filter(**parts)).synced() for name, parts in filters.items()}
    everything = Many(work.jobs).synced()
    a, of_document = work.add_job(kind="A"), work.add_job(kind="C", document_id=document)
    b = work.add_job(kind="B")
    for job in (of_document, b, a):
        work.cancel(job.id)
    everything.wait_for(a.id, 2)
    for name, job in {"kind": a, "document": of_document, "type": of_document, "state": a, "both": a}.items():
        streams[name].wait_for(job.id, 2)
    for many in (*streams.values(), everything):
        many.leave()

    assert {name: many.told for name, many in streams.items()} == {
        "kind": [(a.id, 1), (b.id, 1), (b.id, 2), (a.id, 2)],
        "document": [(of_document.id, 1), (of_document.id, 2)],
        "type": [(of_document.id, 1), (of_document.id, 2)],
        "none": [],
        "state": [(of_document.id, 2), (b.id, 2), (a.id, 2)],
        "both": [(a.id, 2)],
    }


def test_what_was_missed_is_filtered_as_what_is_live(work: Work) -> None:
    """Who resumes gets the changes that it would have got live, leaving ones included."""
    chosen = _filter(kinds=["A"], states=[pb.JOB_STATE_PENDING])
    live = Many(work.jobs, filter=chosen).synced()
    token = live.token
    jobs = [work.add_job(kind=kind) for kind in ("A", "B", "A")]
    for job in jobs:
        work.start(job.id)
        work.complete(job.id, 1)
    live.wait_for(jobs[2].id, 2)
    late = Many(work.jobs, filter=chosen, resume_token=token)
    late.wait_for(jobs[2].id, 2)
    live.leave()
    late.leave()

    assert late.frames == live.frames[1:]


@pytest.fixture(scope="module")
def brisk(backend: Backend) -> Iterator[Service]:
    """Give a server whose heartbeats are short."""
    with serving(backend, stream_heartbeat=0.3) as started:
        yield started


def _newer_beats(many: Many) -> list[Any]:
    """Give the heartbeats whose tokens are not that of the first frame."""
    beats = [frame for frame in list(many.frames) if frame.HasField("heartbeat")]
    return [beat.heartbeat for beat in beats if beat.resume_token != many.frames[0].resume_token]


def test_heartbeats_move_on_while_nothing_matches(brisk: Service) -> None:
    """A filter that matches nothing still gets heartbeats, whose tokens go past what was looked at."""
    work = Work(brisk.new_user())
    many = Many(work.jobs, filter=_filter(kinds=["NEVER"])).synced()
    for _ in range(3):
        work.add_job(kind="REINDEX")
    many.wait(lambda: bool(_newer_beats(many)) and _newer_beats(many)[-1].lag == 0)
    many.leave()
    beat = many.frames[-1]
    assert beat.heartbeat.sequence == 0
    assert beat.heartbeat.server_time.seconds > 0


def test_a_conflating_reader_sees_the_last_of_many_changes(work: Work) -> None:
    """With `conflate` what was missed comes as the last change of each job, and final ones always."""
    token = Many(work.jobs).synced().token
    jobs = [work.add_job(kind="REINDEX") for _ in range(3)]
    for job in jobs:
        work.start(job.id)
        for number in range(1, 11):
            work.progress(job.id, number, number)
    work.complete(jobs[0].id, 11)
    all_of_it = Many(work.jobs, resume_token=token)
    all_of_it.wait_for(jobs[0].id, 13)  # from here on nothing of it is news
    conflated = Many(work.jobs, resume_token=token, conflate=True)
    conflated.wait_for(jobs[0].id, 13)
    for many in (all_of_it, conflated):
        many.leave()

    assert len(all_of_it.told) == 3 * 12 + 1
    assert conflated.told == [(jobs[1].id, 12), (jobs[2].id, 12), (jobs[0].id, 13)]


def test_a_long_absence_is_made_up_for_in_pages(work: Work) -> None:
    """Whoever comes back after more changes than are remembered gets every one of them, in order."""
    token = Many(work.jobs).synced().token
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    for number in range(1, 2 * PAGE + 50):
        work.progress(job.id, number, number // 5)
    many = Many(work.jobs, resume_token=token)
    many.wait_for(job.id, 2 * PAGE + 51, 30)
    many.leave()

    expect_whole(many.frames, {job.id: 2 * PAGE + 51})


def test_large_snapshots_come_in_pages(work: Work) -> None:
    """Every job that matches is in the snapshot once, however many there are."""
    jobs = {work.add_job(kind="REINDEX").id for _ in range(250)}
    many = Many(work.jobs, include_snapshot=True).synced(30)
    many.leave()

    shown = [frame.snapshot.id for frame in many.of_kind("snapshot")]
    assert len(shown) == many.of_kind("sync")[0].sync.snapshot_size == 250
    assert set(shown) == jobs


def test_a_draining_server_tells_where_to_resume(backend: Backend) -> None:
    """At shutdown the stream ends with UNAVAILABLE, SERVER_DRAINING and the token to resume with."""
    service = Service(backend.new_url(), backend.name)
    work = Work(service.new_user())
    many = Many(work.jobs).synced()
    job = work.add_job(kind="REINDEX")
    many.wait_for(job.id, 1)
    time.sleep(0.2)
    service.on_loop(service.app.stop(5.0))
    error, refusal = many.end(), Refusal()
    read_details(refusal, error)

    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert (refusal.reason, refusal.metadata["resume_token"]) == ("SERVER_DRAINING", many.token)
