"""Users over the wire: who sees whom, what changes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.auth.principal import Role
from morag_meta.users.rules import Registration
from moragmeta.v1 import options_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Service, User
from tests.users.conftest import NewPerson, Person, new_email

ADMIN_ONLY = [
    ("ListUsers", pb.ListUsersRequest()),
    ("SetUserRole", pb.SetUserRoleRequest(id="me", role=options_pb2.ROLE_ADMIN)),
    ("DeactivateUser", pb.DeactivateUserRequest(id="me")),
    ("ReactivateUser", pb.ReactivateUserRequest(id="me")),
    ("DeleteUser", pb.DeleteUserRequest(id="me")),
]


def _update(id: str = "me", *paths: str, **fields: Any) -> pb.UpdateUserRequest:
    return pb.UpdateUserRequest(user=pb.User(id=id, **fields), update_mask=FieldMask(paths=paths))


def test_one_sees_oneself_and_an_admin_sees_anybody(service: Service, user: User) -> None:
    """``me`` and the own id are the caller; another's id is what a missing id is, except to an ADMIN."""
    other = service.new_user()
    mine = user.channel.users.GetUser(pb.GetUserRequest(id="me"))
    assert mine == user.channel.users.GetUser(pb.GetUserRequest(id=user.id))
    assert mine == service.admin.channel.users.GetUser(pb.GetUserRequest(id=user.id))
    texts = set()
    for id in (other.id, "00000000-0000-7000-8000-000000000000"):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            user.channel.users.GetUser(pb.GetUserRequest(id=id))
        assert refusal.metadata == {"resource_type": "user", "resource_id": id}
        texts.add(refusal.message.replace(id, "ID"))
        with refused("NOT_FOUND"):
            user.channel.users.UpdateUser(_update(id, name="Taken Over"))
        with refused("NOT_FOUND"):
            user.channel.users.GetUserSettings(pb.GetUserSettingsRequest(owner_id=id))
    assert len(texts) == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER])
@pytest.mark.parametrize(("method", "request_"), ADMIN_ONLY)
def test_users_are_managed_by_admins_alone(service: Service, role: Role, method: str, request_: Any) -> None:
    """Whoever is not an ADMIN neither lists users nor changes anybody's standing, the own included."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW") as refusal:
        getattr(service.new_user(role).channel.users, method)(request_)
    assert refusal.metadata == {"required_role": "ADMIN"}


def test_user_changes_what_is_theirs(user: User) -> None:
    """Name and avatar change by mask or without one; a masked field that is not set is cleared."""
    users = user.channel.users
    changed = users.UpdateUser(_update("me", name="New Name", avatar="/a.png"))
    assert (changed.name, changed.avatar, changed.email) == ("New Name", "/a.png", user.email)
    only = users.UpdateUser(_update("me", "name", name="Newer Name", avatar="/ignored.png"))
    assert (only.name, only.avatar) == ("Newer Name", "/a.png")
    cleared = users.UpdateUser(_update("me", "avatar"))
    assert not cleared.HasField("avatar")
    assert cleared.etag != only.etag
    assert cleared.update_time.ToNanoseconds() > changed.update_time.ToNanoseconds()
    assert users.GetUser(pb.GetUserRequest(id="me")) == cleared


def test_admin_changes_anybody(service: Service, user: User) -> None:
    """An ADMIN changes another user by id."""
    changed = service.admin.channel.users.UpdateUser(_update(user.id, name="Renamed"))
    assert (changed.id, changed.name) == (user.id, "Renamed")


def test_changed_email_is_normalised_and_unique(service: Service, person: Person) -> None:
    """A new email is kept in its normal form; one that somebody has is refused without saying whose it is."""
    email = new_email(service)
    assert person.channel.users.UpdateUser(_update(email=email.upper())).email == email
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        service.admin.channel.users.UpdateUser(_update(service.new_user().id, email=email.title()))
    assert refusal.metadata == {"resource_type": "user", "field": "email"}


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
def test_key_does_not_become_a_session_by_way_of_an_email(service: Service, role: Role) -> None:
    """Whoever has a key alone cannot have its owner's reset sent elsewhere; the same email is no change."""
    user = service.new_user(role)
    with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
        user.channel.users.UpdateUser(_update(user.id, email=new_email(service)))
    kept = user.channel.users.UpdateUser(_update(name="New Name", email=user.email))
    assert (kept.name, kept.email) == ("New Name", user.email)


@pytest.mark.parametrize(
    "path", ["role", "active", "id", "create_time", "password_hash", "etag", "name.first"]
)
def test_mask_reaches_only_what_can_be_written(user: User, path: str) -> None:
    """Nobody becomes an ADMIN by a mask: what methods or the server set is refused in it."""
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        user.channel.users.UpdateUser(_update("me", path, role=options_pb2.ROLE_ADMIN))


def test_update_of_nothing_changes_nothing(user: User) -> None:
    """An update that names no field and holds none answers the user with the same etag."""
    users = user.channel.users
    before = users.GetUser(pb.GetUserRequest(id="me"))
    assert users.UpdateUser(_update("me")) == before
    settings = users.GetUserSettings(pb.GetUserSettingsRequest())
    assert users.UpdateUserSettings(pb.UpdateUserSettingsRequest(settings=pb.UserSettings())) == settings


def test_nobody_can_be_configured_to_register_as_admin() -> None:
    """A server whose default role is ADMIN cannot even be composed."""
    with pytest.raises(ValueError, match="ADMIN"):
        Registration(role=Role.ADMIN)


