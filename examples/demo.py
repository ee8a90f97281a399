"""Thirty workers on the text files of a folder, with live bars, and a check of what came of it.

    python examples/demo.py [FOLDER] [--workers 30] [--pause 0.05]     (or: make demo DEMO_FOLDER=...)

Without a folder it takes docs, protos and the service's code of this repository. With MORAG_TARGET and
MORAG_API_KEY it uses that service, otherwise one of its own on a SQLite file that goes at the end. It
registers the files, lets the workers read and chunk them, shows every job from one stream over all of
them, and exits with 0 when each file has exactly as many chunks as an own count finds.

What does not live here: how a worker works (``morag_client.Worker``), how text is cut (``chunking.py``),
and what is shown (``demo_bars.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from chunking import NotTextError, chunk, decode, printable_share
from connection import TLS_VARIABLES, Connection, explain, info, reason, tls
from demo_bars import Bars
from register_folder import ensure_database, new_request_id, register, text_files
from rich.console import Console
from worker import IngestionError, read

from morag_client import JobFailed, Task, Worker, connect, watch_jobs
from moragmeta.v1 import jobs_pb2

ROOT: Final = Path(__file__).resolve().parents[1]
DATABASE_NAME: Final = "demo"
LONGEST_SECONDS: Final = 120.0
REPORTS: Final = 10  # progress reports of a job, about
OPEN_STATES: Final = (
    jobs_pb2.JOB_STATE_PENDING,
    jobs_pb2.JOB_STATE_WAITING_FOR_REMOTE_WORKER,
    jobs_pb2.JOB_STATE_PROCESSING,
)


@dataclass
class Outcome:
    """What the stream told of the demo's jobs."""

    chunks: dict[str, int]
    """How many chunks an own count finds, by job."""
    sequences: dict[str, int] = field(default_factory=dict)
    """The number of the last event seen, by job."""
    states: dict[str, jobs_pb2.JobState.ValueType] = field(default_factory=dict)
    events: int = 0
    gaps: int = 0

    def heed(self, job_id: str, state: jobs_pb2.JobState.ValueType, sequence: int, *, event: bool) -> None:
        """Note where a job stands, and whether an event is missing before this one."""
        self.events += event
        if event and sequence != self.sequences.get(job_id, 0) + 1:
            self.gaps += 1
        self.sequences[job_id] = sequence
        self.states[job_id] = state

    @property
    def complete(self) -> bool:
        """Whether every job has ended."""
        return all(self.states.get(job_id, OPEN_STATES[0]) not in OPEN_STATES for job_id in self.chunks)


@contextmanager
def service() -> Iterator[tuple[str, str]]:
    """Give the address of a service and a key: those of the environment, or of a service made now."""
    target, key = os.environ.get("MORAG_TARGET", ""), os.environ.get("MORAG_API_KEY", "")
    if target and key:
        yield target, key
        return
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MORAG_")}
    for name in TLS_VARIABLES:  # they are another service's
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="morag-demo-") as folder:
        log = Path(folder, "log")
        kept |= {"MORAG_DATABASE_URL": f"sqlite:///{folder}/morag.db", "MORAG_LOG_FORMAT": "json"}
        kept |= {"MORAG_GRPC_ADDRESS": "127.0.0.1:0"}
        with log.open("w") as said:
            command = [sys.executable, "-m", "morag_meta", "serve"]
            process = subprocess.Popen(command, cwd=folder, env=kept, stdout=said, stderr=said)  # noqa: S603
        try:
            yield started(process, log)
        finally:
            process.terminate()
            process.wait(30)


def started(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    """Wait until the service serves, and return its address and the key that it printed."""
    for _ in range(600):
        port, key = 0, ""
        for line in log.read_text().splitlines():
            if line.startswith("admin API key: "):
                key = line.removeprefix("admin API key: ")
            elif line.startswith("{") and line.endswith("}") and '"serving"' in line:
                port = json.loads(line).get("port", 0)
        if port and key:
            return f"127.0.0.1:{port}", key
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"the service did not start:\n{log.read_text()}")


def register_files(connection: Connection, folders: list[Path], root: Path) -> tuple[str, dict[str, int]]:
    """Register the files, each with a job; return the database, and an own count of chunks by job."""
    check_free(connection)
    database = ensure_database(connection, DATABASE_NAME)
    chunks: dict[str, int] = {}
    for path in (path for folder in folders for path in text_files(folder)):
        try:
            own = sum(1 for _ in chunk(decode(path.read_bytes())))
        except NotTextError:
            continue
        document = register(connection, database.id, root, path).document
        job = jobs_pb2.Job(kind="INGESTION", document_id=document.id)
        request = jobs_pb2.CreateJobRequest(job=job, request_id=new_request_id())
        try:
            chunks[connection.call(connection.jobs.CreateJob, request).id] = own
        except grpc.RpcError as error:
            if reason(error) != "JOB_ALREADY_OPEN":
                raise
            chunks[info(error).metadata["job_id"]] = own  # another file with the same content
    return database.id, chunks


