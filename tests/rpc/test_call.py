"""What a call may reach, its fingerprint, and etags."""

from __future__ import annotations

import copy

import pytest

from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.narrowing import Reach
from morag_meta.auth.principal import ANONYMOUS, Principal, Role
from morag_meta.errors import Forbidden, Stale
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag, etag_of
from moragmeta.v1 import servers_pb2, users_pb2

OTHER = "0195a000-0000-7000-8000-000000000002"


def _call(role: Role, *, key: bytes = b"k" * 32, user_id: str = "me-myself") -> Call:
    principal = Principal(user_id, role, None, "", "session", None)
    return Call(principal, "ServerService.CreateServer", "r", "peer", hasher=KeyHasher(key))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER])
def test_nobody_but_an_admin_reaches_beyond_their_own(role: Role) -> None:
    """VIEWER and USER reach their own rows, list them by default or by name, and name nobody else."""
    call = _call(role)
    assert (call.reach, call.whole_reach, call.own) == (Reach("me-myself"), "me-myself", "me-myself")
    assert call.reach_of("") == call.reach_of("me-myself") == Reach("me-myself")
    assert call.owner_for("") == call.owner_for("me-myself") == "me-myself"
    for other in (OTHER, "-"):
        for reaching in (call.reach_of, call.owner_for):
            with pytest.raises(Forbidden) as refusal:
                reaching(other)
            assert refusal.value.reason == "OWNER_NOT_ALLOWED"


def test_an_admin_reaches_everything_and_lists_their_own_by_default() -> None:
    """An ADMIN touches any row, lists their own, another's or everybody's, and creates for others."""
    call = _call(Role.ADMIN)
    assert (call.reach, call.whole_reach) == (Reach("-"), "-")
    assert call.reach_of("") == Reach("me-myself")
    assert (call.reach_of(OTHER), call.reach_of("-")) == (Reach(OTHER), Reach("-"))
    assert (call.owner_for(""), call.owner_for(OTHER)) == ("me-myself", OTHER)


def test_nobody_reaches_nothing() -> None:
    """The caller of a public method owns nothing and reaches nothing."""
    call = Call(ANONYMOUS, "UserService.RegisterUser", "r", "peer")
    assert (call.own, call.reach) == ("", Reach(""))


def test_a_fingerprint_is_of_the_body_alone() -> None:
    """Equal bodies have equal fingerprints whatever their request ids, and other bodies have others."""
    call = _call(Role.USER)
    server = servers_pb2.Server(name="main", port=1)
    request = servers_pb2.CreateServerRequest(server=server, request_id="1")
    same = servers_pb2.CreateServerRequest(server=server, request_id="2")
    assert call.fingerprint(request) == call.fingerprint(same)
    assert request.request_id == "1"
    for change in ({"name": "other"}, {"port": 2}, {"active": True}, {"username": ""}):
        other = copy.deepcopy(server)
        for field, value in change.items():
            setattr(other, field, value)
        assert call.fingerprint(servers_pb2.CreateServerRequest(server=other)) != call.fingerprint(request)


def test_a_fingerprint_cannot_be_guessed_without_the_key() -> None:
    """The same body under another key has another fingerprint, and the key is not shown with the call."""
    request = users_pb2.RegisterUserRequest(email="jo@example.org", password="correct horse")
    one, two = _call(Role.USER), _call(Role.USER, key=b"l" * 32)
    assert one.fingerprint(request) != two.fingerprint(request)
    assert "kkkk" not in repr(one)
    assert one.fingerprint(request) == _call(Role.USER).fingerprint(request)


def test_a_map_in_the_body_has_one_fingerprint() -> None:
    """A Struct has the same fingerprint in whichever order its keys were set."""
    forth, back = servers_pb2.CreateServerRequest(), servers_pb2.CreateServerRequest()
    names = [f"key{number}" for number in range(50)]
    for name in names:
        forth.server.config[name] = name
    for name in reversed(names):
        back.server.config[name] = name
    assert _call(Role.USER).fingerprint(forth) == _call(Role.USER).fingerprint(back)


def test_an_etag_is_of_one_revision() -> None:
    """An etag names the revision in quotes; none is no check, and any other text is ABORTED."""
    assert etag_of({"revision": 7}) == '"7"'
    for sent in ("", '"7"'):
        check_etag(sent, {"revision": 7})
    for sent in ('"8"', "7", '"7', "*", 'W/"7"', '"07"', " "):
        with pytest.raises(Stale) as refusal:
            check_etag(sent, {"revision": 7})
        assert refusal.value.reason == "ETAG_MISMATCH"
