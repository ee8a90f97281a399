"""A server whose clock is wrong: leases and deadlines are the database's, and do not move with it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from morag_meta.db.database import Database
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.backends.databases import chosen_kinds
from tests.jobs.later import events_of
from tests.processes import ServerProcess, prepare

_CLOCKS = Path(__file__).parent.parent / "robustness" / "clocks"
_HOUR = 3600


class Caller:
    """A user's calls of one server."""

    def __init__(self, server: ServerProcess, key: str) -> None:
        self._stub = jobs_pb2_grpc.JobServiceStub(grpc.insecure_channel(server.target))
        self._key = (("x-api-key", key),)

    def __call__(self, method: str, request: Any) -> Any:
        """Call a method.

        The deadline is beyond the hour: gRPC's own clock is not shifted with that of the process, which
        would take a shorter one for passed.
        """
        return getattr(self._stub, method)(request, timeout=_HOUR + 20, metadata=self._key)


@pytest.fixture
def key(database_url: str) -> str:
    """Give the API key of a user in a fresh database."""
    return prepare(database_url)


@pytest.fixture(params=[-_HOUR, _HOUR], ids=["an hour late", "an hour early"])
def servers(
    request: pytest.FixtureRequest, database_url: str, key: str, tmp_path: Path
) -> Iterator[list[ServerProcess]]:
    """Give a server whose clock is an hour off, and one that is right, of one database."""
    del key  # made first, so that no server makes an admin of its own
    started = [ServerProcess(database_url, tmp_path / f"{number}.log") for number in range(2)]
    started[0].environment |= {"PYTHONPATH": str(_CLOCKS), "CLOCK_OFFSET": str(request.param)}
    for server in started:
        server.start()
    yield started
    for server in started:
        server.close()


@pytest.mark.parametrize(  # SQLite's clock is that of each process
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
def test_a_process_with_a_wrong_clock_moves_no_lease_and_no_deadline(
    servers: list[ServerProcess], key: str, database_url: str
) -> None:
    """What a server an hour off makes, leases and reaps has the database's times, as has what others make."""
    callers = [Caller(server, key) for server in servers]
    began = time.time()
    jobs = []
    for first, second in (callers, callers[::-1]):
        create = pb.CreateJobRequest(job=pb.Job(kind="X"), request_id=str(uuid.uuid4()))
        job_id = first("CreateJob", create).id
        started = second("StartJob", pb.StartJobRequest(id=job_id))
        reported = first(
            "UpdateJobProgress", pb.UpdateJobProgressRequest(id=job_id, attempt=1, report_number=1)
        ).job
        lease = Duration(seconds=1)
        short = second("CreateJob", pb.CreateJobRequest(job=pb.Job(kind="Y"))).id
        first("StartJob", pb.StartJobRequest(id=short, lease_duration=lease))
        late = first(
            "CreateJob",
            pb.CreateJobRequest(job=pb.Job(kind="Z", deadlines=pb.JobDeadlines(schedule_to_start=lease))),
        )
        for shown in (started, reported):
            assert abs(shown.lease_expire_time.ToNanoseconds() / 1e9 - began - 90) < 60
        jobs += [(job_id, "PROCESSING", ""), (short, "PENDING", ""), (late.id, "FAILED", "NOT_STARTED")]
    end = time.monotonic() + 20
    while any(_standing(callers[1], job_id) != (state, failure) for job_id, state, failure in jobs):
        assert time.monotonic() < end
        time.sleep(0.1)

    database = Database.open(database_url)
    for job_id, _, _ in jobs:
        times = [event["create_time"].timestamp() for event in events_of(database, job_id)]
        assert times == sorted(times)
        assert all(abs(event_time - began) < 60 for event_time in times)
    database.close()


def _standing(caller: Caller, job_id: str) -> tuple[str, str]:
    job = caller("GetJob", pb.GetJobRequest(id=job_id))
    state = pb.JobState.Name(job.state).removeprefix("JOB_STATE_")
    failure = pb.JobFailure.Name(job.failure).removeprefix("JOB_FAILURE_")
    return state, failure.replace("UNSPECIFIED", "")
