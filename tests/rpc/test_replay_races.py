"""Request ids under concurrency, across processes, across time, and when calls fail."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db.requests import KEPT
from morag_meta.db.schema import request_records as records
from moragmeta.v1 import jobs_pb2, servers_pb2, users_pb2
from tests.refusals import refused
from tests.rpc.changes import CHANGES, World
from tests.rpc.conftest import Pair
from tests.service import Channel, Service, User

AT_ONCE = 8
_STUBS = {
    "ServerService.CreateServer": lambda channel: channel.servers.CreateServer,
    "DocumentService.BatchCreateDocuments": lambda channel: channel.documents.BatchCreateDocuments,
    "JobService.StartJob": lambda channel: channel.jobs.StartJob,
    "UserService.RegisterUser": lambda channel: channel.users.RegisterUser,
}


def _create(name: str, id: str) -> servers_pb2.CreateServerRequest:
    kind = servers_pb2.SERVER_KIND_QDRANT
    server = servers_pb2.Server(name=name, kind=kind, host="h", port=1)
    return servers_pb2.CreateServerRequest(server=server, request_id=id)


def _replayed(call: Any) -> bool:
    return dict(call.trailing_metadata()).get("morag-replayed") == "true"


def _records(service: Service, request_id: str) -> int:
    with service.database.unit_of_work() as uow:
        return len(uow.all(sa.select(records.c.method).where(records.c.request_id == request_id)))


@pytest.mark.parametrize("name", _STUBS)
def test_concurrent_repeats_run_once(pair: Pair, name: str) -> None:
    """Of eight equal calls at once, over two servers, one runs and seven are replays of it."""
    world = World(pair.here)
    request = CHANGES[name](world)
    request.request_id = uuid.uuid4().hex
    metadata = (("x-api-key", world.user.key),)
    channels = [Channel(server.target, metadata) for server in (pair.here, pair.there)]
    barrier = threading.Barrier(AT_ONCE)

    def send(number: int) -> tuple[bytes, bool]:
        stub = _STUBS[name](channels[number % 2])
        barrier.wait()
        answer, call = stub.with_call(request)
        if name.endswith("BatchCreateDocuments"):
            for item in answer.responses:
                item.ClearField("replayed")
        return answer.SerializeToString(deterministic=True), _replayed(call)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(send, range(AT_ONCE)))
    for channel in channels:
        channel.close()
    assert sum(not replayed for _, replayed in answers) == 1
    assert len({data for data, _ in answers}) == 1
    assert _records(pair.here, request.request_id) == 1


def test_another_process_knows_the_request_id(pair: Pair) -> None:
    """What one server did under a request id, another server of the database replays."""
    user = pair.here.new_user()
    first = user.channel.servers.CreateServer(_create("main", "across"))
    elsewhere = pair.there.channel(api_key=user.key)
    again, call = elsewhere.servers.CreateServer.with_call(_create("main", "across"))
    assert (again.id, _replayed(call)) == (first.id, True)


def test_request_ids_of_callers_and_methods_are_apart(service: Service) -> None:
    """Two callers, and two methods of one caller, may use the same request id."""
    one, two = service.new_user(), service.new_user()
    for user in (one, two):
        _, call = user.channel.servers.CreateServer.with_call(_create("main", "same"))
        assert not _replayed(call)
    request = jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX"), request_id="same")
    _, call = one.channel.jobs.CreateJob.with_call(request)
    assert not _replayed(call)


def test_nobodys_request_ids_are_apart_from_everybodys(service: Service) -> None:
    """A public method's request id is nobody's, whoever sends a credential with it."""
    email, request_id = f"{uuid.uuid4().hex}@replay.test", uuid.uuid4().hex
    request = users_pb2.RegisterUserRequest(
        name="Jo", email=email, password="correct horse", request_id=request_id
    )
    made = service.channel().users.RegisterUser(request)
    again, call = service.new_user().channel.users.RegisterUser.with_call(request)
    assert (again.id, _replayed(call)) == (made.id, True)


def test_a_replay_shows_the_resource_as_it_is_now(user: User) -> None:
    """A repeat of a create answers what later changes made of it, and NOT_FOUND once it is gone."""
    servers = user.channel.servers
    made = servers.CreateServer(_create("before", "now"))
    changed = servers.UpdateServer(
        servers_pb2.UpdateServerRequest(server=servers_pb2.Server(id=made.id, name="after"))
    )
    assert servers.CreateServer(_create("before", "now")) == changed
    servers.DeleteServer(servers_pb2.DeleteServerRequest(id=made.id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        servers.CreateServer(_create("before", "now"))


def test_a_failed_call_leaves_no_record(service: Service, user: User) -> None:
    """A call that was refused did nothing, so its request id is free for the call that succeeds."""
    servers = user.channel.servers
    taken = servers.CreateServer(_create("name", ""))
    request_id = uuid.uuid4().hex
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        servers.CreateServer(_create("name", request_id))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.name"):
        servers.CreateServer(_create("", request_id))
    assert _records(service, request_id) == 0
    servers.DeleteServer(servers_pb2.DeleteServerRequest(id=taken.id))
    _, call = servers.CreateServer.with_call(_create("name", request_id))
    assert not _replayed(call)


@pytest.mark.parametrize(
    ("age", "kept"), [(KEPT - dt.timedelta(minutes=1), True), (KEPT + dt.timedelta(seconds=1), False)]
)
def test_a_request_id_is_kept_for_a_day(service: Service, user: User, age: dt.timedelta, kept: bool) -> None:
    """Within 24 hours a repeat is a replay; later the id is new, and its record is begun anew."""
    servers = user.channel.servers
    made = servers.CreateServer(_create("old", "aged"))
    _age(service, user, age)
    request = _create("old" if kept else "new", "aged")
    again, call = servers.CreateServer.with_call(request)
    assert (again.id == made.id, _replayed(call)) == (kept, kept)
    _, call = servers.CreateServer.with_call(request)
    assert _replayed(call)


def test_the_sweep_forgets_old_records_alone(service: Service, user: User) -> None:
    """Sweeping removes what is older than a day, and nothing that is younger."""
    old, young = uuid.uuid4().hex, uuid.uuid4().hex
    user.channel.servers.CreateServer(_create("old", old))
    _age(service, user, KEPT + dt.timedelta(seconds=1))
    user.channel.servers.CreateServer(_create("young", young))
    with service.database.unit_of_work() as uow:
        uow.requests.sweep()
        uow.commit()
    assert (_records(service, old), _records(service, young)) == (0, 1)


def test_a_request_id_keeps_no_word_of_the_request(service: Service) -> None:
    """The record of a registration holds neither the password nor the email, in no form to be guessed."""
    email, request_id = f"{uuid.uuid4().hex}@replay.test", uuid.uuid4().hex
    service.channel().users.RegisterUser(
        users_pb2.RegisterUserRequest(name="Jo", email=email, password="correct horse", request_id=request_id)
    )
    with service.database.unit_of_work() as uow:
        row = uow.one(sa.select(records).where(records.c.request_id == request_id))
    assert row is not None
    text = str(dict(row))
    assert email not in text
    assert "correct horse" not in text
    assert set(row["receipt"]) == {"id"}


def _age(service: Service, user: User, age: dt.timedelta) -> None:
    """Make the records of a user older."""
    with service.database.unit_of_work() as uow:
        statement = sa.update(records).where(records.c.owner_id == user.id)
        uow.run(statement.values(create_time=uow.now - age))
        uow.commit()