def test_output_only_fields_without_mask_are_ignored(user: User) -> None:
    """A role or activity sent without a mask changes nothing."""
    changed = user.channel.users.UpdateUser(
        _update(role=options_pb2.ROLE_ADMIN, active=False, name="Same Me")
    )
    assert (changed.role, changed.active, changed.name) == (options_pb2.ROLE_USER, True, "Same Me")


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"name": ""}, "user.name"),
        ({"name": "x"}, "user.name"),
        ({"name": "x" * 256}, "user.name"),
        ({"email": "nobody"}, "user.email"),
        ({"avatar": "x" * 501}, "user.avatar"),
        ({"avatar": "nul\x00"}, "user.avatar"),
    ],
)
def test_bad_fields_are_named(user: User, fields: dict[str, str], violation: str) -> None:
    """A value beyond its limit is INVALID_ARGUMENT with the path of its field."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        user.channel.users.UpdateUser(_update("me", *fields, **fields))


@pytest.mark.parametrize("id", ["nul\x00", "not-a-uuid", "", "x" * 10_000])
def test_bad_id_in_an_update_is_no_internal_error(service: Service, user: User, id: str) -> None:
    """An id that can be nobody's is refused as such, whatever it holds."""
    for channel in (user.channel, service.admin.channel):
        with pytest.raises(grpc.RpcError) as caught:
            channel.users.UpdateUser(_update(id, name="Somebody Else"))
        error: Any = caught.value
        assert error.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")


def test_etag_guards_every_change(service: Service, user: User) -> None:
    """A change with an old etag is ABORTED, with the present one it goes through."""
    admin = service.admin.channel.users
    old = admin.GetUser(pb.GetUserRequest(id=user.id)).etag
    new = user.channel.users.UpdateUser(_update(name="Changed", etag=old)).etag
    for call in (
        lambda: user.channel.users.UpdateUser(_update(name="Again", etag=old)),
        lambda: admin.SetUserRole(pb.SetUserRoleRequest(id=user.id, role=options_pb2.ROLE_VIEWER, etag=old)),
        lambda: admin.DeactivateUser(pb.DeactivateUserRequest(id=user.id, etag=old)),
        lambda: admin.ReactivateUser(pb.ReactivateUserRequest(id=user.id, etag=old)),
        lambda: admin.DeleteUser(pb.DeleteUserRequest(id=user.id, etag=old)),
    ):
        with refused("ABORTED", "ETAG_MISMATCH"):
            call()
    assert not admin.DeactivateUser(pb.DeactivateUserRequest(id=user.id, etag=new)).active


def test_list_is_newest_first_and_filtered(service: Service) -> None:
    """The list pages through everybody, newest first, and keeps to role, activity and text."""
    admin = service.admin.channel.users
    made = [service.new_user(role) for role in (Role.USER, Role.VIEWER, Role.USER)]
    marker = f"Mark{made[0].id[-12:]}"
    for user, name in zip(made, ("Alpha", "Beta", "Gamma"), strict=True):
        admin.UpdateUser(_update(user.id, name=f"{name} {marker}"))
    admin.DeactivateUser(pb.DeactivateUserRequest(id=made[0].id))

    def ids(**filters: Any) -> list[str]:
        found, token = [], ""
        while True:
            page = admin.ListUsers(pb.ListUsersRequest(page_size=1, page_token=token, **filters))
            found += [user.id for user in page.users]
            token = page.next_page_token
            if not token:
                return found

    oldest_first = [user.id for user in made]
    assert ids(text=marker) == oldest_first[::-1]
    assert ids(text=marker, role=options_pb2.ROLE_VIEWER) == [made[1].id]
    assert ids(text=marker, active=False) == [made[0].id]
    assert ids(text=marker, active=True, role=options_pb2.ROLE_USER) == [made[2].id]
    assert ids(text=marker.lower()) == []
    assert ids(text=made[1].email.upper()) == [made[1].id]
    assert ids(text="100%_no such") == []
    assert {user.id for user in made} < set(ids())


def test_page_token_is_bound_to_its_arguments(service: Service) -> None:
    """A token of one list is refused by another, and so is a damaged one."""
    admin = service.admin.channel.users
    service.new_user()
    token = admin.ListUsers(pb.ListUsersRequest(page_size=1)).next_page_token
    for request in (
        pb.ListUsersRequest(page_token=token, active=True),
        pb.ListUsersRequest(page_token=token[:-4] + "AAAA"),
        pb.ListUsersRequest(page_token="garbage"),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            admin.ListUsers(request)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "page_size"):
        admin.ListUsers(pb.ListUsersRequest(page_size=-1))


def test_standing_changes_are_idempotent(service: Service, new_person: NewPerson) -> None:
    """The role, activity or inactivity that a user has already changes nothing, sessions included."""
    admin, person = service.admin.channel.users, new_person()
    before = admin.GetUser(pb.GetUserRequest(id=person.id))
    assert admin.SetUserRole(pb.SetUserRoleRequest(id=person.id, role=options_pb2.ROLE_USER)) == before
    assert admin.ReactivateUser(pb.ReactivateUserRequest(id=person.id)) == before
    assert person.channel.users.GetUser(pb.GetUserRequest(id="me")) == before
    gone = admin.DeactivateUser(pb.DeactivateUserRequest(id=person.id))
    assert admin.DeactivateUser(pb.DeactivateUserRequest(id=person.id)) == gone
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "role"):
        admin.SetUserRole(pb.SetUserRoleRequest(id=person.id))


def test_repeated_request_id_answers_the_present_user(service: Service, user: User) -> None:
    """A repeat of a change answers the user as it now is, changes nothing, and says that it is a repeat."""
    admin = service.admin.channel.users
    request = pb.DeactivateUserRequest(id=user.id, request_id=f"once-{user.id}")
    admin.DeactivateUser(request)
    back = admin.ReactivateUser(pb.ReactivateUserRequest(id=user.id))
    again, call = admin.DeactivateUser.with_call(request)
    assert again == back
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
