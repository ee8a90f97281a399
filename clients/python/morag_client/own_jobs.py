"""The leases that one worker holds, and the stream by which it hears at once that one of them is over.

What does not live here: heartbeats, by which it hears of it in any case (:mod:`morag_client.heart`).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Final

import grpc

from morag_client.holds import Hold, JobCancelled, JobStopped, LeaseLost
from morag_client.refusals import refusal_of
from morag_client.watching import JobsWatch, watch_jobs
from moragmeta.v1 import jobs_pb2, workers_pb2

_LOG: Final = logging.getLogger("morag_client")
_EARLY: Final = 1000  # how many ends are remembered of leases whose own answer is still on its way
_REFUSED_SECONDS: Final = 30.0
# So that the snapshot after a long absence does not hold all that the worker ever did.
_STATES: Final = (jobs_pb2.JOB_STATE_PROCESSING, jobs_pb2.JOB_STATE_CANCELLED)
# The worker itself brought these about.
_OWN_ENDS: Final = frozenset({jobs_pb2.JOB_FAILURE_UNSPECIFIED, jobs_pb2.JOB_FAILURE_REPORTED})


class OwnJobs:
    """The holds of a worker. Any thread may ask and tell."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._changed = threading.Condition()
        self._holds: list[Hold] = []
        self._early: OrderedDict[tuple[str, int], tuple[type[JobStopped], str]] = OrderedDict()
        self._watch: JobsWatch | None = None
        self._closed = threading.Event()

    def __len__(self) -> int:
        return len(self._holds)

    def all(self) -> list[Hold]:
        """Return the holds of this moment."""
        with self._changed:
            return list(self._holds)

    def add(self, hold: Hold) -> None:
        """Take a lease in; what was heard of its end already is told to it."""
        with self._changed:
            self._holds.append(hold)
            ended = self._early.pop((hold.job.id, hold.job.attempt), None)
        if ended is not None:
            hold.stop(*ended)

    def remove(self, hold: Hold) -> None:
        """Let a lease go."""
        with self._changed:
            self._holds.remove(hold)
            self._changed.notify_all()

    def wait(self, most: int, seconds: float) -> bool:
        """Wait until no more than ``most`` leases are held, for some seconds at most; return whether so."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._holds) <= most, seconds)

    def follow(self, worker: workers_pb2.Worker) -> None:
        """Follow the stream of a worker's jobs from now on, in a thread, instead of another worker's."""
        owner_id = "-" if worker.serves_everyone else ""
        wanted = jobs_pb2.JobFilter(owner_id=owner_id, worker_ids=[worker.id], states=_STATES)
        watch = watch_jobs(self._channel, wanted, include_snapshot=True, restart=True)
        before, self._watch = self._watch, watch
        if before is not None:
            before.close()
        threading.Thread(target=self._listen, args=(watch, worker.id), name="own jobs", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        if self._watch is not None:
            self._watch.close()

    def _listen(self, watch: JobsWatch, worker_id: str) -> None:
        while True:
            try:
                for frame in watch:
                    self._hear(frame, worker_id)
                return
            except grpc.RpcError as error:
                _LOG.warning("cancellations come with heartbeats alone: %s", refusal_of(error))
            except ValueError:  # the channel was closed before the worker
                return
            if self._closed.wait(_REFUSED_SECONDS):
                return

    def _hear(self, frame: jobs_pb2.JobFrame, worker_id: str) -> None:
        """Tell the lease that a frame is about that it is over, if that is so."""
        kind = frame.WhichOneof("frame")
        if kind == "event":
            ended = _end_of(frame.event, worker_id)
            self._tell(frame.event.job_id, frame.event.attempt, ended)
        elif kind == "snapshot":
            ended = _end_of(frame.snapshot, worker_id)
            self._tell(frame.snapshot.id, frame.snapshot.attempt, ended)

    def _tell(self, job_id: str, attempt: int, ended: tuple[type[JobStopped], str] | None) -> None:
        with self._changed:
            holds = [hold for hold in self._holds if hold.job.id == job_id]
            if ended is not None and not any(hold.job.attempt == attempt for hold in holds):
                self._early[job_id, attempt] = ended
                while len(self._early) > _EARLY:
                    self._early.popitem(last=False)
        for hold in holds:
            if hold.job.attempt < attempt:
                hold.stop(LeaseLost, f"attempt {attempt} has begun")
            elif hold.job.attempt == attempt and ended is not None:
                hold.stop(*ended)


def _end_of(now: jobs_pb2.Job | jobs_pb2.JobEvent, worker_id: str) -> tuple[type[JobStopped], str] | None:
    """Return how the attempt that a job or an event shows is over for its worker; None where it is not."""
    if now.state == jobs_pb2.JOB_STATE_CANCELLED:
        return JobCancelled, now.summary or "the job was cancelled"
    if now.state == jobs_pb2.JOB_STATE_PROCESSING:
        return None if now.worker_id == worker_id else (LeaseLost, "the job is another worker's")
    if now.state in (jobs_pb2.JOB_STATE_FINISHED, jobs_pb2.JOB_STATE_FAILED) and now.failure in _OWN_ENDS:
        return None
    return LeaseLost, now.error or "the lease is over"
