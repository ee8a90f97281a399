"""The reports of one lease: numbered, repeated until they are answered, and none after the lease is over.

What does not live here: the decision what to report, which is the handler's and the worker's.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any, Final

import grpc

from morag_client.holds import Hold, JobCancelled, LeaseLost
from morag_client.refusals import refusal_of
from morag_client.repeating import answered
from moragmeta.v1 import jobs_pb2, workers_pb2
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub

_TEXT: Final = 2000  # characters of an error or a reason
_OVER: Final = frozenset({"LEASE_LOST", "STALE_ATTEMPT", "JOB_ENDED", "INVALID_STATE", "RESOURCE_NOT_FOUND"})
_SHUT_OUT: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_VERDICTS: Final = {
    workers_pb2.HEARTBEAT_VERDICT_CANCEL: (JobCancelled, "the job was cancelled"),
    workers_pb2.HEARTBEAT_VERDICT_LOST: (LeaseLost, "the lease is over"),
}


class Reports:
    """What one lease reports. Any thread may; one report goes out after the other."""

    def __init__(self, channel: grpc.Channel, hold: Hold) -> None:
        self._jobs = JobServiceStub(channel)
        self._workers = WorkerServiceStub(channel)
        self._hold = hold
        self._number = 0
        self._lock = threading.Lock()

    def progress(self, percentage: int, phase: str, summary: str) -> None:
        """Say how far the job is.

        Raises:
            JobStopped: the work is to stop.
            grpc.RpcError: the service refuses what is said.
        """
        request = jobs_pb2.UpdateJobProgressRequest(percentage=percentage, phase=phase, summary=summary)
        self._report(self._jobs.UpdateJobProgress, request)

    def complete(self, result: jobs_pb2.JobResult | None) -> None:
        """Say that the job went well.

        Raises:
            JobStopped: nothing is to be reported any more.
            grpc.RpcError: the service refuses the result.
        """
        self._report(self._jobs.CompleteJob, jobs_pb2.CompleteJobRequest(result=result), last=True)

    def fail(self, error: str) -> None:
        """Say why the job failed, if only that nothing is known.

        Raises:
            JobStopped: nothing is to be reported any more.
        """
        request = jobs_pb2.FailJobRequest(error=sendable(error) or "no reason was given")
        self._report(self._jobs.FailJob, request, last=True)

    def release(self, reason: str) -> None:
        """Give the job back.

        Raises:
            JobStopped: it is no longer there to be given.
        """
        request = workers_pb2.ReleaseJobRequest(
            job_id=self._hold.job.id,
            lease_token=self._hold.token,
            reason=sendable(reason),
            request_id=str(uuid.uuid4()),
        )
        self._ask(self._workers.ReleaseJob, request, last=True)
        self._hold.stop(LeaseLost, "the job was given back")

    def save(self, checkpoint: bytes) -> None:
        """Keep what the next attempt is to receive.

        Raises:
            JobStopped: the work is to stop.
            grpc.RpcError: the checkpoint is too long.
        """
        request = workers_pb2.HeartbeatJobRequest(
            job_id=self._hold.job.id, lease_token=self._hold.token, checkpoint=checkpoint
        )
        heed(self._hold, self._ask(self._workers.HeartbeatJob, request, last=False))
        self._hold.check()

    def _report(self, method: Callable[[Any], Any], request: Any, *, last: bool = False) -> None:
        with self._lock:
            self._number += 1
            request.id = self._hold.job.id
            request.attempt = self._hold.job.attempt
            request.report_number = self._number
            request.lease_token = self._hold.token
            self._ask(method, request, last=last)
        self._hold.renew()

    def _ask(self, method: Callable[[Any], Any], request: Any, *, last: bool) -> Any:
        (self._hold.check_for_end if last else self._hold.check)()
        try:
            return answered(method, request, self._hold.rest_for_end if last else self._hold.rest)
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            if refusal.reason in _OVER or refusal.code in _SHUT_OUT:
                cancelled = refusal.reason == "JOB_ENDED" and "CANCELLED" in refusal.metadata.get("state", "")
                self._hold.stop(JobCancelled if cancelled else LeaseLost, str(refusal))
                self._hold.check_for_end()
            raise


def heed(hold: Hold, response: workers_pb2.HeartbeatJobResponse) -> None:
    """Do what the answer to a heartbeat says."""
    if response.verdict == workers_pb2.HEARTBEAT_VERDICT_GO_ON:
        hold.renew()
    elif response.verdict in _VERDICTS:
        hold.stop(*_VERDICTS[response.verdict])


def sendable(text: str) -> str:
    """Return what the service takes of a text that may come from anywhere, such as an exception."""
    clean = text.encode("utf-8", "replace").decode().replace("\0", "")
    return clean[:_TEXT]
