"""Giving, changing, listing and ending grants."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.auth.sharing import Grantee, Level
from morag_meta.db.schema import database_grants
from morag_meta.errors import NotFound
from morag_meta.ids import new_id
from moragmeta.v1 import databases_pb2, documents_pb2, servers_pb2, users_pb2
from moragmeta.v1 import grants_pb2 as pb
from tests.grants.scene import READER, WRITER, Tenant, tenant
from tests.refusals import refused
from tests.service import Service, User


def _on(user: User, database_id: str) -> list[pb.Grant]:
    return list(user.channel.grants.ListGrants(pb.ListGrantsRequest(database_id=database_id)).grants)


def _to(user: User, grantee_id: str = "") -> list[pb.Grant]:
    return list(user.channel.grants.ListGrants(pb.ListGrantsRequest(grantee_id=grantee_id)).grants)


def _rows(service: Service, user_id: str) -> list[str]:
    """Give the columns of grants in which a user is named."""
    columns = [database_grants.c[name] for name in ("owner_id", "grantee_id", "grantor_id")]
    with service.database.engine.connect() as connection:
        rows = connection.execute(sa.select(*columns)).all()
    return [
        column.name for row in rows for column, value in zip(columns, row, strict=True) if value == user_id
    ]


def test_a_grant_says_what_who_and_when(owner: Tenant, friend: User) -> None:
    """A grant names database, owner, grantee, level, grantor and time."""
    grant = owner.give(friend, READER)
    ids = (grant.database_id, grant.owner_id, grant.grantee_id, grant.grantor_id)
    assert ids == (owner.shared, owner.user.id, friend.id, owner.user.id)
    assert grant.level == READER
    assert grant.create_time == grant.update_time
    assert grant.HasField("create_time")


def test_granting_again_sets_the_level(service: Service, owner: Tenant, friend: User) -> None:
    """There is one grant for a database and a user; granting again changes its level, and by whom."""
    first = owner.give(friend, READER)
    assert owner.give(friend, READER) == first
    request = pb.GrantAccessRequest(database_id=owner.shared, grantee_id=friend.id, level=WRITER)
    second = service.admin.channel.grants.GrantAccess(request)
    assert (second.level, second.grantor_id) == (WRITER, service.admin.id)
    assert second.create_time == first.create_time
    assert second.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    assert _on(owner.user, owner.shared) == [second]
    assert owner.give(friend, READER).level == READER


def test_the_owner_needs_no_grant(service: Service, owner: Tenant) -> None:
    """A grant to the database's own owner is refused, by the owner and by an ADMIN."""
    for user in (owner.user, service.admin):
        request = pb.GrantAccessRequest(database_id=owner.shared, grantee_id=owner.user.id, level=READER)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "grantee_id"):
            user.channel.grants.GrantAccess(request)


