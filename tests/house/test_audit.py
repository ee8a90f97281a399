"""Every change is declared to the audit, no secret is let into it, and nothing changes what it holds."""

from __future__ import annotations

import gc
import re

import pytest
import sqlalchemy as sa
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from morag_meta.audit import store
from morag_meta.audit.declaration import declaration_of
from morag_meta.db.schema import audit_events, audit_subjects
from morag_meta.rpc.access import SERVICES, service
from moragmeta.v1 import options_pb2

METHODS = [method for name in SERVICES for method in service(name).methods]

# What a worker does many times in each job. Each change of a job is an event of the job, with its worker.
UNRECORDED = {"UpdateJobProgress", "HeartbeatJob", "LeaseJobs"}
_SECRET = re.compile(r"(^|_)(password|secret|lease_token|refresh_token|access_token|email|avatar|username)$")


def _is_read(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)


def test_every_method_that_changes_something_declares_its_event() -> None:
    """No change without an event, of the form `<noun>.<verb>`, and no two methods share one."""
    declared = {method.name: declaration_of(method) for method in METHODS}
    assert [m.full_name for m in METHODS if not _is_read(m) and declared[m.name] is None] == []
    events = [each.event for each in declared.values() if each is not None]
    assert [event for event in events if not re.fullmatch("[a-z_]{1,32}[.][a-z_]{1,31}", event)] == []
    assert len(events) == len(set(events)) > 30


def test_only_what_workers_repeat_within_a_job_is_not_kept() -> None:
    """The list is short, and each of them says in the proto why."""
    unrecorded = {m.name for m in METHODS if (found := declaration_of(m)) and not found.recorded}
    assert unrecorded == UNRECORDED


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_declared_places_are_there(method: MethodDescriptor) -> None:
    """What an option names as the target's id is a text of the request or of the response."""
    declared = declaration_of(method)
    if declared is None:
        return
    for path, top in ((declared.target, method.input_type), (declared.made, method.output_type)):
        field = _field_at(top, path) if path else None
        assert field is None or (field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated)


def _field_at(message: Descriptor, path: str) -> FieldDescriptor:
    name, _, rest = path.partition(".")
    field = message.fields_by_name[name]
    return _field_at(field.message_type, rest) if rest and field.message_type is not None else field


def _fields(message: Descriptor, seen: set[str]) -> list[FieldDescriptor]:
    if message.full_name in seen or not message.full_name.startswith("moragmeta."):
        return []
    seen.add(message.full_name)
    found = list(message.fields)
    for field in message.fields:
        if field.message_type is not None:
            found += _fields(field.message_type, seen)
    return found


def test_secrets_and_personal_data_are_redacted() -> None:
    """Each text or bytes field of that kind of name carries the option."""
    seen: set[str] = set()
    fields = [f for m in METHODS for top in (m.input_type, m.output_type) for f in _fields(top, seen)]
    texts = [f for f in fields if f.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)]
    secret = [field for field in texts if _SECRET.search(field.name)]
    bare = [f.full_name for f in secret if not f.GetOptions().Extensions[options_pb2.redacted]]
    assert len(secret) > 15
    assert bare == []


def test_no_statement_changes_an_event() -> None:
    """Of all statements of the service one removes events, by their age, and none changes any."""
    wrong: list[str] = []
    removals: list[str] = []
    for statement in gc.get_objects():
        if not isinstance(statement, sa.Update | sa.Delete):
            continue
        if statement.table is audit_subjects and isinstance(statement, sa.Update):
            wrong.append(str(statement))
        if statement.table is audit_events:
            (removals if isinstance(statement, sa.Delete) else wrong).append(str(statement))
    assert wrong == []
    assert removals == [str(store._SWEEP)]  # noqa: SLF001 - the one that there is
    assert "audit_events.time <=" in removals[0]
