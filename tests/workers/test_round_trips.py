"""What a heartbeat costs, counted in statements: it is what workers send most."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Principal, Role
from morag_meta.rpc.call import Call
from morag_meta.rpc.pages import Pages
from morag_meta.rpc.places import Places
from morag_meta.workers.openings import Openings
from morag_meta.workers.servicer import WorkerServicer
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.service import Service
from tests.workers.fleet import Fleet


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [(None, ["SELECT", "UPDATE", "UPDATE"]), (b"x", ["SELECT", "UPDATE", "DELETE", "INSERT", "UPDATE"])],
)
def test_a_heartbeat_is_a_lock_and_two_small_updates(
    service: Service, work: Work, fleet: Fleet, checkpoint: bytes | None, expected: list[str]
) -> None:
    """It reads the job once, writes its two times and the worker's, and what is to be saved; no event."""
    database = service.database
    servicer = WorkerServicer(
        database,
        Pages(bytes(32)),
        Openings(database, lambda: None, Places(1000)),
        service.app.authenticator.recheck,
    )
    work.add_job()
    (lease,) = fleet.lease(fleet.register().id)
    caller = Principal(work.user.id, Role.USER, None, "key", "", None)
    call = Call(caller, "WorkerService.HeartbeatJob", "", "")
    request = pb.HeartbeatJobRequest(job_id=lease.job.id, lease_token=lease.token, checkpoint=checkpoint)
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement.split(maxsplit=1)[0])

    with database.unit_of_work() as uow:
        sa.event.listen(database.engine, "before_cursor_execute", note)
        try:
            answer = servicer.HeartbeatJob(uow, request, call)
        finally:
            sa.event.remove(database.engine, "before_cursor_execute", note)
    assert answer.verdict == pb.HEARTBEAT_VERDICT_GO_ON
    assert seen == expected
