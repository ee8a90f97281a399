"""The row of a change: there with it, not there without it, and of whom it tells."""

from __future__ import annotations

import uuid

import pytest

from moragmeta.v1 import api_keys_pb2, databases_pb2, documents_pb2, options_pb2, servers_pb2, users_pb2
from moragmeta.v1 import audit_pb2 as pb
from tests.audit.conftest import Listed
from tests.refusals import refused
from tests.service import Service, User


def _server(user: User, **more: str) -> servers_pb2.Server:
    server = servers_pb2.Server(
        name=f"s {uuid.uuid4()}", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=6333, password="hidden"
    )
    request = servers_pb2.CreateServerRequest(server=server, request_id=more.get("request_id", ""))
    return user.channel.servers.CreateServer(request)


def test_a_change_leaves_one_event_that_tells_who_did_it(user: User, listed: Listed) -> None:
    """Key, user, event, target, owner, address, agent and request id stand in it, and no secret."""
    server = _server(user)
    (event,) = listed(target_id=server.id)
    assert (event.event, event.outcome, event.reason) == ("server.create", "OK", "")
    assert (event.subject_user_id, event.owner_user_id) == (user.id, user.id)
    assert event.subject not in ("", user.id)
    assert (event.actor, event.credential_id) == (pb.AUDIT_ACTOR_API_KEY, user.key_id)
    assert (event.target_kind, event.method) == ("server", "ServerService.CreateServer")
    assert event.address == "127.0.0.1"
    assert "grpc" in event.agent
    assert event.request_id
    assert event.count == 1
    fields = dict(event.fields.items())
    assert fields["server.port"] == 6333
    assert fields["server.kind"] == "SERVER_KIND_QDRANT"
    assert fields["server.name"] is None
    assert "server.password" not in fields


def test_a_repeat_of_a_request_id_leaves_no_event(user: User, listed: Listed) -> None:
    """The event is of the change, and a repeat changes nothing."""
    request_id = str(uuid.uuid4())
    server = _server(user, request_id=request_id)
    name = servers_pb2.Server(name=server.name, kind=server.kind, host="h", port=6333, password="hidden")
    again = servers_pb2.CreateServerRequest(server=name, request_id=request_id)
    assert user.channel.servers.CreateServer(again).id == server.id
    assert len(listed(target_id=server.id)) == 1


def test_what_fails_leaves_an_event_of_its_failure_and_no_other(user: User, listed: Listed) -> None:
    """A change that was rolled back has no row of success; one with its code and reason comes later."""
    server = _server(user)
    stale = servers_pb2.DeleteServerRequest(id=server.id, etag="another")
    with refused("ABORTED", "ETAG_MISMATCH"):
        user.channel.servers.DeleteServer(stale)
    events = {event.event: event for event in listed(target_id=server.id)}
    assert events["server.delete"].outcome == "ABORTED"
    assert events["server.delete"].reason == "ETAG_MISMATCH"
    assert len(events) == 2


def test_one_user_s_probing_of_another_s_rows_shows(user: User, service: Service, listed: Listed) -> None:
    """NOT_FOUND tells the prober nothing, and the audit tells who tried to change what; it keeps no read."""
    server = _server(user)
    prober = service.new_user()
    with refused("NOT_FOUND"):
        prober.channel.servers.GetServer(servers_pb2.GetServerRequest(id=server.id))
    with refused("NOT_FOUND"):
        prober.channel.servers.DeleteServer(servers_pb2.DeleteServerRequest(id=server.id))
    (event,) = listed(subject_user_id=prober.id)
    assert (event.event, event.outcome, event.target_id) == ("server.delete", "NOT_FOUND", server.id)


def test_reads_leave_nothing_unless_they_say_so(user: User, listed: Listed) -> None:
    """GetServer leaves no event; ListAuditEvents is one itself."""
    server = _server(user)
    user.channel.servers.GetServer(servers_pb2.GetServerRequest(id=server.id))
    assert [event.event for event in listed(subject_user_id=user.id)] == ["server.create"]
    assert listed(event="audit.list")


