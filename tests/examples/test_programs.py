"""What the example programs do beside the main job, on SQLite: repeats, signals, faults and interruptions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from moragmeta.v1 import documents_pb2, jobs_pb2
from tests.backends.databases import open_backend
from tests.examples.conftest import Examples, text_files
from tests.service import Service, serving


@pytest.fixture(scope="module")
def calm() -> Iterator[Service]:
    """Serve a SQLite database."""
    with open_backend("sqlite") as backend, serving(backend) as started:
        yield started


@pytest.fixture
def examples(calm: Service) -> Iterator[Examples]:
    """Give the programs of a fresh user."""
    made = Examples(calm.target, calm.new_user().key)
    try:
        yield made
    finally:
        made.close()


def test_registering_again_changes_only_what_changed(examples: Examples, folder: Path) -> None:
    """A second run makes no document and no job twice; a changed file becomes version 2 with a job."""
    first = examples.run("register_folder", folder)
    assert {line.split()[0] for line in first} == {"new"}
    again = examples.run("register_folder", folder)
    assert [line.split()[-1] for line in again] == [line.split()[-1] for line in first]
    assert {line.split()[0] for line in again} == {"unchanged"}
    examples.run("worker", "--until-idle")
    (folder / "lines.md").write_text("one\n\ntwo")
    shutil.copy(folder / "examples" / "worker.py", folder / "zz copy.py")

    third = examples.run("register_folder", folder)

    assert [line.split()[:3] for line in third if " job " in line] == [["new", "version", "lines.md"]]
    assert third[-1].split(maxsplit=1) == ["unchanged", "zz copy.py, same content as examples/worker.py"]
    examples.run("worker", "--until-idle")
    document = examples.documents()["lines.md"]
    assert (document.version, document.ingested_version, document.chunks) == (2, 2, 1)
    assert len(examples.documents()) == len(first)


def test_cancelled_job_is_dropped_by_its_worker(examples: Examples, long_file: Path) -> None:
    """A worker learns of the cancellation from its next report, drops the job, and goes on."""
    examples.run("register_folder", long_file.parent)
    worker = examples.start("worker", "--until-idle", "--pause", "0.2")
    job = examples.wait_for_reports(2)
    examples.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id, reason="not now"))

    (line,) = examples.finish(worker)

    assert "left: FAILED_PRECONDITION (JOB_ENDED)" in line
    (job,) = examples.jobs()
    assert (job.state, job.summary) == (jobs_pb2.JOB_STATE_CANCELLED, "not now")
    assert examples.documents()["long.md"].state == documents_pb2.DOCUMENT_STATE_PENDING


def test_worker_ends_after_the_job_in_hand(examples: Examples, folder: Path, long_file: Path) -> None:
    """SIGTERM lets the worker finish its job and take no other."""
    shutil.move(long_file, folder / "protos" / "a.md")
    examples.run("register_folder", folder)
    worker = examples.start("worker", "--pause", "0.1")
    assert worker.stdout is not None
    first = worker.stdout.readline().rstrip()
    worker.terminate()

    lines = [first, *examples.finish(worker)]

    finished = [job.document_name for job in examples.jobs() if job.state == jobs_pb2.JOB_STATE_FINISHED]
    assert len(finished) == len(lines) < len(text_files(folder))
    assert {job.state for job in examples.jobs()} == {
        jobs_pb2.JOB_STATE_FINISHED,
        jobs_pb2.JOB_STATE_PENDING,
    }


def test_missing_key_is_said_in_one_line(
    examples: Examples, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without MORAG_API_KEY, or with a wrong one, every program ends with a line that says so."""
    for key, line in (("", "MORAG_API_KEY is not set"), ("wrong", "UNAUTHENTICATED (CREDENTIAL_INVALID)")):
        monkeypatch.setitem(examples.environment, "MORAG_API_KEY", key)
        for command in (["register_folder", folder], ["worker"], ["watch"]):
            (said,) = examples.run(*command, expect=1)
            assert said.startswith(line)


def test_worker_takes_no_job_with_a_pause_that_is_none(examples: Examples, long_file: Path) -> None:
    """A pause below zero, or none at all, is refused by the command line, before any job is started."""
    examples.run("register_folder", long_file.parent)
    for pause in ("-1", "nan", "inf", "soon"):
        lines = examples.run("worker", "--until-idle", f"--pause={pause}", expect=2)
        assert lines[-1].endswith(f"invalid seconds value: '{pause}'")
    assert [job.state for job in examples.jobs()] == [jobs_pb2.JOB_STATE_PENDING]
