"""WatchJobs: every change of the jobs that match a filter, resumed anywhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import Unmet, holds, refused, same
from moragmeta.v1 import api_keys_pb2
from moragmeta.v1 import jobs_pb2 as pb

AREA = Area("WatchJobs")


def _numbers(frames: Iterable[pb.JobFrame]) -> list[tuple[str, int]]:
    return [(frame.event.job_id, frame.event.sequence) for frame in frames]


@AREA.case
def a_snapshot_comes_first(bench: Bench) -> None:
    """The jobs that match come first, then a sync frame that counts them, then what changes."""
    jobs = {bench.add_job().id for _ in range(3)}
    with bench.watch_jobs() as stream:
        *snapshot, sync = stream.frames("sync")
        same("kinds of the frames", {frame.WhichOneof("frame") for frame in snapshot}, {"snapshot"})
        same("jobs of the snapshot", {frame.snapshot.id for frame in snapshot}, jobs)
        same("jobs that sync counts", sync.sync.snapshot_size, 3)
        job = bench.started(next(iter(jobs)))
        same("what follows", _numbers(stream.changes(1)), [(job.id, 2)])


@AREA.case
def without_a_snapshot_sync_comes_first(bench: Bench) -> None:
    """Without include_snapshot the sync frame comes first, and then what happens from now on."""
    before = bench.add_job()
    with bench.follow(kinds=[bench.kind]) as stream:
        frames = stream.frames("sync")
        same("frames up to sync, and jobs it counts", (len(frames), frames[-1].sync.snapshot_size), (1, 0))
        after = bench.add_job()
        bench.started(before.id)
        same("what follows", _numbers(stream.changes(2)), [(after.id, 1), (before.id, 2)])


@AREA.case
def a_snapshot_is_as_get_answers(bench: Bench) -> None:
    """A job of the snapshot is what GetJob answers."""
    job = bench.running()
    bench.progress(job, 1, 40, phase="reading")
    with bench.watch_jobs() as stream:
        same("the job", stream.frames("sync")[0].snapshot, bench.job(job.id))


@AREA.case
def changes_come_dense_and_in_order(bench: Bench) -> None:
    """Of each job every event comes once, in order and without a gap."""
    with bench.watch_jobs() as stream:
        stream.frames("sync")
        jobs = [bench.add_job().id for _ in range(3)]
        for job_id in jobs:
            job = bench.started(job_id)
            for number in range(1, 4):
                bench.progress(job, number, number * 10)
        for job_id in jobs:
            bench.complete(bench.job(job_id), 4)
        seen: dict[str, list[int]] = defaultdict(list)
        for job_id, number in _numbers(stream.changes(18)):
            seen[job_id].append(number)
    same("the numbers of each job", dict(seen), {job_id: list(range(1, 7)) for job_id in jobs})


@AREA.case
def only_what_matches_comes(bench: Bench) -> None:
    """Jobs that do not match the filter are told neither in the snapshot nor later."""
    wanted, other = bench.add_document(), bench.add_document()
    bench.add_job(document_id=other.id)
    with bench.watch_jobs(document_id=wanted.id) as stream:
        same("frames up to sync", len(stream.frames("sync")), 1)
        bench.add_job(document_id=other.id)
        job = bench.add_job(document_id=wanted.id)
        same("what comes", _numbers(stream.changes(1)), [(job.id, 1)])


@AREA.case
def leaving_the_filter_is_told_once(bench: Bench) -> None:
    """The change by which a job leaves the filter is told, marked, and nothing of the job behind it."""
    with bench.watch_jobs(states=[pb.JOB_STATE_PENDING]) as stream:
        stream.frames("sync")
        job = bench.started(bench.add_job().id)
        made, left = stream.changes(2)
        seen = [(frame.event.sequence, frame.leaves_filter) for frame in (made, left)]
        same("numbers, and whether the job leaves", seen, [(1, False), (2, True)])
        bench.progress(job, 1, 10)
        last = bench.add_job()
        same("what follows", _numbers(stream.changes(1)), [(last.id, 1)])


@AREA.case
def a_token_goes_on_right_behind_its_frame(bench: Bench) -> None:
    """With the token of any frame exactly what came behind that frame comes."""
    with bench.watch_jobs() as stream:
        sync = stream.frames("sync")[-1]
        job = bench.running()
        for number in range(1, 4):
            bench.progress(job, number, number)
        frames = [sync, *stream.changes(5)]
    for at, frame in enumerate(frames[:-1]):
        holds("a token of at most 1000 characters", fact=0 < len(frame.resume_token) <= 1000)
        with bench.watch_jobs(token=frame.resume_token) as resumed:
            same("what comes", _numbers(resumed.changes(5 - at)), _numbers(frames[at + 1 :]))


@AREA.case
def what_happens_while_away_is_told(bench: Bench) -> None:
    """What is committed between two streams comes on the second one, whatever kind of frame it resumes."""
    with bench.watch_jobs() as stream:
        token = stream.frames("heartbeat")[-1].resume_token
    job = bench.running()
    bench.cancel(job.id)
    with bench.watch_jobs(token=token) as stream:
        same("what comes", _numbers(stream.changes(3)), [(job.id, 1), (job.id, 2), (job.id, 3)])


@AREA.case
def before_sync_a_token_begins_again(bench: Bench) -> None:
    """With the token of a frame of the snapshot the stream begins with the snapshot."""
    jobs = {bench.add_job().id for _ in range(3)}
    with bench.watch_jobs() as stream:
        token = stream.frame().resume_token
    with bench.watch_jobs(token=token) as stream:
        *snapshot, _ = stream.frames("sync")
    same("jobs of the snapshot", {frame.snapshot.id for frame in snapshot}, jobs)


@AREA.case
def a_token_holds_for_its_filter(bench: Bench) -> None:
    """A token with another filter, changed or made up, is INVALID_ARGUMENT."""
    with bench.watch_jobs() as stream:
        token = stream.frames("sync")[-1].resume_token
    half = len(token) // 2
    tampered = token[:half] + ("A" if token[half] != "A" else "B") + token[half + 1 :]
    for stream in (
        bench.watch_jobs(token=token, states=[pb.JOB_STATE_FAILED]),
        bench.watch_jobs(token=tampered),
        bench.watch_jobs(token=token[:-1]),
        bench.watch_jobs(None, "made-up"),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN", "resume_token"):
            stream.ended()


@AREA.admin_case
def a_token_holds_for_its_caller(bench: Bench) -> None:
    """Another user's token is INVALID_ARGUMENT."""
    with bench.watch_jobs() as stream:
        token = stream.frames("sync")[-1].resume_token
    with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN", "resume_token"):
        bench.watch_jobs(bench.other.caller, token).ended()


