"""A process that stops amid a write: the job that it holds is free again, and the write is done at last."""

from __future__ import annotations

import os
import signal
import threading
import time

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.db.schema import job_events, jobs, users
from morag_meta.errors import Collision
from morag_meta.jobs.actions import create_job
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.backends.databases import chosen_kinds
from tests.jobs.barrier import barrier, stop, who_stands
from tests.jobs.written import Shelf
from tests.processes import ServerProcess

pytestmark = pytest.mark.parametrize(  # SQLite has one writer, who holds the file
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)


def _cancel_by(server: ServerProcess, key: str, job_id: str, said: list[object]) -> threading.Thread:
    """Have a server cancel a job, in a thread."""

    def cancel() -> None:
        with grpc.insecure_channel(server.target) as channel:
            stub = jobs_pb2_grpc.JobServiceStub(channel)
            request = pb.CancelJobRequest(id=job_id)
            try:
                said.append(stub.CancelJob(request, metadata=(("x-api-key", key),), timeout=60).state)
            except grpc.RpcError as error:
                said.append(error.code())

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


def _is_free(shelf: Shelf, job_id: str) -> bool:
    """Whether a job is locked within the time that one statement waits for that."""
    try:
        shelf.do(lambda uow: uow.jobs.lock("-", job_id))
    except Collision:
        return False
    return True


def test_a_process_that_is_stopped_amid_a_write_loses_the_job(
    server: tuple[ServerProcess, str], shelf: Shelf
) -> None:
    """Stopped when it has locked a job, the job is free in some seconds; going on, it cancels it, once."""
    process, key = server
    (owner,) = shelf.column(sa.select(users.c.id))
    job_id = shelf.do(lambda uow: create_job(uow, owner, kind="X")["id"])
    said: list[object] = []
    with barrier(shelf.database, sa.select(jobs.c.id).where(jobs.c.id == job_id)):
        thread = _cancel_by(process, key, job_id, said)
        assert who_stands(shelf.database, [process]) is process
        stop(process, signal.SIGSTOP)
    began = time.monotonic()
    while _is_free(shelf, job_id):  # its lock may come a moment after this one
        assert time.monotonic() - began < 5
    while not _is_free(shelf, job_id):
        assert time.monotonic() - began < 20
    assert said == []

    os.kill(process.process.pid, signal.SIGCONT)
    thread.join(60)
    assert said == [pb.JOB_STATE_CANCELLED]
    told = sa.select(job_events.c.state).where(job_events.c.job_id == job_id).order_by(job_events.c.number)
    assert shelf.column(told) == ["PENDING", "CANCELLED"]
