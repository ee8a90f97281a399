"""Shows the ingestion of a database's documents live: a bar per job, from the stream of its events.

    MORAG_API_KEY=... python examples/watch.py [--database NAME]

It ends when no ingestion job is open any more, lists every document, and exits with 1 unless each one is
INGESTED. Where output is no terminal, each event is a line. A stream that the service ends for a while
(it restarts, or the stream is old) is resumed after the last event seen, so that nothing is missed and
nothing is shown twice; the numbers of the events prove it.

What does not live here: any polling for progress. Jobs are listed to know what to watch, no more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

import grpc
from connection import (
    Connection,
    code,
    credentials,
    explain,
    info,
    may_repeat,
    open_async_channel,
    pauses,
    reason,
    wait_of,
)
from register_folder import DATABASE_NAME, find_database
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from moragmeta.v1 import documents_pb2, jobs_pb2
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from moragmeta.v1.jobs_pb2_grpc import JobServiceAsyncStub  # a name that the stubs' types alone have

OPEN_STATES: Final = (
    jobs_pb2.JOB_STATE_PENDING,
    jobs_pb2.JOB_STATE_WAITING_FOR_REMOTE_WORKER,
    jobs_pb2.JOB_STATE_PROCESSING,
)


class Bars:
    """What a person sees of the jobs: bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console, jobs: list[jobs_pb2.Job]) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        note = TextColumn("{task.fields[note]}", markup=False)
        self._live = console.is_terminal
        self.progress = Progress(*columns, note, console=console, disable=not self._live)
        self._all = self.progress.add_task("all jobs", total=len(jobs), note="")
        self._tasks: dict[str, TaskID] = {}

    def show(self, job: jobs_pb2.Job, event: jobs_pb2.JobEvent) -> None:
        """Show one event; a job has a bar while it is being worked on."""
        note = event.error or event.summary or event.phase
        if not self._live:
            state = jobs_pb2.JobState.Name(event.state).removeprefix("JOB_STATE_")
            print(f"{job.document_name}: {event.percentage} % {state} {note}".rstrip(), flush=True)
            return
        if event.state == jobs_pb2.JOB_STATE_PROCESSING:
            task = self._tasks.get(job.id)
            if task is None:
                task = self._tasks[job.id] = self.progress.add_task(job.document_name, total=100, note="")
            self.progress.update(task, completed=event.percentage, note=note)
        elif job.id in self._tasks:
            self.progress.remove_task(self._tasks.pop(job.id))
        if event.state not in OPEN_STATES:
            self.progress.advance(self._all)


async def events(stub: JobServiceAsyncStub, job_id: str) -> AsyncIterator[jobs_pb2.JobEvent]:
    """Give every event of a job in order, each once, until the job has ended or is gone.

    Raises:
        grpc.RpcError: the stream cannot be resumed, mostly because the key is no longer valid.
    """
    seen, waits = 0, pauses()
    while True:
        try:
            request = jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=seen)
            async for frame in stub.WatchJob(request, metadata=credentials()):
                if frame.WhichOneof("frame") != "event":
                    continue  # a heartbeat: nothing has changed
                if frame.event.sequence != seen + 1:
                    raise AssertionError(f"event {frame.event.sequence} of job {job_id} came after {seen}")
                seen, waits = frame.event.sequence, pauses()
                yield frame.event
            return
        except grpc.aio.AioRpcError as error:
            if code(error) is grpc.StatusCode.NOT_FOUND:
                return
            if reason(error) == "POSITION_TRIMMED":  # older events are no longer kept: begin where they do
                seen = int(info(error).metadata["oldest_after_sequence"])
            elif not may_repeat(error):
                raise
            await asyncio.sleep(wait_of(error, next(waits)))


async def watch(jobs: list[jobs_pb2.Job], console: Console) -> None:
    """Show the events of all jobs at once, until each has ended."""
    bars = Bars(console, jobs)
    async with open_async_channel() as channel:
        stub = JobServiceStub(channel)

        async def follow(job: jobs_pb2.Job) -> None:
            async for event in events(stub, job.id):
                bars.show(job, event)

        with bars.progress:
            await asyncio.gather(*map(follow, jobs))


def open_jobs(connection: Connection, database_id: str) -> list[jobs_pb2.Job]:
    """Return the database's ingestion jobs that have not ended."""
    wanted = jobs_pb2.JobFilter(database_id=database_id, kinds=["INGESTION"], states=OPEN_STATES)
    request = jobs_pb2.ListJobsRequest(filter=wanted, order_by="create_time", page_size=1000)
    found: list[jobs_pb2.Job] = []
    while True:
        page = connection.call(connection.jobs.ListJobs, request)
        found += page.jobs
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def documents(connection: Connection, database_id: str) -> Iterator[documents_pb2.Document]:
    """Give the database's documents by name."""
    request = documents_pb2.ListDocumentsRequest(database_id=database_id, order_by="name", page_size=1000)
    while True:
        page = connection.call(connection.documents.ListDocuments, request)
        yield from page.documents
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def show_documents(found: list[documents_pb2.Document], console: Console) -> None:
    """Print what became of each document."""
    table = Table("document", "version", "state", "chunks", "quality", "last error")
    for document in found:
        state = documents_pb2.DocumentState.Name(document.state).removeprefix("DOCUMENT_STATE_")
        numbers = (str(document.chunks), f"{document.quality:.3f}")
        said = (Text(document.name), str(document.version), state, *numbers, Text(document.last_error))
        table.add_row(*said)
    console.print(table)


def run(connection: Connection, database_name: str, console: Console) -> bool:
    """Watch until nothing is open, and return whether every document is INGESTED."""
    database = find_database(connection, database_name)
    if database is None:
        sys.exit(f"there is no database {database_name!r}; run register_folder.py first")
    while jobs := open_jobs(connection, database.id):
        asyncio.run(watch(jobs, console))
    found = list(documents(connection, database.id))
    show_documents(found, console)
    return all(document.state == documents_pb2.DOCUMENT_STATE_INGESTED for document in found)


def main() -> None:
    """Read the command line and watch."""
    parser = argparse.ArgumentParser(description="Watch the ingestion of a database's documents.")
    parser.add_argument("--database", default=DATABASE_NAME, help="the database that they belong to")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    with Connection() as connection:
        try:
            complete = run(connection, arguments.database, console)
        except grpc.RpcError as error:
            sys.exit(explain(error))
        except KeyboardInterrupt:
            sys.exit(130)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
