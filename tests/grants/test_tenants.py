"""Two tenants: every id of one in every field for an id of every method, called by the other.

Without a grant each answer is the one for an id that does not exist. With one, what it opens answers as the
table below says, and everything else as before.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import options_pb2
from tests.grants.scene import READER, WRITER, Tenant, tenant
from tests.refusals import Refusal, read_details
from tests.rpc.messages import METHODS, request_type, rules_of
from tests.service import Service, User

OPEN: Final = "OK, and shows it"
DENIED: Final = "PERMISSION_DENIED"

# (method, field, what the id is of): the answer with a READER's grant, and with a WRITER's.
WITH_A_GRANT: Final[dict[tuple[str, str, str], tuple[str, str]]] = {
    ("DatabaseService.GetDatabase", "id", "database"): (OPEN, OPEN),
    ("DatabaseService.UpdateDatabase", "database.id", "database"): (DENIED, DENIED),
    ("DatabaseService.DeleteDatabase", "id", "database"): (DENIED, DENIED),
    ("DatabaseService.RecountDocuments", "id", "database"): (DENIED, DENIED),
    ("GrantService.GrantAccess", "database_id", "database"): (DENIED, DENIED),
    ("GrantService.RevokeAccess", "database_id", "database"): (DENIED, DENIED),
    ("GrantService.ListGrants", "database_id", "database"): (DENIED, DENIED),
    ("DocumentService.CreateDocument", "document.database_id", "database"): (DENIED, "OK"),
    ("DocumentService.BatchCreateDocuments", "requests.document.database_id", "database"): (DENIED, "OK"),
    ("DocumentService.ListDocuments", "database_id", "database"): (OPEN, OPEN),
    ("DocumentService.GetDocument", "id", "document"): (OPEN, OPEN),
    ("DocumentService.BatchGetDocuments", "ids", "document"): (OPEN, OPEN),
    ("DocumentService.UpdateDocument", "document.id", "document"): (DENIED, "OK"),
    ("DocumentService.DeprecateDocument", "id", "document"): (DENIED, "FAILED_PRECONDITION"),
    ("DocumentService.ReinstateDocument", "id", "document"): (DENIED, "FAILED_PRECONDITION"),
    ("DocumentService.DeleteDocument", "id", "document"): (DENIED, "OK"),
    ("DocumentService.UndeleteDocument", "id", "document"): (DENIED, "ALREADY_EXISTS"),
    ("JobService.CreateJob", "job.document_id", "document"): (DENIED, "OK"),
    ("JobService.GetJob", "id", "job"): (OPEN, OPEN),
    ("JobService.ListJobEvents", "job_id", "job"): (OPEN, OPEN),
    ("JobService.WatchJob", "job_id", "job"): (OPEN, OPEN),
    ("JobService.CancelJob", "id", "job"): (DENIED, "OK"),
    ("JobService.RetryJob", "id", "job"): (DENIED, "FAILED_PRECONDITION"),
    ("JobService.ListJobs", "filter.database_id", "database"): (OPEN, OPEN),
    ("JobService.GetJobStats", "filter.database_id", "database"): (OPEN, OPEN),
    ("JobService.WatchJobs", "filter.database_id", "database"): (OPEN, OPEN),
}
# Whether a user exists is told to who shares a database with that user, and cannot be kept from them.
TOLD: Final = {("GrantService.GrantAccess", "grantee_id", "user"): "OK"}

_IDS: Final = {options_pb2.FORMAT_UUID, options_pb2.FORMAT_OWNER, options_pb2.FORMAT_USER}
_numbers = itertools.count(1)


def _fields(descriptor: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the path of each field of a request that holds ids."""
    for field in descriptor.fields:
        if field.message_type is not None:
            if field.message_type.full_name.startswith("moragmeta.") and not rules_of(field).output_only:
                yield from _fields(field.message_type, (*path, field.name))
        elif (rules_of(field).format in _IDS or field.name == "database_id") and (
            field.name == "id" or not rules_of(field).output_only
        ):
            yield (*path, field.name)


SWEPT: Final = [
    (f"{method.containing_service.name}.{method.name}", path, method)
    for method in METHODS.values()
    for path in _fields(method.input_type)
]


