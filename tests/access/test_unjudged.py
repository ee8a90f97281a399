"""What nobody judges: what only the server sets or stands outside a mask, and all that a refused call sends.

Each field of each RPC is found in the descriptors and holds, one after the other, what a database or a
message does not take. It is sent by who may call and by who is refused, and after it the audit takes more.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from moragmeta.v1 import audit_pb2 as pb
from moragmeta.v1 import servers_pb2, users_pb2
from tests.access.credentials import Metadata
from tests.access.estate import REQUESTS, Estate
from tests.access.stage import BY_NAME, Stage
from tests.access.table import ROWS, Row
from tests.access.test_injection import CLIENTS_FAULT
from tests.refusals import refused
from tests.rpc.messages import rules_of

pytestmark = pytest.mark.usefixtures("nothing_collected")

Path = tuple[FieldDescriptor, ...]

_ODD: Final[dict[int, tuple[Any, ...]]] = {
    FieldDescriptor.TYPE_STRING: ("\0", "\x1b\u202e\U0010ffff" * 20_000),
    FieldDescriptor.TYPE_DOUBLE: (math.nan, -math.inf, 1e308),
    FieldDescriptor.TYPE_INT32: (-(2**31),),
    FieldDescriptor.TYPE_INT64: (2**63 - 1, -(2**63)),
    FieldDescriptor.TYPE_ENUM: (2**31 - 1,),
}
_OURS: Final = ("moragmeta.", "google.protobuf.Timestamp", "google.protobuf.Duration")
_NAMED: Final = ("id", "owner_id", "etag")  # of what is changed, and in which state


def _paths(message: Descriptor) -> Iterator[Path]:
    """Give the path of each number, enum and text of a request, in lists those of the first item."""
    for field in message.fields:
        inner: Any = field.message_type
        if field.type in _ODD:
            yield (field,)
        elif inner is not None and inner.full_name.startswith(_OURS) and "entry" not in inner.name.lower():
            yield from ((field, *rest) for rest in _paths(inner))


def _put(request: Any, path: Path, value: Any) -> None:
    for field in path[:-1]:
        inner = getattr(request, field.name)
        request = (inner or [inner.add()])[0] if field.is_repeated else inner
    if path[-1].is_repeated:
        getattr(request, path[-1].name)[:] = [value]
    else:
        setattr(request, path[-1].name, value)


def _is_judged(request: Any, path: Path) -> bool:
    """Whether a field has rules in this request, or says what is to be changed."""
    mask = getattr(request, "update_mask", None)
    for place, field in enumerate(path):
        names_it = mask is not None and place == 1 and field.name in _NAMED
        if rules_of(field).output_only and not names_it:
            return False
        if mask is not None and place == 1 and not names_it and field.name not in mask.paths:
            return False
    return True


def _code(stage: Stage, title: str, request: Any, metadata: Metadata) -> str:
    try:
        stage.answer(BY_NAME[ROWS[title].method], request, metadata)
    except grpc.RpcError as error:
        known: Any = error
        return str(known.code().name)
    return "OK"


class Sender:
    """Sends requests of one line of the table, each with one odd field."""

    def __init__(self, stage: Stage, estate: Estate, row: Row) -> None:
        self._stage, self._estate, self._row = stage, estate, row
        self._valid: Any = None
        self.wrong: list[str] = []

    def send(self, path: Path, value: Any, metadata: Metadata | None) -> None:
        """Send one, with a credential, or as who may make the call."""
        may = metadata is None
        if self._valid is None:
            self._valid = REQUESTS[self._row.title](self._estate)
            if "update_mask" in self._valid.DESCRIPTOR.fields_by_name and not self._valid.update_mask.paths:
                resource = self._valid.DESCRIPTOR.fields[0].name
                written = [field.name for field, _ in getattr(self._valid, resource).ListFields()]
                self._valid.update_mask.paths[:] = [name for name in written if name not in _NAMED]
            self._own = self._stage.owns(self._estate, self._row)
        request = type(self._valid)()
        request.CopyFrom(self._valid)
        _put(request, path, value)
        code = _code(self._stage, self._row.title, request, self._own if metadata is None else metadata)
        if code == "OK" and not BY_NAME[self._row.method].GetOptions().idempotency_level:
            self._valid = None  # it is done
        right = {"OK", *CLIENTS_FAULT} if not may or _is_judged(request, path) else {"OK"}
        if code not in right:
            name = ".".join(field.name for field in path)
            self.wrong.append(f"{str(value)[:20]!r} in {name} is {code}")


@pytest.mark.parametrize("title", ROWS)
def test_what_nobody_judges_is_harmless(stage: Stage, estate: Estate, title: str) -> None:
    """It is carried out as if it were not there, refused as the client's fault, and never mutes the audit."""
    row = ROWS[title]
    sender = Sender(stage, estate, row)
    callers: list[Metadata | None] = [None]
    if not row.is_public:
        callers += [stage.works("VIEWER", row, with_key=True), stage.scoped(row, "audit:read")]
    for path in _paths(BY_NAME[row.method].input_type):
        for value in _ODD[path[-1].type]:
            for metadata in callers:
                sender.send(path, value, metadata)
    assert not sender.wrong, "\n".join(sender.wrong)
    _takes_more(stage, estate)


def _takes_more(stage: Stage, estate: Estate) -> None:
    """See that the audit has dropped nothing, and takes what is denied and what fails from now on."""
    service, missing = stage.service, str(uuid.uuid4())
    with refused("NOT_FOUND"):
        estate.user.channel.servers.DeleteServer(servers_pb2.DeleteServerRequest(id=missing))
    with refused("PERMISSION_DENIED"):
        estate.user.channel.users.DeleteUser(users_pb2.DeleteUserRequest(id=missing))
    service.on_loop(service.app.audit.flush())
    assert service.app.audit.dropped == 0
    request = pb.ListAuditEventsRequest(credential_id=estate.user.key_id, page_size=2)
    denied, failed = service.admin.channel.audit.ListAuditEvents(request).audit_events
    assert (denied.event, denied.outcome) == ("user.delete", "PERMISSION_DENIED")
    assert (failed.event, failed.outcome, failed.target_id) == ("server.delete", "NOT_FOUND", missing)


@pytest.fixture(scope="module")
def estate(stage: Stage) -> Estate:
    """Give somebody whose requests hold such things."""
    return Estate(stage.service, {})
