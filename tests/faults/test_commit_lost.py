"""The connection breaks exactly at COMMIT: in doubt without a request id, settled with one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from morag_meta.audit.store import Filter
from morag_meta.db.database import Database
from morag_meta.server import sweeper
from moragmeta.v1 import jobs_pb2, servers_pb2
from tests.backends.databases import ServerDatabases
from tests.backends.proxy import Proxy
from tests.refusals import refused
from tests.service import Service, User


@dataclass
class Line:
    """A service that reaches its database through a proxy, and a user of it."""

    proxy: Proxy
    service: Service
    user: User
    direct: Database

    def cut_at_commit(self, *, arrives: bool, then_refuse: bool = False) -> None:
        """Cut the connection that sends the next COMMIT, as its protocol frames the statement.

        The events of earlier calls are numbered by then: that commits as well, and once more to find none.
        """
        while True:
            self.service.on_loop(self.service.app.feed.sequencer.settle())
            with self.direct.unit_of_work() as uow:
                if not uow.log.look()["waiting"]:
                    break
        statement = b"\x03COMMIT" if self.service.kind == "mariadb" else b"COMMIT\x00"
        self.proxy.cut_at(statement, arrives=arrives, then_refuse=then_refuse)

    def count(self, name: str) -> int:
        """Count the user's servers of a name, past the proxy."""
        with self.direct.unit_of_work() as uow:
            rows = uow.servers.page(self.user.id, None, 100, kinds=[], active=None, name_contains=name)
        return len(rows)

    def create(self, name: str, request_id: str = "") -> tuple[servers_pb2.Server, bool]:
        """Make a server; give it, and whether the answer says that it is a replay."""
        kind = servers_pb2.SERVER_KIND_QDRANT
        server = servers_pb2.Server(name=name, kind=kind, host="h", port=1)
        request = servers_pb2.CreateServerRequest(server=server, request_id=request_id)
        stub: Any = self.user.channel.servers.CreateServer
        made, call = stub.with_call(request)
        return made, dict(call.trailing_metadata()).get("morag-replayed") == "true"


async def _never(*_: object) -> None:
    """Sweep nothing."""


@pytest.fixture(scope="module")
def line(frail: ServerDatabases) -> Iterator[Line]:
    """Serve through a proxy; nothing but the tests' calls commits meanwhile, as nobody sweeps."""
    url = frail.new_url()
    with Proxy(url) as proxy, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweeper, "run", _never)
        service = Service(proxy.url, frail.name, api_key_usage_interval=3600)
        direct = Database.open(url)
        user = service.new_user()
        user.channel.jobs.ListJobs(jobs_pb2.ListJobsRequest())
        yield Line(proxy, service, user, direct)
        service.close()
        direct.close()
    frail.drop(url)


@pytest.mark.parametrize("arrives", [True, False])
def test_without_a_request_id_it_is_said_to_be_in_doubt(line: Line, arrives: bool) -> None:
    """A change whose COMMIT was lost answers COMMIT_UNKNOWN, is not repeated, and is kept or not at all."""
    name = uuid.uuid4().hex
    line.cut_at_commit(arrives=arrives)
    with refused("UNAVAILABLE", "COMMIT_UNKNOWN"):
        line.create(name)
    assert line.count(name) == int(arrives)
    line.create(f"{name} after")


@pytest.mark.parametrize("arrives", [True, False])
def test_with_a_request_id_it_happens_exactly_once(line: Line, arrives: bool) -> None:
    """With a request id the service finds out itself: the call succeeds, and there is one row."""
    name, request_id = uuid.uuid4().hex, uuid.uuid4().hex
    line.cut_at_commit(arrives=arrives)
    made, replayed = line.create(name, request_id)
    assert replayed is arrives  # the second run finds the record of the first, if that was kept
    assert line.count(name) == 1
    again, replayed = line.create(name, request_id)
    assert (again.id, replayed) == (made.id, True)


@pytest.mark.parametrize("arrives", [True, False])
def test_what_stays_in_doubt_is_settled_by_the_request_id(line: Line, arrives: bool) -> None:
    """When the database stays away after a lost COMMIT the answer stays in doubt; the repeat settles it."""
    name, request_id = uuid.uuid4().hex, uuid.uuid4().hex
    line.cut_at_commit(arrives=arrives, then_refuse=True)
    try:
        with refused("UNAVAILABLE", "COMMIT_UNKNOWN"):
            line.create(name, request_id)
    finally:
        line.proxy.refuse(refusing=False)
    _, replayed = line.create(name, request_id)
    assert replayed is arrives
    assert line.count(name) == 1


@pytest.mark.parametrize("arrives", [True, False])
def test_a_report_in_doubt_is_settled_by_its_number(line: Line, arrives: bool) -> None:
    """A worker's report carries its own number: after a lost COMMIT its repeat is applied or found done."""
    jobs = line.user.channel.jobs
    job = jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    jobs.StartJob(jobs_pb2.StartJobRequest(id=job.id))
    report = jobs_pb2.UpdateJobProgressRequest(id=job.id, attempt=1, report_number=1, percentage=50)
    line.cut_at_commit(arrives=arrives)
    with refused("UNAVAILABLE", "COMMIT_UNKNOWN"):
        jobs.UpdateJobProgress(report)
    expected = jobs_pb2.REPORT_OUTCOME_REPEATED if arrives else jobs_pb2.REPORT_OUTCOME_APPLIED
    assert jobs.UpdateJobProgress(report).outcome == expected
    events = jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(job_id=job.id)).events
    assert [event.sequence for event in events] == [1, 2, 3]


@pytest.mark.parametrize("arrives", [True, False])
def test_an_audit_in_doubt_is_there_once(line: Line, arrives: bool) -> None:
    """Events whose COMMIT was lost are there once all the same, and those behind them are not kept out."""
    audit, ids = line.service.app.audit, [str(uuid.uuid4()) for _ in range(2)]
    line.service.on_loop(audit.flush())
    line.cut_at_commit(arrives=arrives)
    for id in ids:
        with refused("NOT_FOUND"):
            line.user.channel.servers.DeleteServer(servers_pb2.DeleteServerRequest(id=id))
        for _ in range(2):
            line.service.on_loop(audit.flush())
    with line.direct.unit_of_work() as uow:
        assert [len(uow.audit.page(Filter(target_id=id), None, 10)) for id in ids] == [1, 1]


def test_a_statement_lost_before_commit_is_run_again(line: Line) -> None:
    """A connection that breaks in the middle of a transaction is no doubt: it is run again, and kept once."""
    for arrives in (True, False):
        name = uuid.uuid4().hex
        line.proxy.cut_at(b"INSERT INTO servers", arrives=arrives)
        line.create(name)
        assert line.count(name) == 1


def test_effects_of_a_commit_in_doubt_do_not_happen(line: Line) -> None:
    """What follows a commit is not done for one that is in doubt; a watcher finds the change by polling."""
    jobs = line.user.channel.jobs
    job = jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream = jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    assert next(stream).event.sequence == 1
    line.cut_at_commit(arrives=True)
    with refused("UNAVAILABLE", "COMMIT_UNKNOWN"):
        jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert [frame.event.sequence for frame in stream if frame.HasField("event")] == [2]