class Caller:
    """A tenant who calls with the ids of another."""

    def __init__(self, mine: Tenant) -> None:
        self.mine = mine
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
        options: Any = {"metadata": (("x-api-key", self.mine.user.key),), "timeout": 20}
        if not method.server_streaming:
            return str(channel.unary_unary(path, **kinds)(request, **options))
        stream: Any = channel.unary_stream(path, **kinds)(request, **options)
        frame = next(stream)
        stream.cancel()
        return f"{frame.WhichOneof('frame')} of {frame.snapshot.id}{frame.event.job_id}"


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _ids(owner: Tenant) -> dict[str, str]:
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
        "user": owner.user.id,
    }


def _fresh(owner: Tenant, ids: dict[str, str], kind: str) -> str:
    """Give a new thing of a kind that calls by a grant change, or the one that there is."""
    if kind == "document":
        return owner.document().id
    return owner.job(owner.document().id).id if kind == "job" else ids[kind]


def _sweep(owner: Tenant, other: Tenant, level: int | None) -> list[str]:
    """Call every method with every id; say which answers are not the expected ones."""
    caller, ids, wrong = Caller(other), _ids(owner), []
    for name, path, method in SWEPT:
        field = ".".join(path)
        missing = caller.answer(method, path, str(uuid.uuid4()))
        for kind in ids:
            key = (name, field, kind)
            if level is None or key not in WITH_A_GRANT:
                found = caller.answer(method, path, ids[kind])
                expected = (TOLD[key], found[1]) if key in TOLD else missing
                right = found == expected
            else:
                found = caller.answer(method, path, _fresh(owner, ids, kind))
                wanted = WITH_A_GRANT[key][level]
                right = found[0] == wanted.partition(",")[0] and (wanted != OPEN or found != missing)
                expected = (wanted, "")
            if not right:
                wrong.append(f"{name} with {kind} in {field}: {found}, expected {expected}")
    return sorted(wrong)


@pytest.fixture
def bystander(service: Service, owner: Tenant) -> User:
    """Share both databases of the owner with somebody else, which opens nothing to the other tenant."""
    somebody = service.new_user()
    for database_id in (owner.shared, owner.private):
        owner.give(somebody, WRITER, database_id=database_id)
    return somebody


@pytest.fixture
def other(service: Service) -> Tenant:
    """Give another tenant, who has one of everything as well."""
    return tenant(service)


@pytest.mark.usefixtures("bystander")
def test_what_is_not_the_callers_is_as_if_it_did_not_exist(owner: Tenant, other: Tenant) -> None:
    """Without a grant no id of one tenant makes a difference in any field of any method to the other."""
    assert _sweep(owner, other, None) == []


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("level", [READER, WRITER])
def test_a_grant_opens_what_it_says_and_no_more(owner: Tenant, other: Tenant, level: Any) -> None:
    """With a grant the answers are those of the table; all other ids of the owner still do not exist."""
    owner.give(other.user, level)
    assert _sweep(owner, other, [READER, WRITER].index(level)) == []


@pytest.mark.usefixtures("bystander")
def test_a_revoked_grant_leaves_nothing_open(owner: Tenant, other: Tenant) -> None:
    """After the grant is revoked the owner's ids are again as if they did not exist."""
    owner.give(other.user, WRITER)
    written = owner.document(by=other.user)
    owner.revoke(other.user)
    assert _sweep(owner, other, None) == []
    assert written.owner_id == owner.user.id


def test_the_sweep_reaches_every_method_that_names_an_id() -> None:
    """The table names real fields, and the methods that take no id are known."""
    assert {(name, field) for name, field, _ in WITH_A_GRANT} <= {
        (name, ".".join(path)) for name, path, _ in SWEPT
    }
    without = {name.removeprefix("moragmeta.v1.") for name in METHODS} - {name for name, _, _ in SWEPT}
    assert without == {
        "ApiKeyService.GetCurrentPrincipal",
        "ApiKeyService.VerifyApiKey",
        "UserService.RegisterUser",
        "UserService.Login",
        "UserService.RefreshToken",
        "UserService.Logout",
        "UserService.ListUsers",
        "UserService.ChangePassword",
        "UserService.RequestPasswordReset",
        "UserService.ResetPassword",
        "UserService.CreatePasswordReset",
        "UserService.TakePasswordResets",
        "WorkerService.RegisterWorker",
    }
