"""The example programs while the service is away: they wait, come back, and lose and repeat nothing."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from moragmeta.v1 import jobs_pb2
from tests.examples.conftest import ROOT, Examples
from tests.server.processes import served


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

        (done,) = examples.finish(worker)
        shown = examples.finish(watcher)

        (job,) = examples.jobs()
        assert (job.state, job.attempt) == (jobs_pb2.JOB_STATE_FINISHED, 1)
        assert done == f"jobs.proto: {job.result.chunks} chunks"
        events = examples.events(job.id)
        assert [event.sequence for event in events] == list(range(1, job.report_number + 3))
        lines = [line for line in shown if line.startswith("jobs.proto: ")]
        assert [int(line.split()[1]) for line in lines] == [event.percentage for event in events]
        examples.close()
