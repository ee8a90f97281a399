"""A worker: takes jobs one lease after the other and runs a handler on each, in threads.

Threads, because handlers mostly read files, call models and wait for databases with blocking libraries;
gRPC's own work runs outside of Python's lock. A handler that computes in pure Python for long gains
nothing from ``concurrency``: run more processes instead.

What does not live here: what a handler does (:mod:`morag_client.task`), heartbeats
(:mod:`morag_client.heart`), and hearing of cancellations (:mod:`morag_client.own_jobs`).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, Final

import grpc

from morag_client.heart import Heart
from morag_client.holds import Hold, JobStopped, LeaseLost, WorkerStopping
from morag_client.own_jobs import OwnJobs
from morag_client.refusals import refusal_of
from morag_client.repeating import answered
from morag_client.reports import Reports
from morag_client.task import GiveBack, JobFailed, Task
from moragmeta.v1 import jobs_pb2, workers_pb2
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub

_LOG: Final = logging.getLogger("morag_client")
_SLICE: Final = 0.2  # seconds between two looks at whether to stop
_WAIT: Final = 20  # seconds that the service waits for a job before it answers without
_ANSWER_SECONDS: Final = _WAIT + 15.0
_RECLAIM_SECONDS: Final = 1.5
_RECLAIM_TRIES: Final = 3  # of a key that may not call so soon
_UNWIND_SECONDS: Final = 5.0  # for handlers to notice that they are to stop
_SERVICES_FAULT: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})

Handler = Callable[[Task], jobs_pb2.JobResult | None]


class Worker:
    """Works on jobs until it is stopped.

    The handler is called with a :class:`Task`, in a thread of its own, for ``concurrency`` jobs at once.
    What it returns completes the job; what it raises fails it, but for :class:`GiveBack`, which gives the
    job back, and :class:`JobStopped`, which the task's methods raise when the work is to stop and which
    it lets pass. ``kinds`` and ``document_types`` say which jobs to take, ``execution`` whether local
    or remote ones; empty and unspecified take all. ``lease_duration`` is in seconds, 1 to 3600; None leaves
    it to the service. ``grace`` is for how many seconds :meth:`stop` lets handlers finish.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of its own, and has a default
        self,
        channel: grpc.Channel,
        handler: Handler,
        *,
        name: str = "",
        kinds: Iterable[str] = (),
        document_types: Iterable[str] = (),
        execution: jobs_pb2.JobExecution.ValueType = jobs_pb2.JOB_EXECUTION_UNSPECIFIED,
        concurrency: int = 1,
        lease_duration: float | None = None,
        grace: float = 10.0,
    ) -> None:
        self._channel = channel
        self._handler = handler
        self._worker = workers_pb2.Worker(
            name=name or f"{socket.gethostname()}-{os.getpid()}",
            kinds=kinds,
            document_types=document_types,
            execution=execution,
        )
        self._concurrency = concurrency
        self._lease_duration = lease_duration
        self._grace = grace
        self._stub = WorkerServiceStub(channel)
        self._own_jobs = OwnJobs(channel)
        self._heart = Heart(channel, self._own_jobs)
        self._stopping = False

    @property
    def id(self) -> str:
        """The worker's id; empty until it is registered."""
        return self._worker.id

    def stop(self) -> None:
        """Let :meth:`run` end: take no more jobs, finish those in hand or give them back.

        Does not wait. May be called from any thread, and from a signal's handler.
        """
        self._stopping = True  # no more than this, for a signal may come anywhere

    def run(self) -> None:
        """Work until :meth:`stop` is called. Interruptions of the service are waited out.

        Raises:
            grpc.RpcError: the service refuses this worker, for instance because its key was revoked.
        """
        try:
            self._register()
            self._heart.start()
            while not self._stopping:
                if self._own_jobs.wait(self._concurrency - 1, _SLICE):
                    self._take_jobs()
        except _Stopped:
            pass
        finally:
            self._stopping = True
            self._wind_up()

    def _register(self) -> None:
        """Become known, and hear of what happens to the jobs of the new worker."""
        request = workers_pb2.RegisterWorkerRequest(worker=self._worker, request_id=str(uuid.uuid4()))
        registered = answered(self._stub.RegisterWorker, request, self._rest)
        self._worker.id = registered.id
        self._own_jobs.follow(registered)
        _LOG.info("worker %s is registered as %s", self._worker.name, self._worker.id)

    def _take_jobs(self) -> None:
        """Lease as many jobs as there are hands free, and begin them."""
        request = workers_pb2.LeaseJobsRequest(
            worker_id=self._worker.id,
            max_jobs=self._concurrency - len(self._own_jobs),
            # With one id, a repeat after a lost answer gives the leases of that answer.
            request_id=str(uuid.uuid4()),
        )
        request.wait.FromTimedelta(timedelta(seconds=_WAIT))
        if self._lease_duration is not None:
            request.lease_duration.FromTimedelta(timedelta(seconds=self._lease_duration))
        try:
            response = answered(self._poll, request, self._rest)
        except _Stopped:  # an earlier try may have leased, and its answer been lost
            response = self._reclaim(request)
        except grpc.RpcError as error:
            if refusal_of(error).code is not grpc.StatusCode.NOT_FOUND:
                raise
            self._register()  # not heard of for a day, it was forgotten
            return
        for lease in response.leases:
            self._begin(lease)

    def _poll(self, request: workers_pb2.LeaseJobsRequest) -> workers_pb2.LeaseJobsResponse:
        """Ask for leases, and go on looking whether to stop."""
        call: Any = self._stub.LeaseJobs.future(request, timeout=_ANSWER_SECONDS)
        while not self._stopping:
            try:
                response: workers_pb2.LeaseJobsResponse = call.result(_SLICE)
                return response
            except grpc.FutureTimeoutError:
                continue
        call.cancel()
        return self._reclaim(request)

    def _reclaim(self, request: workers_pb2.LeaseJobsRequest) -> workers_pb2.LeaseJobsResponse:
        """Return what a call that was broken off had leased already, so that it can be given back."""
        for _ in range(_RECLAIM_TRIES):
            try:
                return self._stub.LeaseJobs(request, timeout=_RECLAIM_SECONDS, wait_for_ready=True)
            except grpc.RpcError as error:
                refusal = refusal_of(error)
                if refusal.reason != "RATE_LIMITED" or refusal.retry_after > _RECLAIM_SECONDS:
                    break
                time.sleep(refusal.retry_after)
        return workers_pb2.LeaseJobsResponse()

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopping:
                raise _Stopped
            time.sleep(min(left, _SLICE))

    def _begin(self, lease: workers_pb2.Lease) -> None:
        hold = Hold(lease)
        self._own_jobs.add(hold)
        name = f"job {lease.job.id}"
        threading.Thread(target=self._work, args=(lease, hold), name=name, daemon=True).start()

    def _work(self, lease: workers_pb2.Lease, hold: Hold) -> None:
        """Run the handler on one job, and report how it ended."""
        reports = Reports(self._channel, hold)
        try:
            if self._stopping:
                hold.stop(WorkerStopping, "the worker stops")
            hold.check()
            self._handle(Task(lease, hold, reports), reports)
        except JobStopped as stopped:
            self._leave(hold, reports, str(stopped))
        except GiveBack as given:
            hold.stop(WorkerStopping, str(given))
            self._leave(hold, reports, str(given))
        except Exception:  # noqa: BLE001 - whatever it is, it ends with this job
            _LOG.exception("job %s could not be reported on; its lease will expire", hold.job.id)
        finally:
            self._own_jobs.remove(hold)

    def _handle(self, task: Task, reports: Reports) -> None:
        try:
            result = self._handler(task)
        except (JobStopped, GiveBack):
            raise
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
            if task.why is not None:  # most likely this is a consequence
                task.check()
            said = str(error) if isinstance(error, JobFailed) else _describe(error)
            _LOG.warning("job %s failed: %s", task.job.id, said, exc_info=not isinstance(error, JobFailed))
            reports.fail(said)
            return
        try:
            reports.complete(result)
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            if refusal.code in _SERVICES_FAULT:  # work that is done is not failed for it
                raise
            reports.fail(f"the result was refused: {refusal}")
        except (TypeError, ValueError) as error:  # it was no JobResult
            reports.fail(f"the handler returned no result: {_describe(error)}")

    def _leave(self, hold: Hold, reports: Reports, said: str) -> None:
        """Stop the work on a job that is not done: give it back where it is still this worker's."""
        if hold.why is not WorkerStopping:
            _LOG.info("job %s is left: %s", hold.job.id, said)
            return
        try:
            reports.release(said)
        except (JobStopped, grpc.RpcError) as error:
            _LOG.warning("job %s could not be given back: %s", hold.job.id, error)

    def _wind_up(self) -> None:
        if not self._own_jobs.wait(0, self._grace):
            for hold in self._own_jobs.all():
                hold.stop(WorkerStopping, "the worker stops")
            if not self._own_jobs.wait(0, _UNWIND_SECONDS):
                self._give_up()
        self._own_jobs.close()
        self._heart.stop()

    def _give_up(self) -> None:
        """Give the jobs back whose handlers do not look up; what they report later is not sent."""
        for hold in self._own_jobs.all():
            _LOG.warning("job %s goes on although its worker stops; it is given back", hold.job.id)
            self._leave(hold, Reports(self._channel, hold), "the worker stops")
            hold.stop(LeaseLost, "the job was given back")


class _Stopped(Exception):
    """The worker was stopped while it waited for the service."""


def _describe(error: BaseException) -> str:
    said = f"{type(error).__name__}: {error}"
    return said.rstrip(": ")


@contextmanager
def stop_on_signals(
    *workers: Worker, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
) -> Iterator[None]:
    """Stop workers at the first of these signals; a second one does what it did before.

    Only the main thread may do this.
    """
    before: dict[signal.Signals, Any] = {}

    def handle(_number: int, _frame: FrameType | None) -> None:
        for one, handler in before.items():
            signal.signal(one, handler)
        for worker in workers:
            worker.stop()

    for one in signals:
        before[one] = signal.signal(one, handle)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
