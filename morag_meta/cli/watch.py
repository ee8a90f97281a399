"""Following one job over its stream, and showing what happens: bars for people, lines for programs.

A stream that ends early is opened again after the last event seen, so nothing is missed or shown twice.
"""

from __future__ import annotations

import asyncio
import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
from google.protobuf import json_format
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from morag_meta.cli.failures import CommandError
from morag_meta.cli.interruptions import Pauses, is_interruption, is_rate_limit, told_delay
from morag_meta.cli.output import print_json
from morag_meta.exits import ExitCode
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub

FINAL = (pb.JOB_STATE_FINISHED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)
_SECONDS = 30.0


def message_to_dict(message: Any) -> dict[str, Any]:
    """Return a message as JSON values, with the names of the proto."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


class View(Protocol):
    """What is told about the jobs that are followed."""

    def begin(self, job: pb.Job) -> None:
        """Show a job before its first event."""

    def event(self, event: pb.JobEvent) -> None:
        """Show one event."""

    def away(self, job_id: str, cause: str) -> None:
        """Show that the stream of a job is interrupted."""

    def forget(self, job_id: str) -> None:
        """Show a job that has ended no longer."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""


class Lines:
    """One JSON object a line for each event."""

    def begin(self, job: pb.Job) -> None:
        """Print nothing: the first event says it all."""

    def event(self, event: pb.JobEvent) -> None:
        """Print the event."""
        print_json(message_to_dict(event))

    def away(self, job_id: str, cause: str) -> None:
        """Say it on stderr."""
        sys.stderr.write(f"warning: {job_id}: {cause}; resuming\n")

    def forget(self, job_id: str) -> None:
        """Print nothing: what was printed stays."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""


class Bars:
    """One live progress bar for each job; where there is no terminal, the bars as they ended."""

    def __init__(self) -> None:
        """Prepare the bars."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=Console(width=None if sys.stdout.isatty() else 160, highlight=False),
        )
        self._tasks: dict[str, TaskID] = {}

    def begin(self, job: pb.Job) -> None:
        """Add the job's bar."""
        self._progress.start()
        title = f"{job.kind} {job.document_name or job.id}".replace("[", r"\[")
        self._tasks[job.id] = self._progress.add_task(title, total=100, state="", said="")

    def event(self, event: pb.JobEvent) -> None:
        """Move the bar."""
        state = pb.JobState.Name(event.state).removeprefix("JOB_STATE_")
        if event.attempt > 1:
            state += f" (attempt {event.attempt})"
        said = (event.error or event.summary or event.phase).replace("[", r"\[")
        task = self._tasks[event.job_id]
        self._progress.update(task, completed=event.percentage, state=state, said=said)

    def away(self, job_id: str, cause: str) -> None:
        """Say it beside the bar."""
        self._progress.update(self._tasks[job_id], said=f"{cause}; resuming")

    def forget(self, job_id: str) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._tasks.pop(job_id))

    def __enter__(self) -> Self:
        """Show nothing yet: there may be no such job."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        if self._tasks:
            self._progress.stop()


class Watch:
    """Follows jobs over one channel."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any, view: View, patience: float) -> None:
        """Try again for ``patience`` seconds when nothing arrives."""
        self._stub: Any = JobServiceStub(channel)
        self._metadata = metadata
        self._view = view
        self._patience = patience

    async def follow(self, job_id: str, after: int) -> bool:
        """Show a job's events after a number until it ends; return whether it FINISHED.

        Raises:
            grpc.aio.AioRpcError: the server refuses, or knows no such job.
            CommandError: there is no such event yet, or the server was away for longer than the patience.
        """
        job = await self._find(job_id)
        if after > job.last_sequence:
            newest = f"the newest event is {job.last_sequence}, and {after} is yet to come"
            raise CommandError(f"{job_id}: {newest}", ExitCode.REFUSED)
        self._view.begin(job)
        state, seen, pauses, alive = job.state, after, Pauses(), time.monotonic()
        while True:
            least = 0.0
            try:
                async for frame in self._stub.WatchJob(
                    pb.WatchJobRequest(job_id=job_id, after_sequence=seen), metadata=self._metadata
                ):
                    alive = time.monotonic()
                    pauses.reset()
                    if frame.WhichOneof("frame") == "event":
                        state, seen = frame.event.state, frame.event.sequence
                        self._view.event(frame.event)
                if state in FINAL:
                    return bool(state == pb.JOB_STATE_FINISHED)
                cause = "the stream ended"
            except grpc.aio.AioRpcError as error:
                if not is_interruption(error):
                    raise
                cause, least = error.details() or error.code().name, told_delay(error)
            if time.monotonic() - alive > self._patience:
                raise CommandError(f"{job_id}: {cause}; gave up after event {seen}", ExitCode.UNREACHABLE)
            self._view.away(job_id, cause)
            await asyncio.sleep(pauses.next(least))

    async def _find(self, job_id: str) -> pb.Job:
        """Give a job, also by a key that asks after more of them than it may at once."""
        request, end, pauses = pb.GetJobRequest(id=job_id), time.monotonic() + self._patience, Pauses()
        while True:
            try:
                job: pb.Job = await self._stub.GetJob(request, metadata=self._metadata, timeout=_SECONDS)
            except grpc.aio.AioRpcError as error:
                least = told_delay(error)
                if not is_rate_limit(error) or time.monotonic() + least > end:
                    raise
                await asyncio.sleep(pauses.next(least))
            else:
                return job
