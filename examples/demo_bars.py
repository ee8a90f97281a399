"""What a person sees of many jobs: bars on a terminal, a line for each ended job elsewhere.

What does not live here: where the jobs and their events come from (``demo.py``).
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from moragmeta.v1 import jobs_pb2

FINAL_STATES: Final = (
    jobs_pb2.JOB_STATE_FINISHED,
    jobs_pb2.JOB_STATE_FAILED,
    jobs_pb2.JOB_STATE_CANCELLED,
)


class Bars:
    """One bar for all jobs, and one for each that is being worked on."""

    def __init__(self, console: Console, jobs: int) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        note = TextColumn("{task.fields[note]}", markup=False)
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(*columns, note, console=console, disable=not self._live)
        self._all = self._progress.add_task("all files", total=jobs, note="")
        self._names: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._ended: set[str] = set()

    def begin(self, job: jobs_pb2.Job) -> None:
        """Show a job as the stream begins."""
        self._names[job.id] = job.document_name
        self._place(job.id, job.state, job.percentage, job.error or job.summary)

    def show(self, event: jobs_pb2.JobEvent) -> None:
        """Show a change of a job."""
        self._place(event.job_id, event.state, event.percentage, event.error or event.summary)

    def say(self, *lines: str) -> None:
        """Print lines below the bars."""
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave what is shown as it is."""
        self._progress.stop()

    def _place(self, job_id: str, state: jobs_pb2.JobState.ValueType, percentage: int, note: str) -> None:
        name = self._names.get(job_id, job_id)
        if state == jobs_pb2.JOB_STATE_PROCESSING:
            if job_id not in self._tasks:
                self._tasks[job_id] = self._progress.add_task(name, total=100, note="")
            self._progress.update(self._tasks[job_id], completed=percentage, note=note)
        elif job_id in self._tasks:
            self._progress.remove_task(self._tasks.pop(job_id))
        if state in FINAL_STATES and job_id not in self._ended:
            self._ended.add(job_id)
            self._progress.update(self._all, completed=len(self._ended))
            if not self._live:
                word = jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_")
                self.say(f"{word:10}{name}: {note}".rstrip(": "))
