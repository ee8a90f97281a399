"""The audit: a change leaves one event with who, what and how, and nobody but an ADMIN reads it."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from moragmeta.v1 import audit_pb2 as pb
from moragmeta.v1 import documents_pb2

AREA = Area("audit")


def _of(bench: Bench, target_id: str) -> list[pb.AuditEvent]:
    request = pb.ListAuditEventsRequest(target_id=target_id)
    return list(bench.admin.audit.ListAuditEvents(request).audit_events)


@AREA.admin_case
def a_change_leaves_one_event(bench: Bench) -> None:
    """A new document is one event, which says what happened, that it succeeded and who did it."""
    document = bench.add_document()
    events = _of(bench, document.id)
    same("events of the new document", [event.event for event in events], ["document.create"])
    same("the outcome", events[0].outcome, "OK")
    same("who did it", events[0].subject_user_id, bench.me.id)
    same("the kind of the target", events[0].target_kind, "document")


@AREA.admin_case
def changes_are_listed_newest_first(bench: Bench) -> None:
    """What was done to a document is listed newest first, or oldest first where that is asked for."""
    document = bench.add_document()
    bench.mine.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    events = [event.event for event in _of(bench, document.id)]
    same("events of the document", events, ["document.delete", "document.create"])
    request = pb.ListAuditEventsRequest(target_id=document.id, order_by="time")
    oldest_first = bench.admin.audit.ListAuditEvents(request).audit_events
    same("events, oldest first", [event.event for event in oldest_first], list(reversed(events)))


@AREA.case
def the_audit_is_an_admin_s(bench: Bench) -> None:
    """A USER may not list the audit, not even what the user did."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        bench.mine.audit.ListAuditEvents(pb.ListAuditEventsRequest(subject_user_id="me"))
