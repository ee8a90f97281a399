"""Events of the audit between rows and messages."""

from __future__ import annotations

from typing import Any, Final

from morag_meta.audit.store import Filter
from morag_meta.db.unit import Row
from morag_meta.rpc.structs import json_to_struct
from morag_meta.rpc.times import from_timestamp, to_timestamp
from moragmeta.v1 import audit_pb2 as pb

_ACTOR: Final = "AUDIT_ACTOR_"
_SAME: Final = (
    *("id", "count", "event", "method", "outcome", "reason", "subject", "credential_id", "address", "agent"),
    *("target_kind", "target_id", "owner", "request_id"),
)
_KNOWN: Final = ("subject_user_id", "target_user_id", "owner_user_id")


def event_to_proto(row: Row) -> pb.AuditEvent:
    """Give an event's message."""
    same: dict[str, Any] = {name: row[name] for name in _SAME} | {name: row[name] or "" for name in _KNOWN}
    return pb.AuditEvent(
        time=to_timestamp(row["time"]),
        actor=pb.AuditActor.Value(_ACTOR + row["actor"]),
        fields=json_to_struct(row["fields"]),
        **same,
    )


def filter_from_proto(request: pb.ListAuditEventsRequest, subject: str, target_id: str) -> Filter:
    """Give the filter that a request sets; users stand in it by the pseudonyms given."""
    return Filter(
        start_time=from_timestamp(request.start_time) if request.HasField("start_time") else None,
        end_time=from_timestamp(request.end_time) if request.HasField("end_time") else None,
        subject=subject,
        credential_id=request.credential_id,
        event=request.event,
        target_id=target_id,
        outcome=request.outcome,
    )
