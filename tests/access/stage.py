"""A server, an estate, and everybody who calls for it; and what comes of a call, in the table's words."""

from __future__ import annotations

import uuid
from typing import Any, Final

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from morag_meta.api_keys.actions import create_key
from morag_meta.auth.principal import Role
from moragmeta.v1 import api_keys_pb2, grants_pb2, options_pb2, users_pb2
from tests.access.credentials import Metadata, by_key, by_token, log_in, useless
from tests.access.estate import HASHED, OF_SESSIONS, REQUESTS, Estate
from tests.access.table import ROWS, Row
from tests.refusals import Refusal, read_details
from tests.rpc.messages import METHODS
from tests.service import Service, User

BY_NAME: Final = {name.removeprefix("moragmeta.v1."): method for name, method in METHODS.items()}
"""Every method's descriptor, by its name in the table."""

_ENDS_SESSIONS: Final = {"UserService.Logout", "UserService.ChangePassword"}
_WORDS: Final = {
    ("NOT_FOUND", "RESOURCE_NOT_FOUND"): "absent",
    ("PERMISSION_DENIED", "ROLE_TOO_LOW"): "role",
    ("PERMISSION_DENIED", "GRANT_TOO_LOW"): "grant",
    ("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"): "owner",
    ("PERMISSION_DENIED", "SESSION_REQUIRED"): "session",
    ("PERMISSION_DENIED", "SCOPE_MISSING"): "scope",
}


class Stage:
    """Who takes part in the matrix."""

    def __init__(self, service: Service) -> None:
        """Make everybody, and all that a VIEWER has, who cannot make it any more once a VIEWER."""
        self.service = service
        self._people = {name: _person(service) for name in ("other", "READER", "WRITER")}
        self._people["ADMIN"] = _person(service, Role.ADMIN)
        sharers = {
            grants_pb2.GRANT_LEVEL_READER: self._people["READER"],
            grants_pb2.GRANT_LEVEL_WRITER: self._people["WRITER"],
        }
        self._estate = Estate(service, sharers)
        self._people["USER"] = self._estate.user
        assigned = Estate(service, sharers)
        self._people["VIEWER"] = assigned.user
        self._viewers = {title: [REQUESTS[title](assigned) for _ in range(2)] for title in ROWS}
        _make_viewer(service, assigned.user)
        self._viewers |= {title: [REQUESTS[title](assigned) for _ in range(2)] for title in OF_SESSIONS}
        self._tokens = {name: log_in(service, person) for name, person in self._people.items()}
        self.useless = useless(service)
        self._pending: dict[str, Any] = {}

    def works(self, caller: str, row: Row, *, with_key: bool) -> Metadata:
        """Give a caller's key of every scope, or access token."""
        if with_key:
            return by_key(self._people[caller].key)
        if row.method in _ENDS_SESSIONS:  # that of somebody who calls nothing else
            role = Role.__members__.get(caller, Role.USER)
            return by_token(log_in(self.service, _person(self.service, role)))
        return by_token(self._tokens[caller])

    def scoped(self, row: Row, *scopes: str) -> Metadata:
        """Give a key that has just these scopes, of who may make the call at all."""
        owner = self._people[row.least]
        with self.service.database.unit_of_work() as uow:
            _, secret = create_key(
                uow, self.service.hasher, owner_id=owner.id, name=uuid.uuid4().hex, scopes=scopes
            )
            uow.commit()
        return by_key(secret)

    def owns(self, estate: Estate, row: Row) -> Metadata:
        """Give a credential with which the owner of an estate, or an ADMIN, may make a row's call."""
        person = estate.user if row.least == "USER" else self._people["ADMIN"]
        if row.scopes != ("session",):
            return by_key(person.key)
        if row.method in _ENDS_SESSIONS:
            person = _person(self.service)
        return by_token(log_in(self.service, person))

    def meets(self, row: Row, metadata: Metadata, *, as_viewer: bool = False) -> str:
        """Make a row's call; tell what comes of it, in the words of the table or as code and reason.

        A request that was refused is sent again for the next caller, as it has changed nothing; it would have
        been carried out for whoever may.
        """
        if as_viewer:
            request = self._viewers[row.title].pop()
        else:
            request = self._pending.pop(row.title, None) or REQUESTS[row.title](self._estate)
        try:
            answer, _ = self.answer(BY_NAME[row.method], request, metadata)
        except grpc.RpcError as error:
            if not as_viewer:
                self._pending[row.title] = request
            refusal, known = Refusal(), _known(error)
            read_details(refusal, error)
            told = known.code().name, refusal.reason
            return _WORDS.get(told, " ".join(told))
        return "nothing" if says_nothing(answer) else "ok"

    def answer(
        self, method: MethodDescriptor, request: Any, metadata: Metadata
    ) -> tuple[Any, dict[str, Any]]:
        """Give the answer and the trailing metadata; of a stream, the first frame."""
        channel: Any = self.service.admin.channel.raw
        path = f"/{method.containing_service.full_name}/{method.name}"
        kinds: dict[str, Any] = {
            "request_serializer": type(request).SerializeToString,
            "response_deserializer": GetMessageClass(method.output_type).FromString,
        }
        if not method.server_streaming:
            unary = channel.unary_unary(path, **kinds)
            answer, call = unary.with_call(request, metadata=metadata, timeout=20)
            return answer, dict(call.trailing_metadata())
        stream = channel.unary_stream(path, **kinds)(request, metadata=metadata, timeout=20)
        frame = next(stream)
        stream.cancel()
        return frame, {}


def _known(error: Any) -> Any:
    return error


def says_nothing(answer: Any) -> bool:
    """Whether an answer that could hold something holds nothing: a list, a count, a snapshot, a verdict."""
    name = answer.DESCRIPTOR.name
    if name == "JobFrame":
        return answer.WhichOneof("frame") == "sync" and not answer.sync.snapshot_size
    if name == "VerifyApiKeyResponse":
        return bool(answer.verdict != api_keys_pb2.API_KEY_VERDICT_VALID)
    counts = {"JobStats": "total", "PurgeJobsResponse": "purged_jobs"}
    if name in counts:
        return not getattr(answer, counts[name])
    lists = [
        field
        for field in answer.DESCRIPTOR.fields
        if field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE
    ]
    return (
        bool(lists) and name.endswith("Response") and not any(getattr(answer, field.name) for field in lists)
    )


def _person(service: Service, role: Role = Role.USER) -> User:
    return service.new_user(role, password_hash=HASHED)


def _make_viewer(service: Service, user: User) -> None:
    request = users_pb2.SetUserRoleRequest(id=user.id, role=options_pb2.ROLE_VIEWER)
    service.admin.channel.users.SetUserRole(request)
