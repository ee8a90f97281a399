"""What the tests of the audit share: reading it as an ADMIN, once what waits is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moragmeta.v1 import audit_pb2 as pb
from tests.service import Service

Listed = Callable[..., list[pb.AuditEvent]]


@pytest.fixture
def listed(service: Service) -> Listed:
    """List all events that a filter lets through, newest first."""

    def list_(**wanted: Any) -> list[pb.AuditEvent]:
        service.on_loop(service.app.audit.flush())
        found: list[pb.AuditEvent] = []
        token = ""
        while True:
            request = pb.ListAuditEventsRequest(page_size=100, page_token=token, **wanted)
            page = service.admin.channel.audit.ListAuditEvents(request)
            found += page.audit_events
            token = page.next_page_token
            if not token:
                return found

    return list_
