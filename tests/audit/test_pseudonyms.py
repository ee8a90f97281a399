"""A deleted user is nobody in the audit: what was done stays, and no row of any table says by whom."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema import metadata
from moragmeta.v1 import servers_pb2, users_pb2
from tests.audit.conftest import Listed
from tests.refusals import refused
from tests.service import Service, User


def _tables_with(service: Service, text: str) -> set[str]:
    """Name the tables in which a row holds a text anywhere."""
    found = set()
    with service.database.engine.connect() as connection:
        for table in metadata.sorted_tables:
            rows = connection.execute(sa.select(table)).mappings()
            if any(text in str(dict(row)) for row in rows):
                found.add(table.name)
    return found


def test_deletion_leaves_what_was_done_and_takes_who_did_it(service: Service, listed: Listed) -> None:
    """The user's id and email stand nowhere any more; the pseudonym still holds the events together."""
    goner = service.new_user()
    server = servers_pb2.Server(name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    made = goner.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        goner.channel.users.ListUsers(users_pb2.ListUsersRequest())
    (before,) = listed(target_id=made.id)
    admin = service.admin.channel.users
    admin.DeactivateUser(users_pb2.DeactivateUserRequest(id=goner.id))
    admin.DeleteUser(users_pb2.DeleteUserRequest(id=goner.id, request_id="delete-once"))
    with refused("NOT_FOUND"):
        admin.DeleteUser(users_pb2.DeleteUserRequest(id=goner.id))
    (after,) = listed(target_id=made.id)
    assert after.subject == after.owner == before.subject
    assert (before.subject_user_id, after.subject_user_id, after.owner_user_id) == (goner.id, "", "")
    assert len(listed(subject=before.subject)) == 2
    assert [event.event for event in listed(target_id=before.subject)] == ["user.delete", "user.deactivate"]
    assert listed(subject_user_id=goner.id) == []
    for text in (goner.id, goner.email):
        assert _tables_with(service, text) == set()


def test_a_living_user_is_found_by_that_scan(service: Service, user: User) -> None:
    """The scan finds a user who is there, and of the audit only the row of the pseudonym."""
    found = _tables_with(service, user.id)
    assert {"users", "audit_subjects"} <= found
    assert "audit_events" not in found


def test_every_user_has_a_pseudonym_of_their_own(service: Service) -> None:
    """However a user comes to be, a random pseudonym comes with it."""
    ids = [service.new_user().id for _ in range(2)]
    with service.database.unit_of_work() as uow:
        first, second = map(uow.audit.pseudonym, ids)
    assert len(first) == len(second) == 32
    assert first != second
