"""What is kept of workers: when they were last seen, how many leases they hold, and who is forgotten."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from morag_meta.db.schema import jobs, workers
from morag_meta.errors import NotFound
from morag_meta.workers.store import FORGOTTEN_AFTER
from moragmeta.v1 import users_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service
from tests.workers.fleet import Fleet


def _unseen_for(service: Service, worker_id: str, time: dt.timedelta) -> None:
    with service.database.unit_of_work() as uow:
        seen = uow.queue.now() - time
        change = sa.update(workers).where(workers.c.id == worker_id).values(last_seen_time=seen)
        uow.connection.execute(change)
        uow.commit()


def _seen(fleet: Fleet, worker_id: str) -> int:
    worker = fleet.stub.GetWorker(pb.GetWorkerRequest(id=worker_id))
    return int(worker.last_seen_time.ToMicroseconds())


def test_a_worker_is_seen_by_what_it_does_every_ten_seconds(
    service: Service, work: Work, fleet: Fleet
) -> None:
    """Asking for jobs and heartbeats note that it lives, unless that was noted within 10 s."""
    worker = fleet.register()
    work.add_job(kind="A")
    (lease,) = fleet.lease(worker.id)
    for act in (lambda: fleet.lease(worker.id), lambda: fleet.beat(lease)):
        _unseen_for(service, worker.id, dt.timedelta(seconds=2))
        noted = _seen(fleet, worker.id)
        act()
        assert _seen(fleet, worker.id) == noted
        _unseen_for(service, worker.id, dt.timedelta(seconds=11))
        noted = _seen(fleet, worker.id)
        act()
        assert _seen(fleet, worker.id) - noted > 10_000_000


def test_who_is_gone_for_a_day_is_forgotten(service: Service, work: Work, fleet: Fleet) -> None:
    """Swept are workers unseen for longer than a day, batch by batch, but none that holds a lease."""
    gone, also_gone, holding, recent = [fleet.register() for _ in range(4)]
    work.add_job(kind="A")
    (lease,) = fleet.lease(holding.id)
    for worker in (gone, also_gone, holding):
        _unseen_for(service, worker.id, FORGOTTEN_AFTER + dt.timedelta(seconds=5))
    _unseen_for(service, recent.id, FORGOTTEN_AFTER - dt.timedelta(seconds=60))
    with service.database.unit_of_work() as uow:
        swept = [uow.workers.sweep(1), uow.workers.sweep(1), uow.workers.sweep(1)]
        left = [row["id"] for row in uow.workers.page(work.user.id, None, 10)]
        uow.commit()
    assert swept == [1, 1, 0]
    assert left == [recent.id, holding.id]
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        fleet.lease(gone.id)
    assert fleet.complete(lease).job.worker_id == holding.id


def test_only_living_leases_are_counted(service: Service, work: Work, fleet: Fleet) -> None:
    """A lease that is over counts no more, though the reaper has not come; nor do ended jobs."""
    worker = fleet.register()
    for _ in range(3):
        work.add_job(kind="A")
    done, over, _ = fleet.lease(worker.id, 3)
    fleet.complete(done)
    with service.database.unit_of_work() as uow:
        change = sa.update(jobs).where(jobs.c.id == over.job.id).values(lease_expire_time=uow.queue.now())
        uow.connection.execute(change)
        uow.commit()
    with service.database.unit_of_work() as uow:
        assert uow.workers.leases([worker.id]) == {worker.id: 1}
        assert uow.workers.leases([]) == {}


def test_workers_go_with_their_owner(service: Service, work: Work, fleet: Fleet) -> None:
    """Deleting a user deletes the workers; what they had leased of others falls due by itself."""
    worker = fleet.register()
    work.add_job(kind="A")
    fleet.lease(worker.id)
    users = service.admin.channel.users
    users.DeactivateUser(users_pb2.DeactivateUserRequest(id=work.user.id))
    users.DeleteUser(users_pb2.DeleteUserRequest(id=work.user.id))
    with service.database.unit_of_work() as uow, pytest.raises(NotFound):
        uow.workers.get("-", worker.id)
