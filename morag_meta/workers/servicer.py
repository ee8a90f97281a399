"""WorkerService: what each call does.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

from typing import Any

from morag_meta.errors import invalid
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import composes, reads, writes
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb


class WorkerServicer:
    """The workers; see ``protos/moragmeta/v1/workers.proto``."""

    SERVICE = "moragmeta.v1.WorkerService"

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Worker:
        raise invalid("worker", "PLACEHOLDER")

    @writes(replay=_replay)
    def RegisterWorker(self, uow: UnitOfWork, request: pb.RegisterWorkerRequest, call: Call) -> pb.Worker:
        raise invalid("worker", "PLACEHOLDER")

    @composes
    async def LeaseJobs(self, request: pb.LeaseJobsRequest, call: Call) -> pb.LeaseJobsResponse:
        raise invalid("worker", "PLACEHOLDER")

    @writes()
    def HeartbeatJob(
        self, uow: UnitOfWork, request: pb.HeartbeatJobRequest, call: Call
    ) -> pb.HeartbeatJobResponse:
        raise invalid("worker", "PLACEHOLDER")

    @writes(replay=_replay)
    def ReleaseJob(self, uow: UnitOfWork, request: pb.ReleaseJobRequest, call: Call) -> jobs_pb2.Job:
        raise invalid("worker", "PLACEHOLDER")

    @reads()
    def GetWorker(self, uow: UnitOfWork, request: pb.GetWorkerRequest, call: Call) -> pb.Worker:
        raise invalid("worker", "PLACEHOLDER")

    @reads()
    def ListWorkers(
        self, uow: UnitOfWork, request: pb.ListWorkersRequest, call: Call
    ) -> pb.ListWorkersResponse:
        raise invalid("worker", "PLACEHOLDER")
