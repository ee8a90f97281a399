"""The example programs as a newcomer runs them: real processes with an address and a key, no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2
from tests.backends.databases import Backend
from tests.service import Channel, Service, serving

ROOT = Path(__file__).parents[2]


class Examples:
    """Runs the programs of one user, and looks at what they did through that user's stubs."""

    def __init__(self, target: str, key: str) -> None:
        self.channel = Channel(target, (("x-api-key", key),))
        self.environment = os.environ | {
            "MORAG_TARGET": target,
            "MORAG_API_KEY": key,
            "COLUMNS": "250",
        }
        self._started: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a program; its errors come with its output."""
        command = [sys.executable, str(ROOT / "examples" / f"{program}.py"), *map(str, arguments)]
        process = subprocess.Popen(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._started.append(process)
        return process

    def run(self, program: str, *arguments: str | Path, expect: int = 0) -> list[str]:
        """Run a program to its end and give its lines."""
        return self.finish(self.start(program, *arguments), expect=expect)

    def finish(self, process: subprocess.Popen[str], *, expect: int = 0) -> list[str]:
        """Wait for a program's end and give the rest of its lines."""
        output, _ = process.communicate(timeout=60)
        assert process.returncode == expect, output
        return output.splitlines()

    def documents(self) -> dict[str, documents_pb2.Document]:
        """Give the user's documents by name."""
        request = documents_pb2.ListDocumentsRequest(page_size=1000)
        return {found.name: found for found in self.channel.documents.ListDocuments(request).documents}

    def jobs(self) -> list[jobs_pb2.Job]:
        """Give the user's jobs, the newest first."""
        return list(self.channel.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1000)).jobs)

    def events(self, job_id: str) -> list[jobs_pb2.JobEvent]:
        """Give a job's events in order."""
        request = jobs_pb2.ListJobEventsRequest(job_id=job_id, page_size=1000)
        return list(self.channel.jobs.ListJobEvents(request).events)

    def databases(self) -> list[databases_pb2.Database]:
        """Give the user's databases."""
        return list(self.channel.databases.ListDatabases(databases_pb2.ListDatabasesRequest()).databases)

    def wait_for_reports(self, least: int) -> jobs_pb2.Job:
        """Wait until the only job has had so many reports."""
        for _ in range(600):
            (job,) = self.jobs()
            if job.report_number >= least:
                return job
            time.sleep(0.05)
        raise AssertionError(job)

    def close(self) -> None:
        """End what still runs, and disconnect."""
        for process in self._started:
            process.kill()
            process.communicate()
        self.channel.close()


def text_files(folder: Path) -> dict[str, Path]:
    """Give the files that registering a folder of these tests is about, by name."""
    wanted = {".proto", ".py", ".txt", ".md"}
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.suffix in wanted}


@pytest.fixture(scope="session")
def restless(backend: Backend) -> Iterator[Service]:
    """Serve with streams that live for about a second, so that watching includes resuming."""
    with serving(backend, stream_max_age=1.0) as started:
        yield started


@pytest.fixture
def examples(restless: Service) -> Iterator[Examples]:
    """Give the programs of a fresh user."""
    made = Examples(restless.target, restless.new_user().key)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy real files of this repository: protos and code, in folders of their own."""
    made = tmp_path / "my files"
    for source in ("protos/moragmeta/v1", "examples"):
        shutil.copytree(ROOT / source, made / source, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (made / "lines.md").write_bytes(b"\xef\xbb\xbf# Ma\xc3\x9fe\r\n\r\n" + b"eine Zeile\r\n \r\n" * 300)
    return made


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """Make a file that gives 20 progress reports."""
    made = tmp_path / "long" / "long.md"
    made.parent.mkdir()
    made.write_text((ROOT / "protos/moragmeta/v1/jobs.proto").read_text())
    return made
