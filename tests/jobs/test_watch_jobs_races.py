"""Streams over many jobs while everything changes: snapshots under writers, removals, slow readers."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

import grpc
import pytest

from morag_meta.auth.keys import new_key, prefix_of
from morag_meta.ids import new_id
from moragmeta.v1 import api_keys_pb2, options_pb2, users_pb2, workers_pb2
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.jobs.many import Many, expect_whole
from tests.refusals import Refusal, read_details, refused
from tests.service import Channel, Service, serving

_NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))  # little is taken unread


class Writers:
    """Threads that make and change jobs of one user until they are told to stop."""

    def __init__(self, work: Work, seed: int) -> None:
        self.newest: dict[str, int] = {}
        self.failures: list[Exception] = []
        self._work = work
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed + n,)) for n in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self, seed: int) -> None:
        try:
            self._write(seed)
        except Exception as failure:  # noqa: BLE001 - which the test reports
            self.failures.append(failure)

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a test's order of events
        open_jobs: dict[str, int] = {}
        while not self._stop.is_set():
            if len(open_jobs) < 5 or chance.random() < 0.2:
                job_id = self._work.add_job(kind="REINDEX").id
                self._work.start(job_id)
                open_jobs[job_id] = 0
            job_id = chance.choice(list(open_jobs))
            open_jobs[job_id] += 1
            number = open_jobs[job_id]
            if chance.random() < 0.2:
                self._work.complete(job_id, number)
                del open_jobs[job_id]
            else:
                self._work.progress(job_id, number, number % 100)
            self.newest[job_id] = number + 2

    def stop(self) -> dict[str, int]:
        """End, and give the number of each job's last event."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert self.failures == []
        return dict(self.newest)


def _whole(many: Many, before: list[pb.JobFrame], newest: dict[str, int]) -> None:
    """Wait for the last events, and check that behind ``before`` nothing is missing or there twice."""

    def is_whole() -> bool:
        frames = [*before, *many.frames]
        last = {
            frame.snapshot.id: frame.snapshot.last_sequence for frame in frames if frame.HasField("snapshot")
        }
        last |= {frame.event.job_id: frame.event.sequence for frame in frames if frame.HasField("event")}
        return all(last.get(job, 0) >= number for job, number in newest.items())

    many.wait(is_whole, 20)
    many.leave()
    frames = [*before, *many.frames]
    kinds = [frame.WhichOneof("frame") for frame in frames]
    assert "snapshot" not in kinds[kinds.index("sync") :]
    expect_whole(frames, newest)


