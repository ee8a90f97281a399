"""The main job on real files: register a folder, work, watch, and compare with an own count of chunks."""

from __future__ import annotations

import signal
from pathlib import Path

from moragmeta.v1 import documents_pb2, jobs_pb2
from tests.examples.conftest import Examples, text_files
from tests.examples.counting import true_chunks

_INGESTED = documents_pb2.DOCUMENT_STATE_INGESTED
_PENDING = documents_pb2.DOCUMENT_STATE_PENDING


def test_folder_is_ingested_with_true_chunk_counts(examples: Examples, folder: Path) -> None:
    """Every text file becomes an INGESTED document with as many chunks as an own count finds."""
    files = text_files(folder)
    registered = examples.run("register_folder", folder)
    assert len(registered) == len(files) > 12
    watcher = examples.start("watch")
    assert watcher.stdout is not None
    shown = [watcher.stdout.readline().rstrip()]  # it watches: the work may begin
    examples.run("worker", "--until-idle", "--pause", "0.01")
    # From the same reader: it may hold lines already, of which nobody else would hear.
    shown += watcher.stdout.read().splitlines()
    examples.finish(watcher)

    documents = examples.documents()
    assert {name: found.state for name, found in documents.items()} == dict.fromkeys(files, _INGESTED)
    assert {name: found.chunks for name, found in documents.items()} == {
        name: true_chunks(path.read_text()) for name, path in files.items()
    }
    assert {found.quality for found in documents.values()} == {1.0}
    assert documents["lines.md"].metadata["characters"] == 2 + 5 + 1 + 300 * 13
    (database,) = examples.databases()
    assert database.document_count == len(files)
    for job in examples.jobs():
        percentages = [event.percentage for event in examples.events(job.id)]
        assert percentages == sorted(percentages)
        mine = [line for line in shown if line.startswith(f"{job.document_name}: ")]
        assert mine[-1].endswith(" chunks")
        assert [int(line.removeprefix(f"{job.document_name}: ").split()[0]) for line in mine] == percentages


def test_files_that_cannot_be_ingested_fail_with_the_reason(examples: Examples, folder: Path) -> None:
    """Binary, changed and missing files fail their jobs; their documents stay PENDING and say why."""
    for name in ("binary.txt", "latin.txt", "changed.txt", "gone.txt"):
        (folder / name).write_text(f"first content of {name}")
    (folder / "binary.txt").write_bytes(b"PK\x03\x04\x00\x00")
    (folder / "latin.txt").write_bytes("straße".encode("latin-1"))
    examples.run("register_folder", folder)
    (folder / "changed.txt").write_text("other content")
    (folder / "gone.txt").unlink()

    examples.run("worker", "--until-idle")

    shown = examples.run("watch", expect=1)
    documents = examples.documents()
    failed = {name: found.last_error for name, found in documents.items() if found.state != _INGESTED}
    assert failed == {
        "binary.txt": "not a text file: byte 4 is NUL",
        "latin.txt": "not a text file: byte 4 is not UTF-8",
        "changed.txt": "the file has changed since it was registered; register it again",
        "gone.txt": "the file cannot be read: No such file or directory",
    }
    assert {documents[name].state for name in failed} == {_PENDING}
    assert all(any(error in line for line in shown) for error in failed.values())
    states = {job.document_name: job.state for job in examples.jobs()}
    assert {name for name, state in states.items() if state == jobs_pb2.JOB_STATE_FAILED} == set(failed)


def test_killed_worker_leaves_nothing_wrong(examples: Examples, long_file: Path) -> None:
    """After SIGKILL the job stays PROCESSING while its lease lives; its owner may cancel and retry it."""
    examples.run("register_folder", long_file.parent)
    worker = examples.start("worker", "--pause", "0.1")
    examples.wait_for_reports(3)
    worker.send_signal(signal.SIGKILL)
    examples.finish(worker, expect=-signal.SIGKILL)

    assert examples.run("worker", "--until-idle") == []

    (job,) = examples.jobs()  # by now a report that was on its way when the worker died is in it too
    assert (job.state, job.attempt) == (jobs_pb2.JOB_STATE_PROCESSING, 1)
    events = examples.events(job.id)
    assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
    assert job.report_number == job.last_sequence - 2
    assert events[-1].percentage == job.percentage
    assert examples.documents()["long.md"].state == documents_pb2.DOCUMENT_STATE_INGESTING
    jobs = examples.channel.jobs
    jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert examples.documents()["long.md"].state == _PENDING
    jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job.id))
    examples.run("worker", "--until-idle")
    document = examples.documents()["long.md"]
    assert (document.state, document.chunks) == (_INGESTED, true_chunks(long_file.read_text()))


def test_several_workers_share_the_jobs(examples: Examples, folder: Path) -> None:
    """Two workers at once do every job exactly once, and a lost race harms neither."""
    examples.run("register_folder", folder)
    workers = [examples.start("worker", "--until-idle", "--pause", "0.01") for _ in range(2)]

    lines = [line for worker in workers for line in examples.finish(worker)]

    done = [line for line in lines if line.endswith(" chunks")]
    assert sorted(line.split(": ")[0] for line in done) == sorted(text_files(folder))
    assert all("left: FAILED_PRECONDITION" in line for line in lines if line not in done)
    assert {(job.state, job.attempt) for job in examples.jobs()} == {(jobs_pb2.JOB_STATE_FINISHED, 1)}
