"""Workers as tests have them: those of one caller, and what they do, in the shortest form."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration

from morag_meta.ids import new_id
from moragmeta.v1 import api_keys_pb2, jobs_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.service import Channel, Service, User


def seconds(number: float) -> Duration:
    """Give a span of time."""
    return Duration(seconds=int(number), nanos=round(number % 1 * 1e9))


def shown(lease: pb.Lease) -> dict[str, Any]:
    """Give what the first report of a lease says of it."""
    return {
        "id": lease.job.id,
        "attempt": lease.job.attempt,
        "report_number": 1,
        "lease_token": lease.token,
    }


class Fleet:
    """The workers behind one channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stub = channel.workers

    def register(self, name: str = "worker", **fields: Any) -> pb.Worker:
        """Register a worker."""
        request = pb.RegisterWorkerRequest(worker=pb.Worker(name=name, **fields))
        registered: pb.Worker = self.stub.RegisterWorker(request)
        return registered

    def lease(
        self, worker_id: str, most: int = 1, *, wait: float | None = None, **fields: Any
    ) -> list[pb.Lease]:
        """Lease jobs."""
        if wait is not None:
            fields["wait"] = seconds(wait)
        answer = self.stub.LeaseJobs(pb.LeaseJobsRequest(worker_id=worker_id, max_jobs=most, **fields))
        return list(answer.leases)

    def beat(self, lease: pb.Lease, **fields: Any) -> pb.HeartbeatJobResponse:
        """Send a heartbeat."""
        request = pb.HeartbeatJobRequest(job_id=lease.job.id, **{"lease_token": lease.token} | fields)
        answer: pb.HeartbeatJobResponse = self.stub.HeartbeatJob(request)
        return answer

    def release(self, lease: pb.Lease, **fields: Any) -> jobs_pb2.Job:
        """Give a job back."""
        request = pb.ReleaseJobRequest(job_id=lease.job.id, **{"lease_token": lease.token} | fields)
        released: jobs_pb2.Job = self.stub.ReleaseJob(request)
        return released

    def complete(self, lease: pb.Lease, **fields: Any) -> jobs_pb2.CompleteJobResponse:
        """Report success."""
        request = jobs_pb2.CompleteJobRequest(**shown(lease), **fields)
        done: jobs_pb2.CompleteJobResponse = self.channel.jobs.CompleteJob(request)
        return done


def key_with(service: Service, granter: User, *scopes: str, owner_id: str = "") -> Channel:
    """Give the channel of a new key with these scopes."""
    made = granter.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(
            api_key=api_keys_pb2.ApiKey(name=new_id(), scopes=scopes), owner_id=owner_id
        )
    )
    return service.channel(api_key=made.secret)


def ids(leases: list[pb.Lease]) -> list[str]:
    """Give the jobs of leases."""
    return [lease.job.id for lease in leases]


__all__ = ["Fleet", "Work", "ids", "key_with", "seconds"]
