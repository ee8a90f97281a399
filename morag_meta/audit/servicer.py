"""AuditService: what was done, shown to an ADMIN.

Rows are written elsewhere: with each change by ``rpc/trail.py``, and all others by ``audit/writer.py``.
"""

from __future__ import annotations

from typing import Final

from morag_meta.audit.convert import event_to_proto, filter_from_proto
from morag_meta.errors import invalid
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import reads
from morag_meta.rpc.pages import Pages
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import audit_pb2 as pb

_ORDERS: Final = {"": True, "time desc": True, "time": False}


class AuditServicer:
    """The audit; see ``protos/moragmeta/v1/audit.proto``."""

    SERVICE = "moragmeta.v1.AuditService"

    def __init__(self, pages: Pages) -> None:
        """Take what seals page tokens."""
        self._pages = pages

    @reads()
    def ListAuditEvents(
        self, uow: UnitOfWork, request: pb.ListAuditEventsRequest, call: Call
    ) -> pb.ListAuditEventsResponse:
        descending = _ORDERS.get(request.order_by)
        if descending is None:
            raise invalid("order_by", "is neither 'time desc' nor 'time'")
        if request.subject and request.subject_user_id:
            raise invalid("subject", "names a user together with subject_user_id; give one of them")
        subject = request.subject
        if request.subject_user_id:
            user_id = call.own if request.subject_user_id == "me" else request.subject_user_id
            subject = uow.audit.pseudonym(user_id)
            if not subject:
                return pb.ListAuditEventsResponse()  # nobody is known by that id any more
        target = request.target_id and (uow.audit.pseudonym(request.target_id) or request.target_id)
        wanted = filter_from_proto(request, subject, target)
        page = self._pages.page(
            call,
            request,
            keys=("time", "id"),
            fetch=lambda after, limit: uow.audit.page(wanted, after, limit, descending=descending),
            convert=event_to_proto,
        )
        return pb.ListAuditEventsResponse(audit_events=page.items, next_page_token=page.next_token)
