"""A job as the one sees it who works on it: the handler of a worker.

What does not live here: leasing, heartbeats, and what is reported of a handler's end.
"""

from __future__ import annotations

from morag_client.holds import Hold, JobStopped
from morag_client.reports import Reports
from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2, workers_pb2


class JobFailed(Exception):
    """Raised by a handler: the job cannot be done. The text is told to people as it stands."""


class GiveBack(Exception):
    """Raised by a handler: another worker, or this one later, is to do the job. The text says why."""


class Task:
    """One attempt at one job. Its methods may be called from any thread."""

    def __init__(self, lease: workers_pb2.Lease, hold: Hold, reports: Reports) -> None:
        self.job: jobs_pb2.Job = lease.job
        """The job as it was leased: its parameters, its ``attempt``, its document's id."""
        self.document: documents_pb2.Document | None = lease.document if lease.HasField("document") else None
        """The job's document; None where it has none."""
        self.database: databases_pb2.Database | None = lease.database if lease.HasField("database") else None
        """The document's database; None where there is none."""
        self.checkpoint: bytes = lease.checkpoint
        """What an earlier attempt saved with :meth:`save`; empty where there is none."""
        self._hold = hold
        self._reports = reports

    @property
    def cancelled(self) -> bool:
        """Whether the work is to stop; :attr:`why` says for what reason."""
        return self._hold.why is not None

    @property
    def why(self) -> type[JobStopped] | None:
        """Why the work is to stop: JobCancelled, LeaseLost or WorkerStopping; None while it is to go on."""
        return self._hold.why

    def check(self) -> None:
        """Go on, if the work is to go on.

        Raises:
            JobStopped: it is to stop; let this pass through the handler.
        """
        self._hold.check()

    def rest(self, seconds: float) -> None:
        """Wait, and no longer than the work is to go on.

        Raises:
            JobStopped: it is to stop.
        """
        self._hold.rest(seconds)

    def progress(self, percentage: float, phase: str = "", summary: str = "") -> None:
        """Say how far the job is, and return when the service knows it.

        ``percentage`` is from 0 to 100, ``phase`` what is being done in a word, ``summary`` what to tell
        people; what is empty keeps what was said last. A percentage that falls is not an error.

        Raises:
            JobStopped: the work is to stop.
        """
        self._reports.progress(int(percentage), phase, summary)

    def save(self, checkpoint: bytes) -> None:
        """Keep what the next attempt is to receive, should this one be lost; at most 32768 bytes.

        Returns when it is kept.

        Raises:
            JobStopped: the work is to stop.
        """
        self._reports.save(checkpoint)
