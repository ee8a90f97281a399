"""The example programs while the service is away: they wait, come back, and lose and repeat nothing."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from moragmeta.v1 import jobs_pb2
from tests.examples.conftest import ROOT, Examples
from tests.server.processes import served


def test_program_that_is_early_says_so_and_waits(tmp_path: Path) -> None:
    """Where nobody answers yet a program says which address that is, once, and works when somebody does."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.md").write_text("one")
    url = f"sqlite:///{tmp_path / 'morag.db'}"
    with served(tmp_path, url) as service:
        assert service.running.stdout is not None
        examples = Examples(service.target, service.running.stdout.readline().split()[-1])
        service.end()
    # Without MORAG_TARGET it is where this machine's service listens, here on every interface.
    del examples.environment["MORAG_TARGET"]
    examples.environment["MORAG_GRPC_ADDRESS"] = f"0.0.0.0:{service.port}"
    early = examples.start("register_folder", files)
    assert early.stdout is not None
    first = early.stdout.readline()
    with served(tmp_path, url, port=service.port):
        (done,) = examples.finish(early)

    assert first == f"{service.target} does not answer, retrying; set MORAG_TARGET if it is elsewhere\n"
    assert done.startswith("new         a.md")
    examples.close()


def test_worker_and_watcher_outlive_a_killed_service(tmp_path: Path) -> None:
    """SIGKILL of the service amid a job, and its new start, change nothing but the time that it takes."""
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(ROOT / "protos/moragmeta/v1/jobs.proto", files)
    with served(tmp_path, f"sqlite:///{tmp_path / 'morag.db'}") as service:
        assert service.running.stdout is not None
        key = service.running.stdout.readline().removeprefix("admin API key: ").strip()
        examples = Examples(service.target, key)
        examples.run("register_folder", files)
        worker = examples.start("worker", "--until-idle", "--pause", "0.1")
        watcher = examples.start("watch")
        examples.wait_for_reports(4)
        service.end(signal.SIGKILL)
        service.running.stdout.close()
        time.sleep(1)
        service.start()
        service.ready()

        *told, done = examples.finish(worker)
        shown = examples.finish(watcher)

        (job,) = examples.jobs()
        assert (job.state, job.attempt) == (jobs_pb2.JOB_STATE_FINISHED, 1)
        assert done == f"jobs.proto: {job.result.chunks} chunks"
        assert all(line.startswith(f"{service.target} does not answer, retrying") for line in told)
        events = examples.events(job.id)
        assert [event.sequence for event in events] == list(range(1, job.report_number + 3))
        lines = [line for line in shown if line.startswith("jobs.proto: ")]
        assert [int(line.split()[1]) for line in lines] == [event.percentage for event in events]
        examples.close()
