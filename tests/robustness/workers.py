"""Clients that lease jobs and work on them, well or badly: some die in silence, some come back too late."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from moragmeta.v1 import jobs_pb2, workers_pb2
from tests.robustness.callers import Caller, Refused
from tests.robustness.recorder import Recorder, seconds

LEASE = 1.0
"""Seconds that leases live."""


class Worker:
    """One worker, which works on one job after the other."""

    def __init__(self, name: str, targets: Sequence[str], key: str, recorder: Recorder, seed: int) -> None:
        """Prepare."""
        self.known = ""
        """The id under which it is registered already, if it is."""
        self.caller = Caller(name, targets, key, recorder, f"{seed}/{name}")

    def work(self) -> None:
        """Lease and work until told to stop."""
        while not self.caller.stop.is_set():
            try:
                worker_id = self.known or self._register()
                while not self.caller.stop.is_set():
                    for lease in self._lease(worker_id):
                        self._handle(lease)
            except Refused:
                time.sleep(0.1)

    def _register(self) -> str:
        chance = self.caller.chance
        execution = chance.choice((jobs_pb2.JOB_EXECUTION_UNSPECIFIED, jobs_pb2.JOB_EXECUTION_LOCAL))
        worker = workers_pb2.Worker(name=self.caller.name, execution=execution)
        request = workers_pb2.RegisterWorkerRequest(worker=worker, request_id=self.caller.new_id())
        made: str = self.caller.call("RegisterWorker", request).id
        return made

    def _lease(self, worker_id: str) -> list[Any]:
        request = workers_pb2.LeaseJobsRequest(
            worker_id=worker_id,
            max_jobs=self.caller.chance.randint(1, 3),
            wait=Duration(seconds=1),
            lease_duration=Duration(seconds=int(LEASE)),
            request_id=self.caller.new_id(),
        )
        answer = self.caller.call("LeaseJobs", request, {"worker_id": worker_id}, _leases)
        return list(answer.leases)

    def _handle(self, lease: Any) -> None:
        """Work on a job in one of several ways; what the service refuses ends it."""
        chance = self.caller.chance
        fate = chance.random()
        try:
            for number in range(1, chance.randint(2, 6)):
                if chance.random() < 0.1:
                    time.sleep(chance.uniform(0, 0.05))
                if fate < 0.03:
                    return  # it died, and nobody says so
                if fate < 0.05 and number == 2:
                    time.sleep(chance.uniform(0.5, 1.6) * LEASE)  # it froze, and does not know
                if chance.random() < 0.2 and not self._heartbeat(lease):
                    return
                self._report(lease, number)
            self.end(lease, 10, fate)
        except Refused:
            return

    def _note(self, lease: Any, **more: Any) -> dict[str, Any]:
        return {"job_id": lease.job.id, "attempt": lease.job.attempt, "token": lease.token, **more}

    def _heartbeat(self, lease: Any) -> bool:
        checkpoint = f"{lease.job.id}/{lease.job.attempt}".encode()
        request = workers_pb2.HeartbeatJobRequest(
            job_id=lease.job.id, lease_token=lease.token, checkpoint=checkpoint
        )
        answer = self.caller.call("HeartbeatJob", request, self._note(lease), _verdict)
        return bool(answer.verdict == workers_pb2.HEARTBEAT_VERDICT_GO_ON)

    def _report(self, lease: Any, number: int) -> None:
        percentage = number * 15
        request = jobs_pb2.UpdateJobProgressRequest(
            id=lease.job.id,
            attempt=lease.job.attempt,
            report_number=number,
            percentage=percentage,
            phase=f"step {number}",
            lease_token=lease.token,
        )
        self.caller.call("UpdateJobProgress", request, self._note(lease, percentage=percentage), _outcome)

    def end(self, lease: Any, number: int, fate: float) -> None:
        """Give a job back, or report its failure or success, as ``fate`` between 0 and 1 has it."""
        if fate > 0.95:
            request: Any = workers_pb2.ReleaseJobRequest(
                job_id=lease.job.id, lease_token=lease.token, request_id=self.caller.new_id()
            )
            self.caller.note("ReleaseJob", self._note(lease))  # who is killed amidst it writes nothing after
            self.caller.call("ReleaseJob", request, self._note(lease), lambda job: {"job_id": job.id})
            return
        named: dict[str, Any] = {
            "id": lease.job.id,
            "attempt": lease.job.attempt,
            "report_number": number,
            "lease_token": lease.token,
        }
        if fate > 0.87:
            failed = jobs_pb2.FailJobRequest(
                **named, error="it did not work", request_id=self.caller.new_id()
            )
            self.caller.call("FailJob", failed, self._note(lease), _outcome)
        else:
            result = jobs_pb2.JobResult(chunks=3, quality=0.5)
            done = jobs_pb2.CompleteJobRequest(**named, result=result, request_id=self.caller.new_id())
            self.caller.call("CompleteJob", done, self._note(lease), _outcome)


def _leases(answer: Any) -> dict[str, Any]:
    return {
        "leases": [
            {
                "job_id": lease.job.id,
                "attempt": lease.job.attempt,
                "token": lease.token,
                "expire_time": seconds(lease.expire_time),
                "seconds": lease.duration.ToMilliseconds() / 1000,
                "checkpoint": lease.checkpoint.decode(),
            }
            for lease in answer.leases
        ]
    }


def _verdict(answer: Any) -> dict[str, Any]:
    name = workers_pb2.HeartbeatVerdict.Name(answer.verdict).removeprefix("HEARTBEAT_VERDICT_")
    return {"verdict": name, "expire_time": seconds(answer.expire_time)}


def _outcome(answer: Any) -> dict[str, Any]:
    name = jobs_pb2.ReportOutcome.Name(answer.outcome).removeprefix("REPORT_OUTCOME_")
    return {"job_id": answer.job.id, "outcome": name}
