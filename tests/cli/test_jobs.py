"""``morag-meta jobs``: listing, and following to the end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from morag_meta.ids import new_id
from moragmeta.v1 import jobs_pb2 as pb
from tests.cli.command import Command
from tests.service import Service, User


@pytest.fixture
def caller(cli: Command, user: User, service: Service, monkeypatch: pytest.MonkeyPatch) -> User:
    """Give a user whose key and server the environment names."""
    monkeypatch.setenv("MORAG_API_KEY", user.key)
    monkeypatch.setenv("MORAG_TARGET", service.target)
    return user


def _job(user: User, kind: str = "REPORT") -> pb.Job:
    job: pb.Job = user.channel.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind=kind)))
    return job


def _work(user: User, job_id: str, *, fails: bool = False) -> None:
    jobs = user.channel.jobs
    attempt = jobs.StartJob(pb.StartJobRequest(id=job_id)).attempt
    jobs.UpdateJobProgress(
        pb.UpdateJobProgressRequest(id=job_id, attempt=attempt, report_number=1, percentage=40, phase="half")
    )
    if fails:
        jobs.FailJob(pb.FailJobRequest(id=job_id, attempt=attempt, report_number=2, error="disk [full]"))
    else:
        jobs.CompleteJob(pb.CompleteJobRequest(id=job_id, attempt=attempt, report_number=2))


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run work a little later, beside the command; what it raises fails the test."""
    threads: list[threading.Thread] = []
    raised: list[BaseException] = []

    def start(work: Callable[[], None]) -> None:
        def later() -> None:
            time.sleep(0.5)
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told below
                raised.append(error)

        threads.append(threading.Thread(target=later))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(20)
    assert not raised


def test_list_shows_the_callers_jobs(cli: Command, caller: User) -> None:
    """Jobs are listed newest first, as a table for people and as JSON for programs."""
    older, newer = _job(caller), _job(caller)
    listed = cli("jobs", "list", "-o", "json")
    assert listed.code is ExitCode.OK, listed.err
    assert [each["id"] for each in listed.jsons] == [newer.id, older.id]
    assert listed.jsons[0]["state"] == "JOB_STATE_PENDING"
    table = cli("jobs", "list").out
    assert older.id in table
    assert "PENDING" in table
    assert [each["id"] for each in cli("jobs", "list", "-n", "1", "-o", "json").jsons] == [newer.id]


def test_list_filters_by_state(cli: Command, caller: User) -> None:
    """Only jobs of the named states are listed, and a state that is none is refused."""
    _job(caller)
    done = _job(caller)
    _work(caller, done.id)
    assert [each["id"] for each in cli("jobs", "list", "--state", "finished", "-o", "json").jsons] == [
        done.id
    ]
    assert cli("jobs", "list", "--state", "DONE").code is ExitCode.USAGE