def test_a_user_must_exist(owner: Tenant, friend: User) -> None:
    """Nothing is shared with a user who does not exist."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        owner.give(friend, READER, grantee_id=new_id())
    assert refusal.metadata["resource_type"] == "user"
    assert _on(owner.user, owner.shared) == []


def test_a_level_must_be_given(owner: Tenant, friend: User) -> None:
    """A grant without a level is refused, and so is one of a level that there is not."""
    for level in (pb.GRANT_LEVEL_UNSPECIFIED, 3):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "level"):
            owner.give(friend, level)  # type: ignore[arg-type]


def test_a_revoked_grant_is_gone(owner: Tenant, friend: User) -> None:
    """Ending a grant is repeated without harm under its request id; without, there is no grant to end."""
    owner.give(friend, WRITER)
    owner.revoke(friend, request_id="end")
    owner.revoke(friend, request_id="end")
    assert _on(owner.user, owner.shared) == _to(friend) == []
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        owner.revoke(friend)
    assert refusal.metadata == {"resource_type": "grant", "resource_id": friend.id}


def test_a_repeat_does_not_give_back_what_was_revoked(owner: Tenant, friend: User) -> None:
    """The request id of a grant that was revoked meanwhile answers NOT_FOUND, and grants nothing."""
    owner.give(friend, WRITER, request_id="once")
    owner.revoke(friend)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        owner.give(friend, WRITER, request_id="once")
    assert _on(owner.user, owner.shared) == []


def test_lists_page_and_show_the_newest_first(service: Service, owner: Tenant) -> None:
    """The grants on a database, and those to a user, come page by page without loss or repetition."""
    friends = [service.new_user() for _ in range(5)]
    for each in friends:
        owner.give(each, READER)
    seen: list[str] = []
    request = pb.ListGrantsRequest(database_id=owner.shared, page_size=2)
    while True:
        page = owner.user.channel.grants.ListGrants(request)
        seen += [grant.grantee_id for grant in page.grants]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [each.id for each in reversed(friends)]
    others = [tenant(service) for _ in range(3)]
    for sharer in others:
        sharer.give(friends[0], WRITER)
    first = friends[0].channel.grants.ListGrants(pb.ListGrantsRequest(page_size=3))
    rest = friends[0].channel.grants.ListGrants(
        pb.ListGrantsRequest(page_size=3, page_token=first.next_page_token)
    )
    got = [grant.database_id for grant in (*first.grants, *rest.grants)]
    assert got == [sharer.shared for sharer in (*reversed(others), owner)]


def test_whose_grants_may_be_listed(service: Service, owner: Tenant, friend: User) -> None:
    """A user lists the own grants; only an ADMIN those of another user; not both kinds at once."""
    grant = owner.give(friend, READER)
    assert _to(friend) == _to(friend, "me") == _to(friend, friend.id) == [grant]
    assert _to(service.admin, friend.id) == _on(service.admin, owner.shared) == [grant]
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        _to(owner.user, friend.id)
    both = pb.ListGrantsRequest(database_id=owner.shared, grantee_id=friend.id)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "grantee_id"):
        owner.user.channel.grants.ListGrants(both)


def test_a_writer_cannot_share_on(owner: Tenant, friend: User, service: Service) -> None:
    """Who has a grant neither gives, ends nor lists grants on the database: an OWNER is needed."""
    owner.give(friend, WRITER)
    request = pb.GrantAccessRequest(database_id=owner.shared, grantee_id=service.admin.id, level=READER)
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW") as refusal:
        friend.channel.grants.GrantAccess(request)
    assert refusal.metadata == {"required_level": "OWNER"}
    others = pb.RevokeAccessRequest(database_id=owner.shared, grantee_id=service.admin.id)
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW"):
        friend.channel.grants.RevokeAccess(others)
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW"):
        _on(friend, owner.shared)


@pytest.mark.parametrize("server_too", [False, True])
def test_grants_go_with_the_database(owner: Tenant, friend: User, server_too: bool) -> None:
    """A database that is deleted, alone or with its server, takes its grants with it."""
    document = owner.document()
    owner.give(friend, WRITER)
    if server_too:
        request = servers_pb2.DeleteServerRequest(id=owner.server, force=True)
        owner.user.channel.servers.DeleteServer(request)
    else:
        owner.user.channel.databases.DeleteDatabase(
            databases_pb2.DeleteDatabaseRequest(id=owner.shared, force=True)
        )
    assert _to(friend) == []
    with refused("NOT_FOUND"):
        friend.channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id))


def test_grants_go_with_either_user(service: Service, owner: Tenant) -> None:
    """A deleted user leaves no grant, and is named in none as who gave it."""
    goner, stays = service.new_user(Role.ADMIN), service.new_user()
    theirs = tenant(service)
    theirs.give(goner, READER)
    request = pb.GrantAccessRequest(database_id=owner.shared, grantee_id=stays.id, level=READER)
    goner.channel.grants.GrantAccess(request)
    assert sorted(_rows(service, goner.id)) == ["grantee_id", "grantor_id"]
    for user_id in (goner.id, theirs.user.id):
        service.admin.channel.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=user_id))
        service.admin.channel.users.DeleteUser(users_pb2.DeleteUserRequest(id=user_id))
        assert _rows(service, user_id) == []
    assert [grant.grantor_id for grant in _to(stays)] == [""]


def test_nothing_is_written_after_a_revocation(service: Service, owner: Tenant, friend: User) -> None:
    """A revocation waits for a write that was begun by the grant, and none begins after it."""
    owner.give(friend, WRITER)
    document = owner.document()
    revoked, grantee = threading.Event(), Grantee(friend.id, Level.WRITER)

    def revoke() -> None:
        owner.revoke(friend)
        revoked.set()

    with service.database.unit_of_work() as uow:
        row = uow.documents.lock(friend.id, document.id, grantee)
        thread = threading.Thread(target=revoke)
        thread.start()
        assert not revoked.wait(0.5)
        uow.documents.change(row, name="changed in time")
        uow.commit()
    thread.join(30)
    assert revoked.is_set()
    with service.database.unit_of_work() as uow, pytest.raises(NotFound):
        uow.documents.lock(friend.id, document.id, grantee)
    found = owner.user.channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id))
    assert found.name == "changed in time"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER])
def test_a_grantee_gives_up_their_own_grant(service: Service, owner: Tenant, role: Role) -> None:
    """Who has a grant ends it by naming themselves; that of somebody else, or again, is not theirs to end."""
    friend, other = service.new_user(role), service.new_user()
    owner.give(friend, READER)
    owner.give(other, WRITER)
    friend.channel.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=owner.shared))
    revoke, mine = friend.channel.grants.RevokeAccess, {"database_id": owner.shared, "grantee_id": friend.id}
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW"):
        revoke(pb.RevokeAccessRequest(database_id=owner.shared, grantee_id=other.id))
    revoke(pb.RevokeAccessRequest(**mine))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        friend.channel.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=owner.shared))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        revoke(pb.RevokeAccessRequest(**mine))
    assert [grant.grantee_id for grant in _on(owner.user, owner.shared)] == [other.id]
