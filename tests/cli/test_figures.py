"""``morag-meta jobs stats``, ``jobs watch --all`` and ``workers list`` against a running server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration

from morag_meta.cli.figures import print_figures
from morag_meta.cli.watch_all import WatchAll
from morag_meta.db.schema import job_floors, job_log
from morag_meta.exits import ExitCode
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import workers_pb2
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub
from tests.backends.databases import Backend
from tests.cli.command import Command
from tests.service import Service, User, serving


@pytest.fixture
def caller(cli: Command, user: User, service: Service, monkeypatch: pytest.MonkeyPatch) -> User:
    """Give a user whose key and server the environment names."""
    monkeypatch.setenv("MORAG_API_KEY", user.key)
    monkeypatch.setenv("MORAG_TARGET", service.target)
    return user


def _job(user: User, kind: str = "REPORT") -> str:
    job: pb.Job = user.channel.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind=kind)))
    return job.id


def _end(user: User, job_id: str, *, fails: bool = False) -> None:
    jobs = user.channel.jobs
    attempt = jobs.StartJob(pb.StartJobRequest(id=job_id)).attempt
    if fails:
        jobs.FailJob(pb.FailJobRequest(id=job_id, attempt=attempt, report_number=1, error="disk [full]"))
    else:
        jobs.CompleteJob(pb.CompleteJobRequest(id=job_id, attempt=attempt, report_number=1))


def _register(user: User, **fields: Any) -> str:
    stub: Any = WorkerServiceStub(user.channel.raw)
    request = workers_pb2.RegisterWorkerRequest(worker=workers_pb2.Worker(**fields))
    worker: workers_pb2.Worker = stub.RegisterWorker(request, metadata=(("x-api-key", user.key),))
    return worker.id


def test_stats_without_jobs_say_so(cli: Command, caller: User) -> None:
    """Where nothing was counted the figures are zero or left out."""
    result = cli("jobs", "stats")
    assert result.code is ExitCode.OK, result.err
    facts = dict(line.rsplit(None, 1) for line in result.out.splitlines()[:5])
    assert facts == {
        "jobs": "0",
        "success rate": "-",
        "mean duration": "-",
        "p50 / p95 / p99": "-",
        "oldest open job": "-",
    }


def test_stats_show_counts_and_times(cli: Command, caller: User) -> None:
    """Counts, the success rate and the times are shown to people, and given whole to programs."""
    _job(caller, "OPEN")
    for fails in (False, False, False, True):
        _end(caller, _job(caller, "DONE"), fails=fails)

    shown = cli("jobs", "stats").out
    for text in ("75.0%", "FINISHED", "OPEN", "DONE", " s / 0."):
        assert text in shown
    stats = cli("jobs", "stats", "-o", "json").json
    assert (stats["total"], stats["success_rate"]) == ("5", 0.75)
    only = cli("jobs", "stats", "--kind", "OPEN", "--days", "1", "-o", "json").json
    assert (only["total"], [each["key"] for each in only["by_kind"]]) == ("1", ["OPEN"])
    assert cli("jobs", "stats", "--days", "400").code is ExitCode.USAGE


def test_stats_show_long_times_by_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    """A span of a minute or more is shown in days, hours, minutes and seconds."""
    stats = pb.JobStats(durations=pb.JobDurations(mean=Duration(seconds=3725, nanos=5000)))
    stats.oldest_open_age.FromSeconds(2 * 86_400)
    print_figures(stats)
    out = capsys.readouterr().out
    assert "mean duration    1:02:05\n" in out
    assert "oldest open job  2 days, 0:00:00\n" in out


def test_workers_are_listed(cli: Command, caller: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are listed newest first, over pages, as a table and as JSON, with what they take."""
    first = _register(caller, name="first", kinds=["A", "B"], execution=pb.JOB_EXECUTION_REMOTE)
    second = _register(caller, name="second")
    table = cli("workers", "list").out
    for text in (first, "A, B", "REMOTE", "all", "both", "its owner"):
        assert text in table

    monkeypatch.setattr("morag_meta.cli.workers.PAGE", 1)
    listed = cli("workers", "list", "-o", "json")
    assert listed.code is ExitCode.OK, listed.err
    assert [each["id"] for each in listed.jsons] == [second, first]
    assert [each["id"] for each in cli("workers", "list", "-n", "1", "-o", "json").jsons] == [second]


def test_list_shows_who_works_and_why_a_job_failed(cli: Command, caller: User) -> None:
    """The table of jobs has the failure of those that failed."""
    _end(caller, _job(caller), fails=True)
    table = cli("jobs", "list").out
    assert "REPORTED" in table
    assert "disk [full]" in table


