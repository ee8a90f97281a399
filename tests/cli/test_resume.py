"""``morag-meta jobs watch`` over servers that come and go."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from moragmeta.v1 import jobs_pb2 as pb
from tests.server.processes import Served, environment, served
from tests.server.test_process import first_key
from tests.service import Channel

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Iterator[Served]:
    """Serve a database of the test's own."""
    with served(tmp_path, database_url) as started:
        yield started


def _jobs(service: Served, key: str) -> Channel:
    return Channel(service.target, (("x-api-key", key),))


def _report(service: Served, key: str, job_id: str, number: int) -> None:
    channel = _jobs(service, key)
    channel.jobs.UpdateJobProgress(
        pb.UpdateJobProgressRequest(id=job_id, attempt=1, report_number=number, percentage=10 * number)
    )
    channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_watch_resumes_by_itself(
    service: Served, tmp_path: Path, database_url: str, number: signal.Signals
) -> None:
    """Over a server that drains or dies and comes back, every event is printed once, in order, to the end."""
    key = first_key(service)
    channel = _jobs(service, key)
    job = channel.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="REPORT")))
    channel.jobs.StartJob(pb.StartJobRequest(id=job.id))
    channel.close()
    watch = subprocess.Popen(
        [sys.executable, "-m", "morag_meta", "jobs", "watch", job.id, "-o", "json", "-t", service.target],
        cwd=tmp_path,
        env=environment(API_KEY=key),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    seen = [json.loads(watch.stdout.readline()) for _ in range(2)]
    _report(service, key, job.id, 1)
    seen.append(json.loads(watch.stdout.readline()))
    service.end(number)
    with served(tmp_path, database_url, port=service.port) as again:
        for report in (2, 3):
            _report(again, key, job.id, report)
        channel = _jobs(again, key)
        channel.jobs.CompleteJob(pb.CompleteJobRequest(id=job.id, attempt=1, report_number=4))
        channel.close()
        out, err = watch.communicate(timeout=60)
    seen += [json.loads(line) for line in out.splitlines()]
    assert [int(event["sequence"]) for event in seen] == [1, 2, 3, 4, 5, 6]
    assert [event["percentage"] for event in seen] == [0, 0, 10, 20, 30, 100]
    assert watch.returncode == ExitCode.OK
    assert "resuming" in err


def test_watch_gives_up_when_its_patience_ends(service: Served, tmp_path: Path) -> None:
    """When the server stays away the command ends with one line that names the last event."""
    key = first_key(service)
    channel = _jobs(service, key)
    job = channel.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="REPORT")))
    channel.close()
    words = ["jobs", "watch", job.id, "-t", service.target, "--patience", "1"]
    watch = subprocess.Popen(
        [sys.executable, "-m", "morag_meta", *words, "-o", "json"],
        cwd=tmp_path,
        env=environment(API_KEY=key),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["sequence"] == "1"
    service.end(signal.SIGKILL)
    _, err = watch.communicate(timeout=60)
    assert watch.returncode == ExitCode.UNREACHABLE
    assert "gave up after event 1" in err.splitlines()[-1]
    assert "Traceback" not in err
