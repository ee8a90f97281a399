"""The Python client of MoRAG Meta: a channel, streams that resume, and workers.

The messages and stubs of the service are in ``moragmeta.v1``, which comes with this distribution; all
that is here builds on them and needs no more than ``grpcio`` and ``protobuf``.
"""

from __future__ import annotations

from morag_client.channel import SERVICE_CONFIG, connect, tls_credentials
from morag_client.holds import JobCancelled, JobStopped, LeaseLost, WorkerStopping
from morag_client.refusals import Refusal, refusal_of
from morag_client.task import GiveBack, JobFailed, Task
from morag_client.watching import JobsWatch, JobWatch, watch_job, watch_jobs
from morag_client.worker import Worker, stop_on_signals

__all__ = [
    "SERVICE_CONFIG",
    "GiveBack",
    "JobCancelled",
    "JobFailed",
    "JobStopped",
    "JobWatch",
    "JobsWatch",
    "LeaseLost",
    "Refusal",
    "Task",
    "Worker",
    "WorkerStopping",
    "connect",
    "refusal_of",
    "stop_on_signals",
    "tls_credentials",
    "watch_job",
    "watch_jobs",
]
