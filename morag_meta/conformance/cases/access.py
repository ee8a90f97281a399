"""Who is let in, what a role and a scope allow, and that what is another's does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import Caller
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import Refusal, holds, refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    jobs_pb2,
    options_pb2,
    servers_pb2,
    users_pb2,
)

AREA = Area("access")
_ME = users_pb2.GetUserRequest(id="me")


def _same_as_missing(kind: str, id_: str, call: Callable[[str], Any]) -> None:
    """Expect what is another's to be refused in the same words as what is not there."""
    none = missing_id()
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type=kind, resource_id=none) as missing:
        call(none)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type=kind, resource_id=id_) as foreign:
        call(id_)

    def words(refusal: Refusal) -> tuple[str, list[str]]:
        return refusal.message.replace(id_, none), sorted(refusal.metadata)

    same("what is said of another's", words(foreign), words(missing))


@AREA.case
def no_credential_is_unauthenticated(bench: Bench) -> None:
    """A call without a credential is UNAUTHENTICATED."""
    with refused("UNAUTHENTICATED", "CREDENTIAL_MISSING"):
        bench.nobody.users.GetUser(_ME)


@AREA.case
def a_wrong_credential_is_unauthenticated(bench: Bench) -> None:
    """A key that does not exist and a token that is none are UNAUTHENTICATED."""
    for caller in (bench.keyed("morag_" + "A" * 43), bench.keyed("x"), bench.bearer("a.b.c")):
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            caller.users.GetUser(_ME)


@AREA.case
def a_key_is_taken_as_bearer_too(bench: Bench) -> None:
    """An API key is accepted as `authorization: Bearer` as well."""
    user = bench.bearer(bench.me.secret).users.GetUser(_ME)
    same("who calls", (user.id, user.email), (bench.me.id, bench.me.email))
    holds("a user", fact=bool(user.id), seen="nobody")


@AREA.case
def a_credential_comes_before_the_fields(bench: Bench) -> None:
    """Whoever is not let in learns nothing of what is wrong with the request."""
    with refused("UNAUTHENTICATED", "CREDENTIAL_MISSING"):
        bench.nobody.servers.GetServer(servers_pb2.GetServerRequest(id="wrong"))


@AREA.admin_case
def another_ones_server_does_not_exist(bench: Bench) -> None:
    """Another user's server is NOT_FOUND in the words of a missing one, to get, change and delete."""
    server, others = bench.add_server(), bench.other.caller.servers
    _same_as_missing("server", server.id, lambda id_: others.GetServer(servers_pb2.GetServerRequest(id=id_)))
    _same_as_missing(
        "server",
        server.id,
        lambda id_: others.UpdateServer(
            servers_pb2.UpdateServerRequest(server=servers_pb2.Server(id=id_, port=1))
        ),
    )
    delete = servers_pb2.DeleteServerRequest
    _same_as_missing("server", server.id, lambda id_: others.DeleteServer(delete(id=id_, force=True)))


@AREA.admin_case
def another_ones_database_does_not_exist(bench: Bench) -> None:
    """Another user's database is NOT_FOUND, and nothing can be created in it or on another's server."""
    database, other = bench.add_database(), bench.other.caller
    get = databases_pb2.GetDatabaseRequest
    _same_as_missing("database", database.id, lambda id_: other.databases.GetDatabase(get(id=id_)))
    _same_as_missing("database", database.id, lambda id_: bench.add_document(other, database_id=id_))
    _same_as_missing("server", database.server_id, lambda id_: bench.add_database(other, server_id=id_))


@AREA.admin_case
def another_ones_document_does_not_exist(bench: Bench) -> None:
    """Another user's document is NOT_FOUND, and missing from what is got by many ids."""
    document, others = bench.add_document(), bench.other.caller.documents
    get, delete = documents_pb2.GetDocumentRequest, documents_pb2.DeleteDocumentRequest
    _same_as_missing("document", document.id, lambda id_: others.GetDocument(get(id=id_)))
    _same_as_missing("document", document.id, lambda id_: others.DeleteDocument(delete(id=id_)))
    found = others.BatchGetDocuments(documents_pb2.BatchGetDocumentsRequest(ids=[document.id]))
    same("the missing ids", list(found.missing_ids), [document.id])


@AREA.admin_case
def another_ones_job_does_not_exist(bench: Bench) -> None:
    """Another user's job is NOT_FOUND, to get, start, cancel, and to list its events."""
    job, others = bench.add_job(), bench.other.caller.jobs
    _same_as_missing("job", job.id, lambda id_: others.GetJob(jobs_pb2.GetJobRequest(id=id_)))
    _same_as_missing("job", job.id, lambda id_: others.StartJob(jobs_pb2.StartJobRequest(id=id_)))
    _same_as_missing("job", job.id, lambda id_: others.CancelJob(jobs_pb2.CancelJobRequest(id=id_)))
    events = jobs_pb2.ListJobEventsRequest
    _same_as_missing("job", job.id, lambda id_: others.ListJobEvents(events(job_id=id_)))