def test_watching_all_shows_open_jobs_and_new_ones(cli: Command, service: Service, caller: User) -> None:
    """With --until-idle all that is open is followed, and what comes meanwhile, until nothing is open."""
    opened, made = _job(caller), []

    def work() -> None:
        service.wait_for_places(caller, 1)
        time.sleep(1)  # in which what is open is shown
        made.append(_job(caller))
        _end(caller, opened)
        _end(caller, made[0])

    thread = threading.Thread(target=work)
    thread.start()
    result = cli("jobs", "watch", "--all", "--until-idle", "-o", "json")
    thread.join()

    assert result.code is ExitCode.OK, result.err
    seen = [(each["job_id"], int(each["sequence"])) for each in result.jsons]
    assert [pair for pair in seen if pair[0] == opened] == [(opened, 2), (opened, 3)]
    assert [pair for pair in seen if pair[0] == made[0]] == [(made[0], number) for number in (1, 2, 3)]


def test_watching_all_of_none_ends_at_once(cli: Command, caller: User) -> None:
    """Where no job is open there is nothing to wait for."""
    assert cli("jobs", "watch", "--until-idle").code is ExitCode.OK


def test_watching_all_exits_with_nine_where_one_fails(cli: Command, service: Service, caller: User) -> None:
    """Bars of more jobs than fit are taken away once they ended, and a failure is told by the exit code."""
    ids = [_job(caller) for _ in range(13)]

    def work() -> None:
        service.wait_for_places(caller, 1)
        time.sleep(1)  # in which what is open is shown
        for place, job_id in enumerate(ids):
            _end(caller, job_id, fails=place == 0)

    thread = threading.Thread(target=work)
    thread.start()
    result = cli("jobs", "watch", "--all", "--until-idle")
    thread.join()
    assert result.code is ExitCode.JOB_NOT_FINISHED
    assert result.out.count("FINISHED") == 10


def test_watching_all_resumes_by_itself(
    cli: Command, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over streams that end again and again nothing is missed and nothing shown twice."""
    with serving(backend, stream_max_age=1.0) as restless:
        user = restless.new_user()
        monkeypatch.setenv("MORAG_API_KEY", user.key)
        job_id = _job(user)

        def work() -> None:
            jobs = user.channel.jobs
            attempt = jobs.StartJob(pb.StartJobRequest(id=job_id)).attempt
            report: dict[str, Any] = {"id": job_id, "attempt": attempt}
            for number in range(1, 13):
                time.sleep(0.25)
                jobs.UpdateJobProgress(pb.UpdateJobProgressRequest(**report, report_number=number))
            jobs.CompleteJob(pb.CompleteJobRequest(**report, report_number=13))

        thread = threading.Thread(target=work)
        thread.start()
        result = cli("jobs", "watch", "--all", "--until-idle", "-t", restless.target, "-o", "json")
        thread.join()

    assert result.code is ExitCode.OK, result.err
    assert "resuming" in result.err
    numbers = [int(each["sequence"]) for each in result.jsons]
    assert numbers == list(range(numbers[0], 16))


def test_watching_all_begins_anew_where_events_are_gone(
    cli: Command, service: Service, caller: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A position that is no longer kept is answered with a new look at what is open."""
    job_id, taken = _job(caller), WatchAll._take  # noqa: SLF001 - what comes is looked at, and goes on

    def take(watch: WatchAll, frame: pb.JobFrame) -> None:
        taken(watch, frame)
        if frame.HasField("sync") and not removed:
            removed.append(1)
            with service.database.unit_of_work() as uow:
                uow.run(sa.update(job_log).values(removals=job_log.c.removals + 1))
                top = uow.log.look()["position"] + 1
                uow.run(sa.update(job_log).values(position=top))
                uow.run(sa.insert(job_floors), owner_id=caller.id, position=top)
                uow.commit()
        elif frame.HasField("sync"):
            _end(caller, job_id)

    removed: list[int] = []
    monkeypatch.setattr(WatchAll, "_take", take)
    result = cli("jobs", "watch", "--all", "--until-idle", "-o", "json")
    assert result.code is ExitCode.OK, result.err
    assert removed == [1]
    assert "resuming" in result.err


def test_ids_and_all_do_not_go_together(cli: Command, caller: User) -> None:
    """Naming jobs and asking for all of them is a mistake of the command line."""
    assert cli("jobs", "watch", "x", "--all").code is ExitCode.USAGE


def test_watching_all_gives_up_after_its_patience(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away for longer than the patience is UNREACHABLE."""
    monkeypatch.setenv("MORAG_API_KEY", "morag_" + "A" * 43)
    result = cli("jobs", "watch", "--all", "--patience", "0", "-t", "127.0.0.1:1")
    assert result.code is ExitCode.UNREACHABLE
    assert "gave up" in result.err