def check_free(connection: Connection) -> None:
    """End the program where others wait for ingestion, whose jobs the demo's workers would take."""
    wanted = jobs_pb2.JobFilter(kinds=["INGESTION"], states=OPEN_STATES)
    request = jobs_pb2.ListJobsRequest(filter=wanted, page_size=1)
    if connection.call(connection.jobs.ListJobs, request).jobs:
        sys.exit("this key's owner has open ingestion jobs, which the demo's workers would take: not begun")


def ingest(task: Task, pause: float) -> jobs_pb2.JobResult:
    """Read and chunk a document's file; rest ``pause`` seconds at each report, so that bars can be seen."""
    if task.document is None:
        raise JobFailed("the job has no document")
    try:
        text = read(task.document)
    except IngestionError as error:
        raise JobFailed(str(error)) from None
    pieces = list(chunk(text))
    for number in range(0, len(pieces), max(1, len(pieces) // REPORTS)):
        task.progress(100 * number // len(pieces), "chunking", f"{len(pieces)} chunks")
        task.rest(pause)
    return jobs_pb2.JobResult(chunks=len(pieces), quality=printable_share(text))


@contextmanager
def working(channel: grpc.Channel, count: int, pause: float) -> Iterator[None]:
    """Let so many workers work for the length of a block."""
    workers = [
        Worker(
            channel, lambda task: ingest(task, pause), name=f"demo {number}", kinds=["INGESTION"], grace=0.0
        )
        for number in range(1, count + 1)
    ]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()


def follow(channel: grpc.Channel, database_id: str, outcome: Outcome, bars: Bars) -> None:
    """Show the jobs until each has ended, or the time is up."""
    wanted = jobs_pb2.JobFilter(database_id=database_id, kinds=["INGESTION"])
    with watch_jobs(channel, wanted, include_snapshot=True) as frames, bars:
        timer = threading.Timer(LONGEST_SECONDS, frames.close)
        timer.daemon = True
        timer.start()
        for frame in frames:
            if frame.HasField("snapshot") and (job := frame.snapshot).id in outcome.chunks:
                outcome.heed(job.id, job.state, job.last_sequence, event=False)
                bars.begin(job)
            elif frame.HasField("event") and (event := frame.event).job_id in outcome.chunks:
                outcome.heed(event.job_id, event.state, event.sequence, event=True)
                bars.show(event)
            if outcome.complete:
                break
        timer.cancel()


def verdict(connection: Connection, outcome: Outcome, bars: Bars, summary: str) -> bool:
    """Compare each job's chunks with the own count, say what came of it, and return whether it is right."""
    wrong = []
    for job_id, own in outcome.chunks.items():
        job = connection.call(connection.jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id))
        if job.state != jobs_pb2.JOB_STATE_FINISHED or job.result.chunks != own:
            state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
            wrong.append(f"{job.document_name}: {state}, {job.result.chunks} chunks, not {own} {job.error}")
    if outcome.gaps:
        wrong.append(f"{outcome.gaps} events are missing from the stream")
    total = sum(outcome.chunks.values())
    seen = f"{outcome.events} events, {outcome.gaps} missing"
    bars.say(*wrong, f"{len(outcome.chunks)} files, {total} chunks, {seen}, {summary}")
    bars.say("every file has exactly the chunks that it should have" if not wrong else f"{len(wrong)} wrong")
    return not wrong


def main() -> None:
    """Read the command line, and show it all."""
    parser = argparse.ArgumentParser(description="Show workers at work on the text files of a folder.")
    parser.add_argument("folder", type=Path, nargs="?", help="the folder; its text files are taken, deeply")
    parser.add_argument("--workers", type=int, default=30, help="how many workers")
    parser.add_argument("--pause", type=float, default=0.05, metavar="SECONDS", help="rest at each report")
    arguments = parser.parse_args()
    root = arguments.folder.resolve() if arguments.folder else ROOT
    folders = [root] if arguments.folder else [ROOT / name for name in ("docs", "protos", "morag_meta")]
    if not root.is_dir():
        parser.error(f"{arguments.folder} is not a folder")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and so end all that it began
    with service() as (target, key):
        os.environ |= {"MORAG_TARGET": target, "MORAG_API_KEY": key}
        with Connection() as connection, connect(target, key, credentials=tls()) as channel:
            try:
                right = show(connection, channel, folders, root, arguments)
            except grpc.RpcError as error:
                sys.exit(explain(error))
            except KeyboardInterrupt:
                sys.exit(130)
    sys.exit(0 if right else 1)


def show(
    connection: Connection,
    channel: grpc.Channel,
    folders: list[Path],
    root: Path,
    arguments: argparse.Namespace,
) -> bool:
    """Run the demo; return whether all is as it should be."""
    database_id, chunks = register_files(connection, folders, root)
    if not chunks:
        sys.exit(f"there is no text file in {root}")
    outcome, bars = Outcome(chunks), Bars(Console(highlight=False), len(chunks))
    began = time.monotonic()
    with working(channel, arguments.workers, arguments.pause):
        follow(channel, database_id, outcome, bars)
        seconds = time.monotonic() - began
    return verdict(connection, outcome, bars, f"{arguments.workers} workers, {seconds:.1f} s")


if __name__ == "__main__":
    main()
