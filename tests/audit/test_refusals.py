"""What is refused stands in the audit too: of whom, for which reason, and how often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import structlog

from morag_meta.audit.rules import Entry, is_kept
from morag_meta.audit.store import Filter
from morag_meta.audit.writer import AuditWriter
from morag_meta.auth.passwords import hash_password
from morag_meta.db.database import Database
from moragmeta.v1 import api_keys_pb2, servers_pb2, users_pb2
from moragmeta.v1 import audit_pb2 as pb
from tests.audit.conftest import Listed
from tests.refusals import refused
from tests.service import Service, User

PASSWORD = "correct horse battery"


@contextlib.contextmanager
def _nothing_written(service: Service) -> Iterator[None]:
    """Have the server write none of what is noted for the length of a block."""
    flushing: asyncio.Lock = service.app.audit._flushing  # noqa: SLF001 - as a batch under way has it

    async def release() -> None:
        flushing.release()

    service.on_loop(flushing.acquire())
    yield
    service.on_loop(release())


def test_denials_are_counted_in_one_event(service: Service, user: User, listed: Listed) -> None:
    """Three equal denials of a method without an audit of its own are one event that says so."""
    with _nothing_written(service):
        for _ in range(3):
            with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
                user.channel.users.ListUsers(users_pb2.ListUsersRequest())
    (event,) = listed(subject_user_id=user.id, outcome="PERMISSION_DENIED")
    assert (event.event, event.method) == ("call.refuse", "UserService.ListUsers")
    assert (event.reason, event.count) == ("ROLE_TOO_LOW", 3)
    assert event.credential_id == user.key_id


def test_failed_log_in_names_the_account_where_there_is_one(service: Service, listed: Listed) -> None:
    """The client is not told whether the email is known; the audit tells whose account was tried."""
    person = service.new_user(password_hash=hash_password(PASSWORD, 4))
    anybody = service.channel()
    before = len(listed(event="session.open", outcome="UNAUTHENTICATED"))
    for email in (person.email, "nobody@nowhere.test"):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
            anybody.users.Login(users_pb2.LoginRequest(email=email, password="wrong horse battery"))
    failed = listed(event="session.open", outcome="UNAUTHENTICATED")
    assert len(failed) == before + 2
    assert {event.subject_user_id for event in failed[:2]} == {person.id, ""}
    assert all(event.actor == pb.AUDIT_ACTOR_PUBLIC for event in failed[:2])
    assert "wrong horse" not in str(failed)
    assert person.email not in str(failed)


def test_log_in_tells_which_session_it_opened(service: Service, listed: Listed) -> None:
    """The session that a log-in opens is its target, and what is done with it carries its id."""
    person = service.new_user(password_hash=hash_password(PASSWORD, 4))
    login = users_pb2.LoginRequest(email=person.email, password=PASSWORD)
    answer = service.channel().users.Login(login)
    with_session = service.channel(token=answer.access_token)
    with_session.users.UpdateUser(users_pb2.UpdateUserRequest(user=users_pb2.User(id="me", name="New Name")))
    updated, opened = listed(subject_user_id=person.id)
    assert (opened.event, opened.target_kind) == ("session.open", "session")
    assert (updated.event, updated.actor) == ("user.update", pb.AUDIT_ACTOR_SESSION)
    assert updated.credential_id == opened.target_id
    assert listed(credential_id=opened.target_id) == [updated]
    assert dict(updated.fields.items()) == {"user.id": None}


def test_a_key_that_no_longer_stands_tells_whose_it_was(service: Service, listed: Listed) -> None:
    """The client is told no more than that the key is not valid; the audit tells which key of whom it is."""
    former = service.new_user()
    service.admin.channel.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=former.key_id))
    for _ in range(2):
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            former.channel.servers.GetServer(servers_pb2.GetServerRequest(id=former.id))
    found = listed(credential_id=former.key_id)
    assert {event.subject_user_id for event in found} == {former.id}
    assert sum(event.count for event in found) == 2
    assert {event.reason for event in found} == {"CREDENTIAL_INVALID"}


def test_garbage_leaves_nothing(service: Service, listed: Listed) -> None:
    """Who is nobody and sends nothing that could be somebody's fills no table."""
    before = len(listed(outcome="UNAUTHENTICATED"))
    with refused("UNAUTHENTICATED", "CREDENTIAL_MISSING"):
        service.channel().servers.GetServer(servers_pb2.GetServerRequest(id="x"))
    assert len(listed(outcome="UNAUTHENTICATED")) == before


def test_what_is_kept_of_failures() -> None:
    """Refusals of known users are always kept, other failures of changes, and passing troubles never."""
    assert is_kept("PERMISSION_DENIED", recorded=False, known=True, public=False)
    assert is_kept("NOT_FOUND", recorded=True, known=True, public=False)
    assert is_kept("UNAUTHENTICATED", recorded=True, known=False, public=True)
    assert not is_kept("UNAUTHENTICATED", recorded=True, known=False, public=False)
    assert not is_kept("NOT_FOUND", recorded=False, known=True, public=False)
    assert not is_kept("UNAVAILABLE", recorded=True, known=True, public=False)


async def test_what_exceeds_the_bound_is_dropped_counted_and_logged(service: Service) -> None:
    """A flood of different entries keeps the first ones and says how many are lost."""
    writer = AuditWriter(service.database, most=2)
    for number in range(5):
        writer.note(Entry(event="flood.try", method=f"Flood.Try{number}", outcome="NOT_FOUND"))
    writer.note(Entry(event="flood.try", method="Flood.Try0", outcome="NOT_FOUND"))
    with structlog.testing.capture_logs() as logs:
        await writer.flush()
    assert writer.dropped == 3
    assert [line["entries"] for line in logs if line["log_level"] == "error"] == [3]
    with service.database.unit_of_work() as uow:
        rows = uow.audit.page(Filter(event="flood.try"), None, 10)
    assert sorted(row["count"] for row in rows)[-2:] == [1, 2]


async def test_what_cannot_be_written_is_written_later(service: Service) -> None:
    """Entries noted while the database takes nothing come with the next batch, once."""
    closed = Database.open(service.url)
    closed.close()
    writer = AuditWriter(closed)
    writer.note(Entry(event="late.try", method="Late.Try", outcome="NOT_FOUND"))
    await writer.flush()
    writer._database = service.database  # noqa: SLF001 - the database comes back
    await asyncio.gather(writer.flush(), writer.flush())
    await writer.flush()
    with service.database.unit_of_work() as uow:
        assert len(uow.audit.page(Filter(event="late.try"), None, 10)) == 1
