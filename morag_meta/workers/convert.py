"""Workers and leases between rows and messages.

A lease shows a job with its document and database, so this is the one place where a feature takes the
messages of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from morag_meta.databases.convert import database_to_proto
from morag_meta.documents.convert import document_to_proto
from morag_meta.jobs.convert import job_to_proto
from morag_meta.rpc.times import to_duration, to_timestamp
from morag_meta.workers.actions import Taken, Verdict
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb

_EXECUTIONS: Final[Mapping[str | None, jobs_pb2.JobExecution.ValueType]] = {
    None: jobs_pb2.JOB_EXECUTION_UNSPECIFIED,
    "LOCAL": jobs_pb2.JOB_EXECUTION_LOCAL,
    "REMOTE": jobs_pb2.JOB_EXECUTION_REMOTE,
}
_EXECUTION_NAMES: Final = {number: name for name, number in _EXECUTIONS.items()}


def worker_to_proto(row: Mapping[str, Any], leases: int) -> pb.Worker:
    """Give the message of a worker that holds so many leases."""
    return pb.Worker(
        id=row["id"],
        owner_id=row["owner_id"],
        name=row["name"],
        kinds=row["kinds"],
        document_types=row["document_types"],
        execution=_EXECUTIONS[row["execution"]],
        serves_everyone=row["serves_everyone"],
        leased_jobs=leases,
        create_time=to_timestamp(row["create_time"]),
        last_seen_time=to_timestamp(row["last_seen_time"]),
    )


def worker_from_proto(worker: pb.Worker) -> dict[str, Any]:
    """Give what a worker says of itself."""
    return {
        "name": worker.name,
        "kinds": list(dict.fromkeys(worker.kinds)),
        "document_types": list(dict.fromkeys(worker.document_types)),
        "execution": _EXECUTION_NAMES[worker.execution],
    }


def lease_to_proto(taken: Taken) -> pb.Lease:
    """Give the message of a lease."""
    job, document, database = taken.job, taken.document, taken.database
    return pb.Lease(
        job=job_to_proto(job),
        token=job["lease_token"],
        expire_time=to_timestamp(job["lease_expire_time"]),
        duration=to_duration(job["lease_ms"]),
        checkpoint=taken.checkpoint,
        document=None if document is None else document_to_proto(document),
        database=None if database is None else database_to_proto(database),
    )


def verdict_to_proto(verdict: Verdict) -> pb.HeartbeatVerdict.ValueType:
    """Give the message's value of a verdict."""
    return pb.HeartbeatVerdict.Value(f"HEARTBEAT_VERDICT_{verdict.value}")
