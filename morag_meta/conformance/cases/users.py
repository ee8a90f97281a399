"""Users: registration, roles, deactivation, deletion and settings."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import becomes_refused, missing_id
from moragmeta.v1 import databases_pb2, jobs_pb2, options_pb2, servers_pb2
from moragmeta.v1 import users_pb2 as pb

AREA = Area("users")
_ME = pb.GetUserRequest(id="me")


def _settings(bench: Bench, *paths: str, **fields: Any) -> pb.UserSettings:
    request = pb.UpdateUserSettingsRequest(settings=pb.UserSettings(**fields))
    if paths:
        request.update_mask.CopyFrom(FieldMask(paths=paths))
    return bench.mine.users.UpdateUserSettings(request)


@AREA.case
def me_is_the_caller(bench: Bench) -> None:
    """The user `me` is the caller, the same as by id."""
    me = bench.mine.users.GetUser(_ME)
    holds("a user with an email", fact="@" in me.email, seen="none")
    same("the id", me.id, bench.me.id)
    same("by id", bench.mine.users.GetUser(pb.GetUserRequest(id=me.id)).email, me.email)


@AREA.admin_case
def an_email_has_one_form(bench: Bench) -> None:
    """An email in another spelling is kept in lower case, is taken, and logs in."""
    member = bench.add_user()
    shouted = f" {member.email.upper()} "
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="user", field="email"):
        request = pb.RegisterUserRequest(name="Twin", email=shouted.strip(), password=member.password)
        bench.nobody.users.RegisterUser(request)
    session = bench.nobody.users.Login(pb.LoginRequest(email=shouted, password=member.password))
    same("who logs in", session.user.id, member.id)


@AREA.case
def a_registration_is_checked(bench: Bench) -> None:
    """A registration with a short password, no email and a name of one letter names all three."""
    request = pb.RegisterUserRequest(name="x", email="nobody", password="short")  # noqa: S106
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "name", "email", "password"):
        bench.nobody.users.RegisterUser(request)


@AREA.admin_case
def an_email_change_is_checked(bench: Bench) -> None:
    """A user's name and avatar can be changed by a key, the email not; a taken email is ALREADY_EXISTS."""
    member = bench.add_user()
    changed = member.caller.users.UpdateUser(
        pb.UpdateUserRequest(user=pb.User(id="me", name="New Name", avatar="/a.png"))
    )
    same("name and avatar", (changed.name, changed.avatar), ("New Name", "/a.png"))
    with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
        member.caller.users.UpdateUser(pb.UpdateUserRequest(user=pb.User(id="me", email=bench.me.email)))
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", field="email"):
        bench.admin.users.UpdateUser(pb.UpdateUserRequest(user=pb.User(id=member.id, email=bench.me.email)))


@AREA.admin_case
def deactivation_shuts_out(bench: Bench) -> None:
    """A deactivated user's key is UNAUTHENTICATED within 5 s, and works again after reactivation."""
    member = bench.add_user()
    changed = bench.admin.users.DeactivateUser(pb.DeactivateUserRequest(id=member.id))
    same("active", changed.active, False)
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: member.caller.users.GetUser(_ME))
    with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
        bench.login(member)
    bench.admin.users.ReactivateUser(pb.ReactivateUserRequest(id=member.id))
    same("who calls", member.caller.users.GetUser(_ME).id, member.id)


@AREA.admin_case
def a_lower_role_takes_hold(bench: Bench) -> None:
    """A user who becomes a VIEWER can write no more within 5 s, by the same key."""
    member = bench.add_user()
    server = bench.add_server(member.caller)
    bench.admin.users.SetUserRole(pb.SetUserRoleRequest(id=member.id, role=options_pb2.ROLE_VIEWER))
    request = servers_pb2.UpdateServerRequest(server=servers_pb2.Server(id=server.id, port=1))
    becomes_refused("PERMISSION_DENIED", "ROLE_TOO_LOW", lambda: member.caller.servers.UpdateServer(request))
    member.caller.servers.GetServer(servers_pb2.GetServerRequest(id=server.id))


@AREA.admin_case
def deletion_takes_everything(bench: Bench) -> None:
    """A user must be deactivated to be deleted; then the user and all rows of the user are NOT_FOUND."""
    member = bench.add_user()
    server, job = bench.add_server(member.caller), bench.add_job(member.caller)
    with refused("FAILED_PRECONDITION", "USER_ACTIVE"):
        bench.admin.users.DeleteUser(pb.DeleteUserRequest(id=member.id))
    bench.admin.users.DeactivateUser(pb.DeactivateUserRequest(id=member.id))
    bench.admin.users.DeleteUser(pb.DeleteUserRequest(id=member.id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="user"):
        bench.admin.users.GetUser(pb.GetUserRequest(id=member.id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="server"):
        bench.admin.servers.GetServer(servers_pb2.GetServerRequest(id=server.id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="job"):
        bench.admin.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))


@AREA.admin_case
def an_admin_finds_users(bench: Bench) -> None:
    """ListUsers finds users by a part of the email, the role and whether they are active."""
    text = bench.me.email.upper()
    for role, active, found in (
        (options_pb2.ROLE_USER, True, [bench.me.id]),
        (options_pb2.ROLE_VIEWER, True, []),
        (options_pb2.ROLE_USER, False, []),
    ):
        listed = bench.admin.users.ListUsers(pb.ListUsersRequest(text=text, role=role, active=active))
        same("users found", [user.id for user in listed.users], found)


@AREA.admin_case
def settings_begin_with_their_defaults(bench: Bench) -> None:
    """A new user's settings hold the defaults."""
    seen = bench.add_user().caller.users.GetUserSettings(pb.GetUserSettingsRequest())
    same(
        "theme, language, notifications, auto_save, database",
        (seen.theme, seen.language, seen.notifications, seen.auto_save, seen.default_database_id),
        (pb.THEME_LIGHT, "en", True, True, ""),
    )


@AREA.admin_case
def a_cleared_setting_has_its_default(bench: Bench) -> None:
    """A setting that the mask names and the message leaves out goes back to its default."""
    member = bench.add_user().caller.users
    chosen = pb.UserSettings(theme=pb.THEME_DARK, notifications=False)
    member.UpdateUserSettings(pb.UpdateUserSettingsRequest(settings=chosen))
    cleared = pb.UpdateUserSettingsRequest(update_mask=FieldMask(paths=["notifications"]))
    cleared.settings.SetInParent()
    after = member.UpdateUserSettings(cleared)
    same("theme and notifications", (after.theme, after.notifications), (pb.THEME_DARK, True))


@AREA.case
def the_default_database_is_ones_own(bench: Bench) -> None:
    """The default database must exist, and is unset when that database is deleted."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
        _settings(bench, default_database_id=missing_id())
    before = bench.mine.users.GetUserSettings(pb.GetUserSettingsRequest()).default_database_id
    bench.later("the default database", lambda: _settings(bench, default_database_id=before) if before else 0)
    database = bench.add_database()
    same("it is set", _settings(bench, default_database_id=database.id).default_database_id, database.id)
    bench.mine.databases.DeleteDatabase(databases_pb2.DeleteDatabaseRequest(id=database.id))
    after = bench.mine.users.GetUserSettings(pb.GetUserSettingsRequest())
    same("whether it is set", after.HasField("default_database_id"), False)


@AREA.case
def preferences_are_limited(bench: Bench) -> None:
    """Preferences of more than 16 KiB are INVALID_ARGUMENT."""
    large = Struct()
    large.update({"text": "x" * 16_384})
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "settings.preferences"):
        _settings(bench, preferences=large)
