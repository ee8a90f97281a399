"""ListServers over the wire: filters, whose servers, order and page tokens."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable
from typing import Any

import pytest

from moragmeta.v1 import servers_pb2 as pb
from tests.refusals import refused
from tests.servers.conftest import a_server, create
from tests.service import Service, User


def _list(user: User, **request: Any) -> pb.ListServersResponse:
    response: pb.ListServersResponse = user.channel.servers.ListServers(pb.ListServersRequest(**request))
    return response


def _names(user: User, **request: Any) -> list[str]:
    return [server.name for server in _list(user, **request).servers]


def _all_pages(user: User, **request: Any) -> Iterable[list[str]]:
    token = ""
    while True:
        page = _list(user, page_token=token, **request)
        yield [server.name for server in page.servers]
        token = page.next_page_token
        if not token:
            return


def test_filters_combine(user: User) -> None:
    """A server is listed when it matches every filter that is set."""
    create(user, name="q-on", kind=pb.SERVER_KIND_QDRANT, active=True)
    create(user, name="q-off", kind=pb.SERVER_KIND_QDRANT)
    create(user, name="n-on", kind=pb.SERVER_KIND_NEO4J, active=True)
    create(user, name="c-off", kind=pb.SERVER_KIND_CHROMA)
    assert _names(user) == ["c-off", "n-on", "q-off", "q-on"]
    assert _names(user, kinds=[pb.SERVER_KIND_QDRANT]) == ["q-off", "q-on"]
    assert _names(user, kinds=[pb.SERVER_KIND_NEO4J, pb.SERVER_KIND_CHROMA]) == ["c-off", "n-on"]
    assert _names(user, kinds=[pb.SERVER_KIND_PINECONE]) == []
    assert _names(user, active=True) == ["n-on", "q-on"]
    assert _names(user, active=False) == ["c-off", "q-off"]
    assert _names(user, name_contains="-on") == ["n-on", "q-on"]
    assert _names(user, name_contains="q", active=True, kinds=[pb.SERVER_KIND_QDRANT]) == ["q-on"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["100% Ä_b", "Main\\x", "main "]),
        ("main", ["main "]),
        ("Main", ["Main\\x"]),
        ("MAIN", []),
        ("ain", ["Main\\x", "main "]),
        (" ", ["100% Ä_b", "main "]),
        ("n ", ["main "]),
        ("%", ["100% Ä_b"]),
        ("_", ["100% Ä_b"]),
        ("\\", ["Main\\x"]),
        ("'", []),
        ("ä", []),
        ("Ä", ["100% Ä_b"]),
        ("A", []),
    ],
)
def test_the_name_filter_is_a_part_of_the_name_as_it_is_written(
    user: User, text: str, found: list[str]
) -> None:
    """Letter case, accents and spaces count, and no character is a wildcard, on every database."""
    for name in ("main ", "Main\\x", "100% Ä_b"):
        create(user, name=name)
    assert _names(user, name_contains=text) == found


@pytest.mark.parametrize(
    ("request_", "violation"),
    [
        ({"page_size": -1}, "page_size"),
        ({"kinds": [0]}, "kinds[0]"),
        ({"kinds": [1, 99]}, "kinds[1]"),
        ({"kinds": [1] * 6}, "kinds"),
        ({"name_contains": "x" * 256}, "name_contains"),
        ({"name_contains": "\x00"}, "name_contains"),
        ({"owner_id": "nobody"}, "owner_id"),
    ],
)
def test_a_filter_beyond_its_limit_is_refused(user: User, request_: dict[str, Any], violation: str) -> None:
    """INVALID_ARGUMENT names the field."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        _list(user, **request_)


def test_pages_hold_every_server_once_newest_first(user: User) -> None:
    """Pages of any size give the same list, also while servers are added in front of it."""
    names = [f"s{number}" for number in range(7)]
    for name in names:
        create(user, name=name)
    pages = list(_all_pages(user, page_size=3))
    assert pages == [["s6", "s5", "s4"], ["s3", "s2", "s1"], ["s0"]]
    first = _list(user, page_size=5)
    create(user, name="late")
    rest = _list(user, page_size=5, page_token=first.next_page_token)
    assert [server.name for server in rest.servers] == ["s1", "s0"]
    assert rest.next_page_token == ""


def test_a_page_holds_fifty_by_default_and_at_most_a_thousand(user: User) -> None:
    """The sizes that the proto states: 0 means 50, and more than 1000 is clamped, not refused."""
    for number in range(51):
        create(user, name=f"s{number}")
    assert len(_list(user).servers) == 50
    assert len(_list(user, page_size=2_000_000_000).servers) == 51


def test_pages_go_on_within_a_filter(user: User) -> None:
    """The filter holds on every page."""
    for number in range(6):
        create(user, name=f"s{number}", active=number % 2 == 0)
    pages = list(_all_pages(user, page_size=2, active=True, kinds=[pb.SERVER_KIND_QDRANT], name_contains="s"))
    assert pages == [["s4", "s2"], ["s0"]]


def test_a_page_token_is_bound_to_its_caller_and_arguments(service: Service, user: User) -> None:
    """With another filter, from another caller, of another method or changed, it is refused."""
    for number in range(3):
        create(user, name=f"s{number}")
    token = _list(user, page_size=1, name_contains="s").next_page_token
    assert _names(user, page_size=2, name_contains="s", page_token=token) == ["s1", "s0"]
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[len(raw) // 2] ^= 1
    tampered = base64.urlsafe_b64encode(raw).decode()
    for request in (
        {"page_token": token, "name_contains": "S"},
        {"page_token": token, "name_contains": "s", "active": False},
        {"page_token": tampered, "name_contains": "s"},
        {"page_token": token[:-4], "name_contains": "s"},
        {"page_token": "no token", "name_contains": "s"},
        {"page_token": "é", "name_contains": "s"},
    ):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            _list(user, **request)
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        _list(service.new_user(), page_size=1, name_contains="s", page_token=token)


def test_users_see_their_own_and_an_admin_whom_they_name(service: Service, user: User) -> None:
    """A list shows the caller's rows; another owner or everybody is for an ADMIN to ask for."""
    other, admin = service.new_user(), service.new_user("ADMIN")
    create(user, name="one")
    create(other, name="two")
    create(admin, name="three")
    assert _names(user) == _names(user, owner_id=user.id) == ["one"]
    for owner in (other.id, "-", str(uuid.uuid4())):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            _list(user, owner_id=owner)
    assert _names(admin) == ["three"]
    assert _names(admin, owner_id=user.id) == ["one"]
    assert _names(admin, owner_id=str(uuid.uuid4())) == []
    assert _names(admin, owner_id="-", page_size=3) == ["three", "two", "one"]
    assert _names(admin, owner_id="-", page_size=2, name_contains="t") == ["three", "two"]


def test_a_page_of_large_servers_stays_below_four_mebibytes(user: User) -> None:
    """The page is also bounded in bytes, and goes on where it stopped."""
    for number in range(60):
        server = a_server(name=f"s{number}")
        server.config.update({"note": "x" * 65_000})
        user.channel.servers.CreateServer(pb.CreateServerRequest(server=server))
    first = _list(user, page_size=60)
    assert first.ByteSize() < 4 * 1024 * 1024
    assert 40 < len(first.servers) < 60
    rest = _list(user, page_size=60, page_token=first.next_page_token)
    assert [server.name for server in (*first.servers, *rest.servers)] == [f"s{n}" for n in range(59, -1, -1)]
