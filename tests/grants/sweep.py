"""Requests with an id of another tenant in one field, and what is answered to them.

Fields for ids are found in the descriptors: by their format, or by a name that ends as an id's does.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.ids import new_id
from morag_meta.rpc.access import access_of
from moragmeta.v1 import options_pb2
from tests.access.credentials import by_key, by_token
from tests.grants.scene import Tenant
from tests.refusals import Refusal, read_details
from tests.rpc.messages import METHODS, request_type, rules_of
from tests.service import Service

_IDS: Final = {options_pb2.FORMAT_UUID, options_pb2.FORMAT_OWNER, options_pb2.FORMAT_USER}
_NO_IDS: Final = {"request_id", "external_id"}  # what callers name themselves
_numbers = itertools.count(1)


def is_id(field: FieldDescriptor) -> bool:
    """Whether a field holds ids of what the service made."""
    if field.type != FieldDescriptor.TYPE_STRING or field.name in _NO_IDS:
        return False
    named = field.name in ("id", "subject") or field.name.endswith(("_id", "_ids"))
    return named or rules_of(field).format in _IDS


def texts(
    descriptor: Descriptor, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldDescriptor]]:
    """Give each text of a request that is looked at, by its path."""
    for field in descriptor.fields:
        looked_at = field.name == "id" or not rules_of(field).output_only
        if field.message_type is not None:
            if field.message_type.full_name.startswith("moragmeta.") and looked_at:
                yield from texts(field.message_type, (*path, field.name))
        elif field.type == FieldDescriptor.TYPE_STRING and looked_at:
            yield (*path, field.name), field


SWEPT: Final = [
    (f"{method.containing_service.name}.{method.name}", path, method)
    for method in METHODS.values()
    for path, field in texts(method.input_type)
    if is_id(field)
]
"""Each field for ids: the method's name, the field's path, and the method."""


class Caller:
    """A tenant who calls with the ids of another."""

    def __init__(self, mine: Tenant, token: str = "") -> None:
        """Call by a key, and by an access token where it is given and no key will do."""
        self.mine = mine
        self._token = token
        self._things: dict[str, Any] = {
            "UserService": "me",
            "ServerService": mine.server,
            "DatabaseService": mine.private,
            "DocumentService": mine.document(mine.private).id,
            "WorkerService": mine.worker(),
            "ApiKeyService": mine.key(),
        }
        self._things["JobService"] = mine.job(self._things["DocumentService"]).id
        self._values: dict[str, Any] = {
            "server_id": mine.server,
            "database_id": mine.private,
            "document_id": self._things["DocumentService"],
            "job_id": self._things["JobService"],
            "worker_id": self._things["WorkerService"],
            "grantee_id": mine.user.id,
            "type": "pdf",
            "kind": "REINDEX",
            "host": "h",
            "error": "no",
            "lease_token": "t",
            "end_time_before": Timestamp(seconds=4_000_000_000),
        }

    def request(self, method: Any, path: tuple[str, ...], id: str) -> Any:
        """Make a valid request with an id in one field."""
        request: Any = request_type(method)()
        self._fill(request, method.containing_service.name, path, id)
        if method.name == "WatchJobs":
            request.include_snapshot = True
        if method.name == "RevokeAccess" and path != ("database_id",):
            request.database_id = self.mine.shared  # on which GrantAccess has given nothing meanwhile
        if method.name == "RevokeAccess" and path == ("database_id",):
            request.grantee_id = str(uuid.uuid4())  # the caller's own grant is theirs to give up
        return request

    def _fill(self, message: Any, service: str, path: tuple[str, ...], id: str) -> None:
        for field in message.DESCRIPTOR.fields:
            rest = path[1:] if path[:1] == (field.name,) else None
            if rest == ():
                _set(message, field, id)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                if rest or rules_of(field).required:
                    self._fill_message(message, field, service, rest or (), id)
            elif rules_of(field).required or field.name == "id":
                _set(message, field, self._value(field, service))

    def _fill_message(
        self, message: Any, field: FieldDescriptor, service: str, path: tuple[str, ...], id: str
    ) -> None:
        inner = getattr(message, field.name)
        if field.name in self._values:
            inner.CopyFrom(self._values[field.name])
        else:
            self._fill(inner.add() if field.is_repeated else inner, service, path, id)

    def _value(self, field: FieldDescriptor, service: str) -> Any:
        if field.name == "id":
            return self._things[service]
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._values.get(field.name) or f"thing {next(_numbers)}"
        return 1

    def answer(self, method: Any, path: tuple[str, ...], id: str) -> tuple[str, str]:
        """Call with an id in one field; give the code, and all else that is said with the id left out.

        What a change answers has ids and times of its own, and is not compared.
        """
        request = self.request(method, path, id)
        try:
            told = self._call(method, request)
        except grpc.RpcError as error:
            refusal = Refusal()
            read_details(refusal, error)
            known: Any = error
            return known.code().name, str(refusal).replace(id, "ID")
        is_read = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        return "OK", told.replace(id, "ID") if is_read else ""

    def _call(self, method: Any, request: Any) -> str:
        """Give what is answered; of a stream, what its first frame is."""
        channel: Any = self.mine.user.channel.raw
        path = f"/{method.containing_service.full_name}/{method.name}"
        kinds = {
            "request_serializer": request_type(method).SerializeToString,
            "response_deserializer": GetMessageClass(method.output_type).FromString,
        }
        by_session = self._token and access_of(method).needs_session
        metadata = by_token(self._token) if by_session else by_key(self.mine.user.key)
        options: Any = {"metadata": metadata, "timeout": 20}
        if not method.server_streaming:
            return str(channel.unary_unary(path, **kinds)(request, **options))
        stream: Any = channel.unary_stream(path, **kinds)(request, **options)
        frame = next(stream)
        stream.cancel()
        if method.name == "ExportUserData":
            return str(frame)
        return f"{frame.WhichOneof('frame')} of {frame.snapshot.id}{frame.event.job_id}"


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def ids_of(service: Service, owner: Tenant) -> dict[str, str]:
    """Give an id of each kind of what an owner has; the first three are in the database that is shared."""
    document = owner.document()
    loose = owner.document(owner.private)
    return {
        "database": owner.shared,
        "document": document.id,
        "job": owner.job(document.id).id,
        "private database": owner.private,
        "private document": loose.id,
        "private job": owner.job(loose.id).id,
        "document in none": owner.document("").id,
        "server": owner.server,
        "worker": owner.worker(),
        "api key": owner.key(),
        "session": _session(service, owner),
        "user": owner.user.id,
    }


def _session(service: Service, owner: Tenant) -> str:
    id = new_id()
    with service.database.unit_of_work() as uow:
        end = uow.now + dt.timedelta(hours=1)
        uow.sessions.add(owner.user.id, id, refresh_hash=uuid.uuid4().hex, expire_time=end)
        uow.commit()
    return id