def test_a_user_as_the_target_is_named_by_the_pseudonym(user: User, service: Service, listed: Listed) -> None:
    """What is done to a user is found by the user's id, and shows the pseudonym beside who it is."""
    admin = service.admin.channel.users
    admin.SetUserRole(users_pb2.SetUserRoleRequest(id=user.id, role=options_pb2.ROLE_VIEWER))
    (event,) = listed(target_id=user.id)
    assert event.event == "user.set_role"
    assert event.target_user_id == user.id
    assert event.target_id not in ("", user.id)
    assert event.subject_user_id == service.admin.id
    assert dict(event.fields.items()) == {"id": None, "role": "ROLE_VIEWER"}
    assert listed(target_id=event.target_id) == [event]


def test_what_a_user_does_to_oneself_as_me_tells_who_that_is(user: User, listed: Listed) -> None:
    """`me` is resolved: the settings that were changed are the caller's."""
    request = users_pb2.UpdateUserSettingsRequest(settings=users_pb2.UserSettings(language="de"))
    user.channel.users.UpdateUserSettings(request)
    request.settings.owner_id = "me"
    user.channel.users.UpdateUserSettings(request)
    newest, first = listed(event="user.update_settings", subject_user_id=user.id)
    assert newest.target_user_id == first.target_user_id == user.id
    assert first.owner_user_id == newest.owner_user_id == user.id


def test_key_made_for_another_shows_maker_and_owner(user: User, service: Service, listed: Listed) -> None:
    """An ADMIN's key for somebody else is the ADMIN's doing, and the other's key."""
    key = api_keys_pb2.ApiKey(name="made for you", scopes=["documents:read"])
    made = service.admin.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=key, owner_id=user.id)
    )
    (event,) = listed(target_id=made.api_key.id)
    assert (event.subject_user_id, event.owner_user_id) == (service.admin.id, user.id)
    assert made.secret not in str(event)


def test_batch_says_how_many(user: User, listed: Listed) -> None:
    """A batch is one event, with the number of its documents."""
    server = _server(user)
    database = user.channel.databases.CreateDatabase(
        databases_pb2.CreateDatabaseRequest(database=databases_pb2.Database(name="d", server_id=server.id))
    )
    user.channel.documents.BatchCreateDocuments(
        documents_pb2.BatchCreateDocumentsRequest(
            requests=[
                documents_pb2.CreateDocumentRequest(
                    document=documents_pb2.Document(name=f"{number}.txt", type="txt", database_id=database.id)
                )
                for number in range(3)
            ]
        )
    )
    (event,) = listed(event="document.create_batch", subject_user_id=user.id)
    assert 3 in dict(event.fields.items()).values()


@pytest.mark.parametrize("order", ["time", "time desc", ""])
def test_pages_give_every_event_once(user: User, service: Service, listed: Listed, order: str) -> None:
    """Small pages in either order give what one large page gives."""
    for _ in range(7):
        _server(user)
    whole = [event.id for event in listed(subject_user_id=user.id)]
    if order == "time":
        whole.reverse()
    found, token = [], ""
    while True:
        request = pb.ListAuditEventsRequest(
            subject_user_id=user.id, page_size=3, page_token=token, order_by=order
        )
        page = service.admin.channel.audit.ListAuditEvents(request)
        found += [event.id for event in page.audit_events]
        token = page.next_page_token
        if not token:
            break
    assert found == whole
    assert len(found) == 7


def test_filters_of_time_are_from_and_before(user: User, listed: Listed) -> None:
    """The start belongs to what is listed, and the end does not."""
    for _ in range(3):
        _server(user)
    third, second, _first = listed(subject_user_id=user.id)
    found = listed(subject_user_id=user.id, start_time=second.time, end_time=third.time)
    assert [event.id for event in found] == [second.id]


def test_only_an_admin_reads_the_audit(user: User) -> None:
    """Whose doings they are does not matter: the audit is the ADMIN's."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        user.channel.audit.ListAuditEvents(pb.ListAuditEventsRequest(subject_user_id=user.id))


def test_two_names_of_one_user_and_unknown_orders_are_refused(service: Service, user: User) -> None:
    """A subject by id and by pseudonym at once, and an order that there is not, are INVALID_ARGUMENT."""
    list_ = service.admin.channel.audit.ListAuditEvents
    both = pb.ListAuditEventsRequest(subject_user_id=user.id, subject="x")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "subject"):
        list_(both)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "order_by"):
        list_(pb.ListAuditEventsRequest(order_by="event"))
