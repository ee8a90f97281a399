"""No request, however odd, is the server's fault: never INTERNAL, never UNKNOWN, on any database."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.api_keys.actions import create_key
from morag_meta.auth.principal import Role
from moragmeta.v1 import options_pb2, users_pb2
from tests.rpc.changes import CHANGES, World, stub
from tests.rpc.messages import METHODS, messages, request_type
from tests.service import Service, User

pytestmark = pytest.mark.usefixtures("nothing_collected")

CLIENTS_FAULT = {
    *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED"),
    *("OUT_OF_RANGE", "PERMISSION_DENIED"),
}
# They work on passwords for a while, so that a valid one comes with one odd field less often.
_SLOW = {"RegisterUser", "Login", "ChangePassword"}


class Victims:
    """An ADMIN who calls, and the ids of what may be read, changed and destroyed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.world = World(service)
        self.admin = service.new_user(Role.ADMIN)
        world = self.world
        self.ids = [
            *(world.server_id(), world.database_id(), world.document_id(), world.ingested_id()),
            *(world.deleted_id(), world.job_id(), world.job_id(started=True), world.job_id(failed=True)),
            *(world.key_id(), world.other_id(), str(uuid.uuid4())),
        ]

        self.viewer = service.new_user(Role.VIEWER)
        with service.database.unit_of_work() as uow:
            _, self.narrow_key = create_key(
                uow, service.hasher, owner_id=self.admin.id, name="narrow", scopes=("audit:read",)
            )
            uow.commit()

    def reinstate(self, caller: User) -> None:
        """Make one of the two ADMINs who call an active one again, who may have asked for the contrary."""
        other = self.admin if caller is self.world.admin else self.world.admin
        users = other.channel.users
        users.ReactivateUser(users_pb2.ReactivateUserRequest(id=caller.id))
        users.SetUserRole(users_pb2.SetUserRoleRequest(id=caller.id, role=options_pb2.ROLE_ADMIN))


@pytest.fixture(scope="module")
def victims(service: Service) -> Victims:
    """Give things of a user that an ADMIN may do anything to."""
    return Victims(service)


def _code(method: Any, victims: Victims, data: bytes, key: str = "") -> str:
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel: Any = victims.admin.channel.raw
    metadata = (("x-api-key", key or victims.admin.key),)
    try:
        if method.server_streaming:
            return _first(channel.unary_stream(path)(data, metadata=metadata, timeout=5))
        channel.unary_unary(path)(data, metadata=metadata, timeout=20)
    except grpc.RpcError as caught:
        error: Any = caught
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        assert details, error
        assert status_pb2.Status.FromString(details).details
        return error.code().name  # type: ignore[no-any-return]
    return "OK"


def _first(stream: Any) -> str:
    """Wait for a first frame, but not for long: after the last event there is nothing to say yet."""
    threading.Timer(0.3, stream.cancel).start()
    try:
        next(stream)
    except grpc.RpcError:
        if stream.code() is not grpc.StatusCode.CANCELLED:
            raise
    stream.cancel()
    return "OK"


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_is_the_servers_fault(victims: Victims, name: str, data: st.DataObject) -> None:
    """Any message of the method's type ends with OK or with the client's fault, told in details."""
    request = data.draw(messages(METHODS[name].input_type, victims.ids))
    code = _code(METHODS[name], victims, request.SerializeToString())
    carries_a_secret = name.endswith(("Login", "RefreshToken", "ResetPassword"))
    allowed = {"OK", *CLIENTS_FAULT} | ({"UNAUTHENTICATED"} if carries_a_secret else set())
    assert code in allowed
    if name.endswith(("SetUserRole", "DeactivateUser")) and code == "OK":
        victims.reinstate(victims.admin)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_refused_request_mutes_the_audit(victims: Victims, name: str, data: st.DataObject) -> None:
    """Whatever is sent by who may not call, the audit takes it, and what comes after it."""
    method, audit = METHODS[name], victims.service.app.audit
    carries_a_secret = name.endswith(("Login", "RefreshToken", "ResetPassword"))
    allowed = {"OK", *CLIENTS_FAULT} | ({"UNAUTHENTICATED"} if carries_a_secret else set())
    for key in (victims.viewer.key, victims.narrow_key):
        request = data.draw(messages(method.input_type, victims.ids))
        assert _code(method, victims, request.SerializeToString(), key) in allowed
    victims.service.on_loop(audit.flush())
    assert audit.dropped == 0
    assert audit.waiting == 0


_TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["\u0000", "'; DROP TABLE jobs; --", "%", "_", "\\", "[", "(", "ß", "İ", "\u0301", "\ufeff", "\U0010ffff"]
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(["ListServers", "ListDatabases", "ListDocuments", "ListUsers"]), text=_TEXTS)
def test_no_filter_text_is_the_servers_fault(victims: Victims, name: str, text: str) -> None:
    """A list filtered by any text answers, also where the text means something to a database."""
    (method,) = [method for title, method in METHODS.items() if title.endswith(f".{name}")]
    field = method.input_type.fields_by_name["text" if name == "ListUsers" else "name_contains"]
    request = request_type(method)(**{field.name: text})
    code = _code(method, victims, request.SerializeToString())
    assert code == ("INVALID_ARGUMENT" if "\0" in text else "OK")


@pytest.mark.parametrize("name", [name for name in CHANGES if name.partition(".")[2] not in _SLOW])
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_good_request_with_one_odd_field_is_carried_out_or_refused(
    victims: Victims, name: str, data: st.DataObject
) -> None:
    """A valid request in which one field holds something else ends with OK or the client's fault."""
    world = victims.world
    request = CHANGES[name](world)
    target = _resource(request)
    other = data.draw(messages(target.DESCRIPTOR, victims.ids))
    field = data.draw(st.sampled_from([field.name for field in target.DESCRIPTOR.fields]))
    target.ClearField(field)
    target.MergeFrom(type(target)(**{field: getattr(other, field)}))
    if "update_mask" in request.DESCRIPTOR.fields_by_name:
        request.update_mask.paths[:] = [field]
    try:
        stub(world, name)(request)
    except grpc.RpcError as caught:
        error: Any = caught
        assert error.code().name in CLIENTS_FAULT, (request, error)
    if name.endswith(("SetUserRole", "DeactivateUser")):
        victims.reinstate(world.admin)


def _resource(request: Any) -> Any:
    first = request.DESCRIPTOR.fields[0]
    return getattr(request, first.name) if first.message_type and not first.is_repeated else request