@AREA.admin_case
def others_jobs_are_not_told(bench: Bench) -> None:
    """A stream tells the caller's jobs alone; a USER that names another owner is PERMISSION_DENIED."""
    other = bench.other.caller
    with bench.watch_jobs(other) as stream:
        stream.frames("sync")
        bench.add_job()
        job = bench.add_job(other)
        same("what another sees", _numbers(stream.changes(1)), [(job.id, 1)])
    for owner in ("-", bench.other.id):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            bench.watch_jobs(owner_id=owner).ended()


@AREA.add(needs_admin=True, alone=True)
def an_admin_watches_everybody(bench: Bench) -> None:
    """An ADMIN's stream tells everybody's jobs, or one owner's, as owner_id says."""
    with (
        bench.watch_jobs(bench.admin, owner_id="-") as everybodys,
        bench.watch_jobs(bench.admin, owner_id=bench.me.id) as mine,
    ):
        for stream in (everybodys, mine):
            stream.frames("sync")
        job, last = bench.add_job(), bench.add_job(bench.other.caller)
        same("what is seen of everybody", set(_numbers(everybodys.changes(2))), {(job.id, 1), (last.id, 1)})
        same("what is seen of one", _numbers(mine.changes(1)), [(job.id, 1)])


@AREA.case
def silence_is_broken(bench: Bench) -> None:
    """A stream on which nothing happens sends heartbeats with a token and a lag, also if nothing matches."""
    with bench.watch_jobs() as stream:
        stream.frames("sync")
        frame = stream.frames("heartbeat")[-1]
    holds("a fresh token", fact=bool(frame.resume_token), seen="none")
    holds("a lag of 0 or more", fact=frame.heartbeat.HasField("server_time") and frame.heartbeat.lag >= 0)


@AREA.case
def final_changes_are_not_conflated(bench: Bench) -> None:
    """With conflate the events of a job still come in order, and its final one always comes."""
    request = pb.WatchJobsRequest(filter=pb.JobFilter(kinds=[bench.kind]), conflate=True)
    with bench.stream(bench.mine.jobs.WatchJobs(request)) as stream:
        stream.frames("sync")
        job = bench.running()
        for number in range(1, 11):
            bench.progress(job, number, number)
        bench.complete(job, 11)
        numbers = [0]
        while numbers[-1] < 13:
            numbers.append(stream.events(1)[0].sequence)
            if numbers[-1] <= numbers[-2]:
                raise Unmet("events in order", str(numbers))


@AREA.case
def a_worker_watches_its_own_jobs(bench: Bench) -> None:
    """A key with `jobs:work` alone must name its workers, and is told of their leases' cancellation."""
    _, caller = bench.add_key("jobs:work")
    with refused("PERMISSION_DENIED", "FILTER_NOT_ALLOWED"):
        bench.watch_jobs(caller).ended()
    worker = bench.add_worker(caller)
    bench.add_job()
    (lease,) = bench.lease(worker.id, caller)
    with bench.watch_jobs(caller, worker_ids=[worker.id]) as stream:
        same(
            "jobs of the snapshot",
            [frame.snapshot.id for frame in stream.frames("sync")[:-1]],
            [lease.job.id],
        )
        bench.cancel(lease.job.id)
        same("the state it is told", stream.events(1)[0].state, pb.JOB_STATE_CANCELLED)


@AREA.case
def a_revoked_key_ends_the_stream(bench: Bench) -> None:
    """A stream ends with UNAUTHENTICATED soon after its key was revoked."""
    key_id, caller = bench.add_key("jobs:read")
    with bench.watch_jobs(caller) as stream:
        stream.frames("sync")
        bench.mine.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=key_id))
        begun = time.monotonic()
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            stream.ended()
        took = time.monotonic() - begun
        holds("an end within 15 s", fact=took < 15, seen=f"{took:.1f} s")


@AREA.add(alone=True)
def a_purged_job_is_told_to_nobody(bench: Bench) -> None:
    """A removed job is in no snapshot any more."""
    job = bench.running()
    bench.complete(job, 1)
    same("purged jobs", bench.purge(job).purged_jobs, 1)
    with bench.watch_jobs() as stream:
        same("jobs that sync counts", stream.frames("sync")[-1].sync.snapshot_size, 0)


@AREA.case
def events_by_both_streams_are_one(bench: Bench) -> None:
    """WatchJobs tells the events that WatchJob tells."""
    with bench.watch_jobs() as stream:
        stream.frames("sync")
        job = bench.running()
        bench.fail(job, 1)
        many = stream.events(3)
    with bench.watch(job.id) as stream:
        same("the events", many, stream.rest())
