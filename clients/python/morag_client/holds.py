"""A lease in the hands of this process: how long it lives for certain, and why it is over.

What does not live here: any call to the service.
"""

from __future__ import annotations

import threading
import time

from moragmeta.v1 import jobs_pb2, workers_pb2


class JobStopped(Exception):
    """The work on a job is to stop, and nothing more is to be reported of it."""


class JobCancelled(JobStopped):
    """The job was called off."""


class LeaseLost(JobStopped):
    """The lease is over; the job is another's, or has ended, or was deleted."""


class WorkerStopping(JobStopped):
    """The worker stops, and gives the job back for another to take."""


class Hold:
    """What this process knows of one lease. Any thread may ask and tell.

    The expiry time that the service tells is by the database's clock, with which no clock here is
    compared. Counted is from the moment of each answer instead: one duration later the lease is over
    for certain, whatever the database's clock says.
    """

    def __init__(self, lease: workers_pb2.Lease) -> None:
        self.job: jobs_pb2.Job = lease.job
        self.token = lease.token
        self.seconds = lease.duration.ToTimedelta().total_seconds()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._why: type[JobStopped] | None = None
        self._said = ""
        self._renewed = time.monotonic()

    @property
    def beat_time(self) -> float:
        """When to renew the lease, by the monotonic clock: after a third of its duration."""
        return self._renewed + self.seconds / 3

    @property
    def why(self) -> type[JobStopped] | None:
        """Why the work is to stop; None while it is to go on."""
        if time.monotonic() >= self._renewed + self.seconds:
            self.stop(LeaseLost, "nobody renewed the lease in time")
        return self._why

    def renew(self) -> None:
        """Note that the service renewed the lease."""
        self._renewed = time.monotonic()

    def stop(self, why: type[JobStopped], said: str) -> None:
        """Let the work stop; what is over for good is not overruled by a worker that stops."""
        with self._lock:
            if self._why is None or self._why is WorkerStopping:
                self._why, self._said = why, said
        self._over.set()

    def check(self) -> None:
        """Go on, if the work is to go on.

        Raises:
            JobStopped: it is to stop.
        """
        if (why := self.why) is not None:
            raise why(self._said)

    def rest(self, seconds: float) -> None:
        """Wait, and no longer than the work is to go on.

        Raises:
            JobStopped: it is to stop.
        """
        end = time.monotonic() + seconds
        self.check()
        while (now := time.monotonic()) < end:
            self._over.wait(max(0.001, min(end, self._renewed + self.seconds) - now))
            self.check()

    def check_for_end(self) -> None:
        """Go on to report the end of the work, even where the worker stops.

        Raises:
            JobStopped: nothing is to be reported any more.
        """
        if self.why is not WorkerStopping:
            self.check()

    def rest_for_end(self, seconds: float) -> None:
        """Wait before the end of the work is reported again, and no longer than the lease lives.

        Raises:
            JobStopped: nothing is to be reported any more.
        """
        end = time.monotonic() + seconds
        self.check_for_end()
        while (now := time.monotonic()) < end:
            time.sleep(max(0.001, min(end, self._renewed + self.seconds) - now))
            self.check_for_end()