@AREA.admin_case
def another_ones_key_does_not_exist(bench: Bench) -> None:
    """Another user's API key is NOT_FOUND, to get and to revoke."""
    key_id, _ = bench.add_key()
    others = bench.other.caller.api_keys
    get, revoke = api_keys_pb2.GetApiKeyRequest, api_keys_pb2.RevokeApiKeyRequest
    _same_as_missing("api_key", key_id, lambda id_: others.GetApiKey(get(id=id_)))
    _same_as_missing("api_key", key_id, lambda id_: others.RevokeApiKey(revoke(id=id_)))


@AREA.admin_case
def another_user_does_not_exist(bench: Bench) -> None:
    """For a USER another user is NOT_FOUND, settings included."""
    users = bench.other.caller.users
    settings = users_pb2.GetUserSettingsRequest
    _same_as_missing("user", bench.me.id, lambda id_: users.GetUser(users_pb2.GetUserRequest(id=id_)))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        users.GetUserSettings(settings(owner_id=bench.me.id))


@AREA.admin_case
def lists_show_the_callers_rows_alone(bench: Bench) -> None:
    """A list shows the caller's rows and nobody else's."""
    server = bench.add_server()
    request = servers_pb2.ListServersRequest(name_contains=server.name)
    same("what I see", [each.id for each in bench.mine.servers.ListServers(request).servers], [server.id])
    same("what another sees", list(bench.other.caller.servers.ListServers(request).servers), [])


@AREA.admin_case
def only_an_admin_names_another_owner(bench: Bench) -> None:
    """A USER that names another owner, or `-`, in a list or a create is PERMISSION_DENIED."""
    for owner in (bench.other.id, "-"):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            bench.mine.servers.ListServers(servers_pb2.ListServersRequest(owner_id=owner))
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        request = servers_pb2.CreateServerRequest(server=bench.a_server(), owner_id=bench.other.id)
        bench.mine.servers.CreateServer(request)


@AREA.admin_case
def an_admin_reaches_every_row(bench: Bench) -> None:
    """An ADMIN lists one owner's rows or everybody's, gets them, and creates for another user."""
    server = bench.add_server()
    for owner in (bench.me.id, "-"):
        request = servers_pb2.ListServersRequest(owner_id=owner, name_contains=server.name)
        listed = bench.admin.servers.ListServers(request).servers
        same(f"servers listed for {owner!r}", [each.id for each in listed], [server.id])
    same("the server", bench.admin.servers.GetServer(servers_pb2.GetServerRequest(id=server.id)), server)
    asked = servers_pb2.CreateServerRequest(server=bench.a_server(), owner_id=bench.me.id)
    same("the owner of what it creates", bench.admin.servers.CreateServer(asked).owner_id, bench.me.id)


@AREA.admin_case
def a_create_for_nobody_is_not_found(bench: Bench) -> None:
    """A create for an owner who does not exist is NOT_FOUND."""
    request = servers_pb2.CreateServerRequest(server=bench.a_server(), owner_id=missing_id())
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="user"):
        bench.admin.servers.CreateServer(request)


@AREA.admin_case
def a_viewer_changes_nothing(bench: Bench) -> None:
    """A VIEWER may read, and is PERMISSION_DENIED where something would change."""
    viewer = bench.add_user(options_pb2.ROLE_VIEWER).caller
    same(
        "servers of a VIEWER", list(viewer.servers.ListServers(servers_pb2.ListServersRequest()).servers), []
    )
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW", required_role="USER"):
        bench.add_server(viewer)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW", required_role="USER"):
        bench.add_job(viewer)


@AREA.admin_case
def a_user_does_not_manage_users(bench: Bench) -> None:
    """A USER that lists users or changes a role is PERMISSION_DENIED."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW", required_role="ADMIN"):
        bench.mine.users.ListUsers(users_pb2.ListUsersRequest())
    request = users_pb2.SetUserRoleRequest(id=bench.me.id, role=options_pb2.ROLE_ADMIN)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW", required_role="ADMIN"):
        bench.mine.users.SetUserRole(request)


@AREA.case
def a_key_needs_the_scope(bench: Bench) -> None:
    """A key without a method's scope is PERMISSION_DENIED, and the answer names the scope."""
    _, reader = bench.add_key("servers:read")
    reader.servers.ListServers(servers_pb2.ListServersRequest())
    with refused("PERMISSION_DENIED", "SCOPE_MISSING", required_scope="servers:write"):
        bench.add_server(reader)
    with refused("PERMISSION_DENIED", "SCOPE_MISSING", required_scope="jobs:read"):
        reader.jobs.ListJobs(jobs_pb2.ListJobsRequest())


@AREA.case
def a_key_opens_no_session_method(bench: Bench) -> None:
    """An API key cannot call what needs a session: Logout and ChangePassword are PERMISSION_DENIED."""
    with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
        bench.mine.users.Logout(users_pb2.LogoutRequest())
    request = users_pb2.ChangePasswordRequest(current_password="x" * 8, new_password="y" * 8)
    with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
        bench.mine.users.ChangePassword(request)


@AREA.admin_case
def a_session_reaches_what_its_user_does(bench: Bench) -> None:
    """An access token lets its user in, with everything that the role allows."""
    caller: Caller = bench.bearer(bench.login(bench.me).access_token)
    same("who calls", caller.users.GetUser(_ME).id, bench.me.id)
    server = bench.add_server()
    got = caller.servers.GetServer(servers_pb2.GetServerRequest(id=server.id))
    holds("the user's server", fact=got == server, seen=got.id)
