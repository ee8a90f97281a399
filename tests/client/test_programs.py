"""The programs that a newcomer runs: the worker of the README, and the demo."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moragmeta.v1 import jobs_pb2
from tests.certificates import Authority
from tests.client.conftest import Owner, until

ROOT = Path(__file__).parents[2]
_README = ROOT / "clients/python/README.md"
_FINISHED = jobs_pb2.JOB_STATE_FINISHED


class Programs:
    """Starts programs, and ends those that a failed test left."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str | Path, owner: Owner | None = None) -> subprocess.Popen[str]:
        """Start Python with these arguments, for an owner or none; its errors come with its output."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MORAG_")}
        kept |= self.environment
        if owner is not None:
            kept |= {"MORAG_TARGET": owner.target, "MORAG_API_KEY": owner.key}
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=kept | {"COLUMNS": "120"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._started.append(process)
        return process

    def run(self, *command: str | Path, owner: Owner | None = None, expect: int = 0) -> list[str]:
        """Run a program to its end, and give its lines."""
        process = self.start(*command, owner=owner)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == expect, output
        return output.splitlines()

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Give a place to start programs from."""
    made = Programs()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of a few files of this repository, one without text, and two of the same content."""
    made = tmp_path / "files"
    made.mkdir()
    for name in ("jobs.proto", "workers.proto", "errors.proto"):
        (made / name).write_bytes((ROOT / "protos/moragmeta/v1" / name).read_bytes())
    (made / "again.proto").write_bytes((made / "errors.proto").read_bytes())
    (made / "binary.txt").write_bytes(b"PK\x03\x04\x00")
    return made


def _example_jobs(owner: Owner, path: Path, count: int) -> list[jobs_pb2.Job]:
    job = jobs_pb2.Job(kind="EXAMPLE")
    job.parameters["path"] = str(path)
    request = jobs_pb2.CreateJobRequest(job=job)
    return [owner.stub.CreateJob(request) for _ in range(count)]


def test_worker_of_the_readme_works(owner: Owner, programs: Programs, tmp_path: Path) -> None:
    """The README's program does the jobs it was made for, and SIGTERM ends it in peace."""
    program = tmp_path / "program.py"
    (source,) = re.findall(r"```python\n(import os\n.*?)```", _README.read_text(), re.DOTALL)
    program.write_text(source)
    jobs = _example_jobs(owner, ROOT / "docs/streams.md", 6)
    process = programs.start(program, owner=owner)
    until(lambda: owner.ended(*jobs))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
    paragraphs = (ROOT / "docs/streams.md").read_text().count("\n\n") + 1
    for job in map(owner.now, jobs):
        assert (job.state, job.phase, job.result.chunks) == (_FINISHED, "embedding", paragraphs)


def test_worker_of_the_readme_is_short() -> None:
    """What a user writes beside the handler's own work is ten lines or less."""
    (source,) = re.findall(r"```python\n(import os\n.*?)```", _README.read_text(), re.DOTALL)
    lines = [line for line in source.splitlines() if line.strip()]
    handler = lines[lines.index("def ingest(task: Task) -> JobResult:") :]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) <= 10
    assert len(handler) <= 10


def test_demo_starts_a_service_and_checks_itself(programs: Programs, folder: Path) -> None:
    """Without a service the demo makes one, and every file ends with its own number of chunks."""
    lines = programs.run(ROOT / "examples/demo.py", folder, "--workers", "3", "--pause", "0")
    assert sorted(line.split(":")[0].split() for line in lines[:-2]) == [
        ["FINISHED", name] for name in ("again.proto", "jobs.proto", "workers.proto")
    ]
    assert re.fullmatch(r"3 files, \d+ chunks, \d+ events, 0 missing, 3 workers, \d+\.\d s", lines[-2])
    assert lines[-1] == "every file has exactly the chunks that it should have"


def test_demos_own_service_is_called_in_plaintext(programs: Programs, folder: Path, tmp_path: Path) -> None:
    """A certificate authority in the environment is for another service than the demo's own."""
    authority = tmp_path / "ca.crt"
    authority.write_bytes(Authority().certificate)
    programs.environment["MORAG_CA_FILE"] = str(authority)
    lines = programs.run(ROOT / "examples/demo.py", folder, "--workers", "1", "--pause", "0")
    assert lines[-1] == "every file has exactly the chunks that it should have"


def test_demo_uses_a_given_service_and_can_be_run_again(
    owner: Owner, programs: Programs, folder: Path
) -> None:
    """With an address and a key it works there; a second run ingests the same documents anew."""
    for runs in (1, 2):
        lines = programs.run(ROOT / "examples/demo.py", folder, "--pause", "0", owner=owner)
        assert lines[-1] == "every file has exactly the chunks that it should have"
        jobs = owner.stub.ListJobs(jobs_pb2.ListJobsRequest()).jobs
        assert [job.state for job in jobs] == [_FINISHED] * 3 * runs


def test_demo_leaves_the_jobs_of_others_alone(owner: Owner, programs: Programs, folder: Path) -> None:
    """Where ingestion jobs are open already, the demo does not begin, for its workers would take them."""
    programs.run(ROOT / "examples/register_folder.py", folder, owner=owner)
    (line,) = programs.run(ROOT / "examples/demo.py", folder, expect=1, owner=owner)
    assert line.endswith("not begun")


def test_demo_says_what_is_wrong(owner: Owner, programs: Programs, tmp_path: Path) -> None:
    """A wrong key and a folder without text end it with a line that says so."""
    demo, stranger = ROOT / "examples/demo.py", Owner(owner.target, "wrong")
    stranger.channel.close()
    (line,) = programs.run(demo, tmp_path, owner=stranger, expect=1)
    assert line.startswith("UNAUTHENTICATED (CREDENTIAL_INVALID)")
    (line,) = programs.run(demo, tmp_path, expect=1, owner=owner)
    assert line.startswith("there is no text file in")
