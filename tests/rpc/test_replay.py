"""Request ids: what a repeated call answers, for every method that takes one."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from google.protobuf.message import Message

from morag_meta.rpc.access import SERVICES
from morag_meta.rpc.access import service as descriptor_of
from moragmeta.v1 import users_pb2
from tests.refusals import refused
from tests.rpc.changes import CHANGES, PASSWORD, World, stub
from tests.service import Service

# What says that it is safe to repeat in another way, or makes nothing that a repeat would make twice.
_WITHOUT_ID = {
    "UserService.Login": "opens a session, and its tokens cannot be shown twice",
    "UserService.RefreshToken": "goes on with the same session",
    "UserService.RequestPasswordReset": "is one request until it is taken",
    "UserService.TakePasswordResets": "gives tokens, which cannot be shown twice",
    "UserService.CreatePasswordReset": "gives a token, which cannot be shown twice",
    "UserService.Logout": "ends the session, however often",
    "JobService.UpdateJobProgress": "carries attempt and report number",
    "WorkerService.HeartbeatJob": "renews a lease, however often",
}


@pytest.fixture
def world(service: Service) -> World:
    """Give a user and what the requests need."""
    return World(service)


def _send(world: World, name: str, request: Any) -> tuple[Any, bool]:
    """Call a method; give its answer and whether it says that it is a replay."""
    answer, call = stub(world, name).with_call(request)
    return answer, dict(call.trailing_metadata()).get("morag-replayed") == "true"


def _resource(answer: Any) -> Message:
    """Give the resource of an answer that wraps one, or the answer itself."""
    for name in ("document", "job", "api_key"):
        if name in answer.DESCRIPTOR.fields_by_name:
            return getattr(answer, name)  # type: ignore[no-any-return]
    if "responses" in answer.DESCRIPTOR.fields_by_name:
        for item in answer.responses:
            item.ClearField("replayed")
    return answer  # type: ignore[no-any-return]


def test_every_change_takes_a_request_id() -> None:
    """Each method that is not a pure read takes a request id, but for those that say why not."""
    with_id, without = set(), set()
    for name in SERVICES:
        for method in descriptor_of(name).methods:
            title = f"{method.containing_service.name}.{method.name}"
            if "request_id" in method.input_type.fields_by_name:
                with_id.add(title)
            elif not method.GetOptions().idempotency_level:
                without.add(title)
    assert without == set(_WITHOUT_ID)
    assert with_id == {*CHANGES, "UserService.ChangePassword", "UserService.ResetPassword"}


@pytest.mark.parametrize("name", CHANGES)
def test_a_repeat_answers_the_same_and_does_nothing(world: World, name: str) -> None:
    """The same request again answers the resource as it is, says so, and changes nothing."""
    request = CHANGES[name](world)
    request.request_id = uuid.uuid4().hex
    first, replayed = _send(world, name, request)
    assert not replayed
    again, replayed = _send(world, name, request)
    assert replayed
    # The etag is among the fields: had the call run twice, it would be another.
    assert _resource(again) == _resource(first)
    if name in ("ApiKeyService.CreateApiKey", "ApiKeyService.RotateApiKey"):
        assert (bool(first.secret), again.secret) == (True, "")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
@pytest.mark.parametrize("name", CHANGES)
def test_the_same_id_with_another_body_is_refused(world: World, name: str) -> None:
    """A request id that was used for another body is INVALID_ARGUMENT, and names the field and the id."""
    request = CHANGES[name](world)
    request.request_id = uuid.uuid4().hex
    _send(world, name, request)
    other = _altered(request)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id") as refusal:
        _send(world, name, other)
    assert refusal.metadata == {"request_id": request.request_id}


def test_a_changed_password_is_replayed_to_the_next_session(service: Service) -> None:
    """ChangePassword ends its session; the repeat from a new one succeeds though the old password is gone."""
    anybody, email = service.channel(), f"{uuid.uuid4().hex}@replay.test"
    anybody.users.RegisterUser(users_pb2.RegisterUserRequest(name="Jo", email=email, password=PASSWORD))
    change = users_pb2.ChangePasswordRequest(
        current_password=PASSWORD, new_password="another horse", request_id="change"
    )

    def login(password: str) -> Any:
        session = anybody.users.Login(users_pb2.LoginRequest(email=email, password=password))
        return service.channel(token=session.access_token).users

    login(PASSWORD).ChangePassword(change)
    users = login("another horse")
    _, call = users.ChangePassword.with_call(change)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    change.new_password = "a third horse"
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        users.ChangePassword(change)
    change.request_id = "later"
    with refused("UNAUTHENTICATED", "PASSWORD_WRONG"):
        users.ChangePassword(change)


def _altered(request: Any) -> Any:
    """Give the request with another body that is as valid."""
    other = type(request)()
    other.CopyFrom(request)
    fields = request.DESCRIPTOR.fields_by_name
    if "id" in fields:
        other.id = str(uuid.uuid4())
    elif "requests" in fields:
        del other.requests[0]
    elif "name" in fields:
        other.name = "Other"
    elif "max_jobs" in fields:
        other.max_jobs = 7
    elif "reason" in fields:
        other.reason = "Other"
    elif "grantee_id" in fields:
        other.grantee_id = str(uuid.uuid4())
    else:
        resource = getattr(other, next(iter(fields)))
        for field, value in (("name", "Other"), ("language", "fr"), ("kind", "OTHER"), ("servers", 7)):
            if field in resource.DESCRIPTOR.fields_by_name:
                setattr(resource, field, value)
                break
    assert other != request
    return other