def test_list_goes_on_over_pages(cli: Command, caller: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit beyond one page fetches the next ones."""
    made = [_job(caller).id for _ in range(5)]
    from morag_meta.cli import jobs

    monkeypatch.setattr(jobs, "PAGE", 2)
    assert [each["id"] for each in cli("jobs", "list", "-n", "5", "-o", "json").jsons] == made[::-1]


def test_watch_prints_every_event_until_the_end(
    cli: Command, caller: User, background: Callable[[Callable[[], None]], None]
) -> None:
    """Following live, each event is one JSON line, numbered without gaps, and FINISHED exits with 0."""
    job = _job(caller)
    background(lambda: _work(caller, job.id))
    result = cli("jobs", "watch", job.id, "-o", "json")
    assert result.code is ExitCode.OK, result.err
    assert [int(each["sequence"]) for each in result.jsons] == [1, 2, 3, 4]
    assert [each["percentage"] for each in result.jsons] == [0, 0, 40, 100]
    assert result.jsons[-1]["state"] == "JOB_STATE_FINISHED"


def test_watch_of_a_failed_job_is_nine(cli: Command, caller: User) -> None:
    """A job that ended FAILED exits with 9, and its error is shown as it is, brackets and all."""
    job = _job(caller)
    _work(caller, job.id, fails=True)
    result = cli("jobs", "watch", job.id)
    assert (result.code, result.code.value) == (ExitCode.JOB_NOT_FINISHED, 9)
    assert "FAILED" in result.out
    assert "disk [full]" in result.out


def test_watch_follows_several_jobs(
    cli: Command, caller: User, background: Callable[[Callable[[], None]], None]
) -> None:
    """Several jobs are followed at once, each with its bar, until all have ended."""
    jobs = [_job(caller, f"KIND-{number}") for number in range(3)]

    def work() -> None:
        for job in jobs:
            _work(caller, job.id)

    background(work)
    result = cli("jobs", "watch", *(job.id for job in jobs))
    assert result.code is ExitCode.OK, result.err
    assert result.out.count("100%") == 3
    assert all(job.kind in result.out for job in jobs)


def test_watch_begins_after_the_given_event(cli: Command, caller: User) -> None:
    """``--after`` leaves out what was seen already."""
    job = _job(caller)
    _work(caller, job.id)
    result = cli("jobs", "watch", job.id, "--after", "2", "-o", "json")
    assert [int(each["sequence"]) for each in result.jsons] == [3, 4]


def test_key_comes_from_file_or_stdin(
    cli: Command, caller: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is read from a file or from standard input, and is no option."""
    monkeypatch.delenv("MORAG_API_KEY")
    (tmp_path / "key").write_text(f"{caller.key}\n")
    assert cli("jobs", "list", "--key-file", "key").code is ExitCode.OK
    assert cli("jobs", "list", "--key-file", "-", stdin=f"{caller.key}\n").code is ExitCode.OK
    assert cli("jobs", "list", "--key-file", "missing").code is ExitCode.CONFIGURATION
    assert cli("jobs", "list").code is ExitCode.CONFIGURATION
    assert cli("jobs", "list", "--key", caller.key).code is ExitCode.USAGE


def test_job_is_cancelled_and_retried(cli: Command, caller: User) -> None:
    """A job is cancelled with its reason, which cannot be done twice, and retried as a new job."""
    job = _job(caller)
    cancelled = cli("jobs", "cancel", job.id, "--reason", "not now", "-o", "json")
    assert cancelled.code is ExitCode.OK, cancelled.err
    told = (cancelled.json["id"], cancelled.json["state"], cancelled.json["summary"])
    assert told == (job.id, "JOB_STATE_CANCELLED", "not now")
    assert cli("jobs", "cancel", job.id).code is ExitCode.REFUSED
    retried = cli("jobs", "retry", job.id, "-o", "json")
    assert retried.code is ExitCode.OK, retried.err
    assert retried.json["id"] != job.id
    assert (retried.json["kind"], retried.json["state"]) == ("REPORT", "JOB_STATE_PENDING")
    assert retried.json["id"] in cli("jobs", "list").out
    assert "CANCELLED" in cli("jobs", "cancel", retried.json["id"]).out


_REFUSED = [
    *([each, id_] for each in ("watch", "cancel", "retry") for id_ in (new_id(), "no-id")),
    ["list", "--owner", new_id()],
]


@pytest.mark.parametrize("words", _REFUSED)
def test_refusals_are_one_line(cli: Command, caller: User, words: list[str]) -> None:
    """What the server refuses is one line and an exit code."""
    result = cli("jobs", *words)
    assert result.code in (ExitCode.NOT_FOUND, ExitCode.REFUSED)
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_watch_after_what_has_not_happened_draws_nothing(cli: Command, caller: User) -> None:
    """A number beyond the job's newest event is refused in one line, without a bar."""
    job = _job(caller)
    result = cli("jobs", "watch", job.id, "--after", "999")
    assert result.code is ExitCode.REFUSED
    assert result.err == f"error: {job.id}: the newest event is 1, and 999 is yet to come\n"
    assert result.out == ""


def test_wrong_key_is_refused_and_not_shown(
    cli: Command, caller: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the server does not know exits with 7, and is not printed."""
    wrong = "morag_" + "A" * 43
    monkeypatch.setenv("MORAG_API_KEY", wrong)
    result = cli("jobs", "list")
    assert (result.code, result.code.value) == (ExitCode.REFUSED, 7)
    assert wrong not in result.err
    assert json.dumps(result.err).count("error: ") == 1
