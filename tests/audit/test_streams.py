"""A stream that is kept leaves one row however it ends, since what it showed has been seen."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from morag_meta.rpc.streams import draining
from morag_meta.rpc.structs import json_to_struct
from moragmeta.v1 import audit_pb2 as pb
from moragmeta.v1 import documents_pb2, exports_pb2, jobs_pb2
from tests.audit.conftest import Listed
from tests.refusals import refused
from tests.service import Service, User
from tests.users.conftest import NewPerson, new_person

__all__ = ["new_person"]

_LARGE = "x" * 15_000


def _fill(user: Any) -> None:
    """Register more than a connection takes before its reader reads."""
    metadata = json_to_struct({"text": _LARGE})
    for _ in range(3):
        requests = [
            documents_pb2.CreateDocumentRequest(
                document=documents_pb2.Document(name=uuid.uuid4().hex, type="txt", metadata=metadata)
            )
            for _ in range(100)
        ]
        user.channel.documents.BatchCreateDocuments(
            documents_pb2.BatchCreateDocumentsRequest(requests=requests)
        )


def _rows(listed: Listed, user_id: str, event: str = "user.export_data") -> list[pb.AuditEvent]:
    """Give what is kept of a user's exports, once there is something."""
    end = time.monotonic() + 10
    while not (found := listed(subject_user_id=user_id, event=event)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _begun(person: Any) -> Any:
    """Begin an export and take its first frame."""
    stream = person.channel.exports.ExportUserData(exports_pb2.ExportUserDataRequest())
    assert next(stream).table == "users"
    return stream


def test_an_export_whose_client_leaves_is_kept(new_person: NewPerson, listed: Listed) -> None:
    """Whoever takes the first frame and hangs up has read it, and the audit says so."""
    person = new_person()
    _fill(person)
    _begun(person).cancel()
    (event,) = _rows(listed, person.id)
    assert (event.outcome, event.reason) == ("CANCELLED", "")
    assert (event.target_user_id, event.method) == (person.id, "ExportService.ExportUserData")


def test_an_export_that_the_service_ends_is_kept(
    service: Service, new_person: NewPerson, listed: Listed
) -> None:
    """So is one that a restart breaks off, which a refusal for that reason is not."""
    person = new_person()
    _fill(person)
    stream = _begun(person)

    async def end() -> None:
        service.app._streams.end_all(draining)  # noqa: SLF001 - as at a restart

    service.on_loop(end())
    with refused("UNAVAILABLE", "SERVER_DRAINING"):
        list(stream)
    (event,) = _rows(listed, person.id)
    assert (event.outcome, event.reason) == ("UNAVAILABLE", "SERVER_DRAINING")


def test_a_whole_export_is_kept_once(new_person: NewPerson, listed: Listed) -> None:
    """One row, with the outcome OK."""
    person = new_person()
    list(_begun(person))
    (event,) = _rows(listed, person.id)
    assert (event.outcome, event.count) == ("OK", 1)


@pytest.mark.parametrize("ends", [True, False])
def test_a_watcher_leaves_nothing(service: Service, user: User, listed: Listed, ends: bool) -> None:
    """A stream that declares no row leaves none, whether its client or the service ends it."""
    stream = user.channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(include_snapshot=True))
    next(stream)
    if ends:

        async def end() -> None:
            service.app._streams.end_all(draining)  # noqa: SLF001 - as at a restart

        service.on_loop(end())
        with refused("UNAVAILABLE", "SERVER_DRAINING"):
            list(stream)
    stream.cancel()
    service.wait_for_places(user, 0)
    assert listed(subject_user_id=user.id) == []
