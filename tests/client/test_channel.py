"""What a channel adds to each call, and how it bears a line that fails."""

from __future__ import annotations

import json

import grpc
import pytest

from morag_client import SERVICE_CONFIG, connect, refusal_of
from moragmeta.v1 import servers_pb2, users_pb2
from moragmeta.v1.servers_pb2_grpc import ServerServiceStub
from moragmeta.v1.users_pb2_grpc import UserServiceStub
from tests.client.conftest import Line
from tests.service import Service, User

_ME = users_pb2.GetUserRequest(id="me")


def _request(name: str) -> servers_pb2.CreateServerRequest:
    server = servers_pb2.Server(name=name, kind=servers_pb2.SERVER_KIND_QDRANT, host="localhost", port=6333)
    return servers_pb2.CreateServerRequest(server=server)


def _names(user: User) -> list[str]:
    return [
        server.name for server in user.channel.servers.ListServers(servers_pb2.ListServersRequest()).servers
    ]


def test_key_goes_with_every_call(service: Service, user: User) -> None:
    """The caller is the key's owner; a wrong key is refused by the service."""
    with connect(service.target, user.key) as channel:
        assert UserServiceStub(channel).GetUser(_ME).id == user.id
    with connect(service.target, "wrong") as channel, pytest.raises(grpc.RpcError) as caught:
        UserServiceStub(channel).GetUser(_ME)
    assert refusal_of(caught.value).reason == "CREDENTIAL_INVALID"


def test_channel_can_be_secured(service: Service, user: User) -> None:
    """With credentials the channel is made of them, and the key goes with its calls too."""
    with connect(service.target, user.key, credentials=grpc.local_channel_credentials()) as channel:
        assert UserServiceStub(channel).GetUser(_ME).id == user.id


def test_each_write_gets_a_request_id_of_its_own(service: Service, user: User) -> None:
    """The same message sent twice is two calls, and is left as it was."""
    request = _request("twice")
    with connect(service.target, user.key) as channel:
        stub = ServerServiceStub(channel)
        stub.CreateServer(request)
        with pytest.raises(grpc.RpcError) as caught:
            stub.CreateServer(request)
    assert refusal_of(caught.value).reason == "RESOURCE_EXISTS"
    assert request == _request("twice")


def test_own_request_id_is_kept(service: Service, user: User) -> None:
    """A caller's own id makes its repeat harmless."""
    request = _request("once")
    request.request_id = "mine"
    with connect(service.target, user.key) as channel:
        stub = ServerServiceStub(channel)
        first, second = stub.CreateServer(request), stub.CreateServer(request)
    assert first.id == second.id


def test_write_whose_answer_is_lost_is_done_once(line: Line, user: User) -> None:
    """The channel sends it again, and the service answers what it did the first time."""
    with connect(line.target, user.key) as channel:
        line.lose_answer(b"lost answer", lambda: _names(user) == ["lost answer"])
        server = ServerServiceStub(channel).CreateServer(_request("lost answer"))
    assert line.lost == 1
    assert server.name == "lost answer"
    assert _names(user) == ["lost answer"]


def test_every_call_has_a_deadline(line: Line, user: User) -> None:
    """A call that says nothing of time ends by the service config where no answer comes."""
    hasty = SERVICE_CONFIG.replace('"timeout": "15s"', '"timeout": "3s"')
    with connect(line.target, user.key, service_config=hasty) as channel:
        stub = UserServiceStub(channel)
        stub.GetUser(_ME, wait_for_ready=True)
        line.stall()
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetUser(_ME)
        line.flow()
    assert refusal_of(caught.value).code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_service_config_may_leave_a_call_its_time(line: Line, user: User) -> None:
    """Where one's own service config names no deadline, a call waits as long as its caller says."""
    config = json.loads(SERVICE_CONFIG)
    for entry in config["methodConfig"]:
        entry.pop("timeout")
    with connect(line.target, user.key, service_config=json.dumps(config)) as channel:
        stub = UserServiceStub(channel)
        assert stub.GetUser(_ME, wait_for_ready=True).id == user.id
        line.stall()
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetUser(_ME, timeout=0.5)
        line.flow()
    assert refusal_of(caught.value).code is grpc.StatusCode.DEADLINE_EXCEEDED