def test_a_snapshot_under_writers_joins_its_changes_without_a_seam(work: Work) -> None:
    """However busy the jobs are while a snapshot is taken, each change is in it or after it, once."""
    seed = int(os.environ.get("MORAG_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print("seed", seed)  # noqa: T201 - to run it again
    writers = Writers(work, seed)
    streams = []
    for _ in range(8):
        time.sleep(0.1)
        streams.append(Many(work.jobs, include_snapshot=True))
    for many in streams:
        many.synced(20)
    halves = [list(many.frames) for many in streams]
    resumed = [Many(work.jobs, resume_token=half[-1].resume_token) for half in halves]
    time.sleep(0.5)
    newest = {job: work.job(job).last_sequence for job in writers.stop()}

    for many in streams:
        _whole(many, [], newest)
    for half, many in zip(halves, resumed, strict=True):
        _whole(many, half, newest)


def test_what_is_removed_before_it_was_told_ends_the_stream(service: Service, work: Work) -> None:
    """A stream that is behind a removal is POSITION_TRIMMED with a token that works; others go on."""
    many = Many(work.jobs).synced()
    job = work.add_job(kind="REINDEX")
    many.wait_for(job.id, 1)
    work.cancel(job.id)
    with service.database.unit_of_work() as uow:
        uow.jobs.delete_all(work.user.id)
        uow.commit()
    later = work.add_job(kind="REINDEX")
    many.wait(lambda: many.error is not None or (later.id, 1) in many.told)
    if many.error is not None:  # the cancelling was removed before this process had read it
        refusal = Refusal()
        read_details(refusal, many.error)
        assert refusal.reason == "POSITION_TRIMMED"
        many = Many(work.jobs, resume_token=refusal.metadata["oldest_resume_token"])
    many.wait_for(later.id, 1)
    many.leave()


def _work_key(service: Service, user_id: str, *scopes: str) -> tuple[str, Channel]:
    """Make a key of these scopes; give its id and the stubs of who holds it."""
    key = new_key()
    with service.database.unit_of_work() as uow:
        row = uow.api_keys.add(
            user_id,
            name=key[-8:],
            description="",
            key_hash=service.hasher.digest(key),
            key_prefix=prefix_of(key),
            scopes=list(scopes),
            expire_time=None,
        )
        uow.commit()
    return row["id"], service.channel(api_key=key)


def _register(channel: Channel) -> str:
    request = workers_pb2.RegisterWorkerRequest(worker=workers_pb2.Worker(name="w"))
    return str(channel.workers.RegisterWorker(request).id)


def _lease(channel: Channel, worker_id: str) -> str:
    answer = channel.workers.LeaseJobs(workers_pb2.LeaseJobsRequest(worker_id=worker_id, max_jobs=1))
    return str(answer.leases[0].job.id)


def test_a_workers_key_watches_the_jobs_of_its_workers(service: Service, work: Work) -> None:
    """With `jobs:work` alone the filter must name workers of the key's owner, and shows what they lease."""
    _, keyed = _work_key(service, work.user.id, "jobs:work")
    mine, other = _register(keyed), _register(service.new_user().channel)
    for workers in ([], [other], [mine, other], [new_id()]):
        with refused("PERMISSION_DENIED", "FILTER_NOT_ALLOWED"):
            list(keyed.jobs.WatchJobs(pb.WatchJobsRequest(filter=pb.JobFilter(worker_ids=workers))))
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        chosen = pb.JobFilter(worker_ids=[mine], owner_id="-")
        list(keyed.jobs.WatchJobs(pb.WatchJobsRequest(filter=chosen)))
    many = Many(keyed.jobs, filter=pb.JobFilter(worker_ids=[mine])).synced()
    work.add_job(kind="REINDEX")
    job_id = work.add_job(kind="REINDEX").id
    leased = _lease(keyed, mine)
    many.wait_for(leased, 2)
    work.cancel(leased)
    many.wait_for(leased, 3)
    many.leave()

    assert many.told == [(leased, 2), (leased, 3)]
    assert leased != job_id or many.told[0][0] == job_id


def test_a_workers_key_of_everyone_watches_its_workers_everywhere(service: Service, work: Work) -> None:
    """With `jobs:work:all` the stream shows the jobs that its own workers lease, whoever owns them."""
    _, keyed = _work_key(service, service.admin.id, "jobs:work:all")
    worker = _register(keyed)
    kind = f"K{new_id()[-8:]}"
    with refused("PERMISSION_DENIED", "FILTER_NOT_ALLOWED"):
        list(keyed.jobs.WatchJobs(pb.WatchJobsRequest()))
    many = Many(keyed.jobs, filter=pb.JobFilter(worker_ids=[worker])).synced()
    job = work.add_job(kind=kind)
    request = workers_pb2.LeaseJobsRequest(worker_id=worker, max_jobs=1, kinds=[kind])
    assert keyed.workers.LeaseJobs(request).leases[0].job.id == job.id
    many.wait_for(job.id, 2)
    many.leave()

    assert many.told == [(job.id, 2)]


@pytest.mark.parametrize("change", ["revoked", "narrowed", "role"])
def test_who_loses_access_is_sent_nothing_more(service: Service, work: Work, change: str) -> None:
    """A revoked key, one whose scopes changed, and a changed role end the stream within a second."""
    key_id, keyed = _work_key(service, work.user.id, "jobs:read", "jobs:work")
    many = Many(keyed.jobs).synced()
    changes: dict[str, Any] = {
        "revoked": lambda: work.user.channel.api_keys.RevokeApiKey(
            api_keys_pb2.RevokeApiKeyRequest(id=key_id)
        ),
        "narrowed": lambda: work.user.channel.api_keys.UpdateApiKey(_with_scopes(key_id, "jobs:work")),
        "role": lambda: service.admin.channel.users.SetUserRole(
            users_pb2.SetUserRoleRequest(id=work.user.id, role=options_pb2.ROLE_VIEWER)
        ),
    }
    changes[change]()
    changed = time.monotonic()
    error, refusal = many.end(), Refusal()
    read_details(refusal, error)

    assert time.monotonic() - changed < 1.0 + 2.0  # which a busy machine may add
    expected = {
        "revoked": ("UNAUTHENTICATED", "CREDENTIAL_INVALID"),
        "narrowed": ("PERMISSION_DENIED", "SCOPE_MISSING"),
        "role": ("PERMISSION_DENIED", "ROLE_TOO_LOW"),
    }
    assert (error.code().name, refusal.reason) == expected[change]


def _with_scopes(key_id: str, *scopes: str) -> api_keys_pb2.UpdateApiKeyRequest:
    key = api_keys_pb2.ApiKey(id=key_id, scopes=scopes)
    request = api_keys_pb2.UpdateApiKeyRequest(api_key=key)
    request.update_mask.paths.append("scopes")
    return request


def test_a_reader_that_takes_nothing_is_cut_and_delays_nobody(backend: Backend) -> None:
    """Who reads nothing is ended with READER_TOO_SLOW and a token; with it, it misses nothing."""
    with serving(backend, stream_write_timeout=2.0) as service:
        work = Work(service.new_user())
        job = work.add_job(kind="REINDEX")
        work.start(job.id)
        narrow = grpc.insecure_channel(service.target, _NARROW)
        metadata = (("x-api-key", work.user.key),)
        slow = JobServiceStub(narrow).WatchJobs(pb.WatchJobsRequest(), metadata=metadata, timeout=60)
        first = next(slow)
        quick = Many(work.jobs).synced()
        for number in range(1, 301):
            work.progress(job.id, number, 1, summary="x" * 1900)
        quick.wait_for(job.id, 302, 20)
        service.wait_for_places(work.user, 1)  # as the slow one was cut
        taken = [first]
        with refused("UNAVAILABLE", "READER_TOO_SLOW") as refusal:
            for frame in slow:
                taken.append(frame)  # noqa: PERF402 - kept also when the stream breaks
        rest = Many(work.jobs, resume_token=refusal.metadata["resume_token"])
        work.complete(job.id, 301)
        rest.wait_for(job.id, 303, 20)
        quick.leave()
        rest.leave()
        narrow.close()
    seen = [frame.event.sequence for frame in taken if frame.HasField("event")]

    assert seen + [number for _, number in rest.told] == list(range(3, 304))


def test_a_workers_key_that_also_reads_may_watch_its_workers_everywhere(service: Service, work: Work) -> None:
    """With `jobs:work:all` and `jobs:read` a USER sees jobs of others by way of their own workers alone."""
    _, keyed = _work_key(service, service.new_user().id, "jobs:work:all", "jobs:read")
    worker = _register(keyed)
    kind = f"K{new_id()[-8:]}"
    with refused("PERMISSION_DENIED", "FILTER_NOT_ALLOWED"):
        list(keyed.jobs.WatchJobs(pb.WatchJobsRequest(filter=pb.JobFilter(owner_id="-"))))
    many = Many(keyed.jobs, filter=pb.JobFilter(owner_id="-", worker_ids=[worker])).synced()
    job = work.add_job(kind=kind)
    request = workers_pb2.LeaseJobsRequest(worker_id=worker, max_jobs=1, kinds=[kind])
    assert keyed.workers.LeaseJobs(request).leases[0].job.id == job.id
    many.wait_for(job.id, 2)
    many.leave()

    assert many.told == [(job.id, 2)]
