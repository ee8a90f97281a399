"""Who may call what: each method with each kind of caller, as the protos declare it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from morag_meta.auth.keys import new_key, prefix_of
from morag_meta.auth.passwords import Passwords
from morag_meta.auth.principal import Principal, Role
from morag_meta.errors import Forbidden
from morag_meta.rpc.access import SERVICES, Access, access_of, check_access, known_scopes
from morag_meta.rpc.access import service as descriptor_of
from moragmeta.v1 import options_pb2, users_pb2
from tests.service import Service, User

_ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
METHODS = {method.full_name: method for name in SERVICES for method in descriptor_of(name).methods}
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Caller:
    """Somebody with a credential: a role, and the scopes of a key or None for a session."""

    metadata: tuple[tuple[str, str], ...]
    role: Role | None
    scopes: frozenset[str] | None


def _declared(method: MethodDescriptor) -> Any:
    return method.GetOptions().Extensions[options_pb2.access]


def _expected(method: MethodDescriptor, caller: Caller) -> str:
    """Say why a caller is refused by what the proto declares, or nothing."""
    declared = _declared(method)
    if declared.public:
        return ""
    if caller.role is None:
        return "CREDENTIAL_MISSING"
    if int(caller.role) < declared.minimum_role:
        return "ROLE_TOO_LOW"
    if declared.any_scope:
        return ""
    if caller.scopes is not None and not declared.scopes:
        return "SESSION_REQUIRED"
    lacks = caller.scopes is not None and not {*declared.scopes, "*"} & caller.scopes
    return "SCOPE_MISSING" if lacks else ""


class Callers:
    """Makes the kinds of callers for a method."""

    def __init__(self, service: Service) -> None:
        self._service = service
        hashed = service.on_loop(_hash())
        self.users: dict[Role, User] = {role: service.new_user(role, password_hash=hashed) for role in Role}

    def key(self, role: Role, *scopes: str) -> Caller:
        """Give somebody with a key of just these scopes."""
        key = new_key()
        with self._service.database.unit_of_work() as uow:
            uow.api_keys.add(
                self.users[role].id,
                name=uuid.uuid4().hex,
                description="",
                key_hash=self._service.hasher.digest(key),
                key_prefix=prefix_of(key),
                scopes=list(scopes),
                expire_time=None,
            )
            uow.commit()
        return Caller((("x-api-key", key),), role, frozenset(scopes))

    def session(self, role: Role) -> Caller:
        """Give somebody with a fresh session."""
        request = users_pb2.LoginRequest(email=self.users[role].email, password=PASSWORD)
        token = self._service.channel().users.Login(request).access_token
        return Caller((("authorization", f"Bearer {token}"),), role, None)

    def all(self, scopes: Sequence[str]) -> Iterator[Caller]:
        """Give every kind of caller of a method that asks for one of some scopes."""
        yield Caller((), None, None)
        others = sorted(known_scopes().keys() - set(scopes))
        for role in Role:
            yield self.key(role, *others)
            for scope in scopes:
                yield self.key(role, scope)
            yield self.key(role, "*")


async def _hash() -> str:
    passwords = Passwords(10)
    try:
        return await passwords.hash(PASSWORD)
    finally:
        passwords.close()


@pytest.fixture(scope="module")
def callers(service: Service) -> Callers:
    """Give users of each role, who can log in."""
    return Callers(service)


def _answer(service: Service, method: MethodDescriptor, caller: Caller) -> tuple[str, str, dict[str, str]]:
    """Call a method with an empty request; give code, reason and metadata of the answer."""
    request = GetMessageClass(method.input_type)().SerializeToString()
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel: Any = service.admin.channel.raw
    call = channel.unary_stream(path) if method.server_streaming else channel.unary_unary(path)
    try:
        answer = call(request, metadata=caller.metadata, timeout=10)
        if method.server_streaming:
            next(iter(answer), None)
            answer.cancel()
    except grpc.RpcError as caught:
        error: Any = caught
        details = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert details.details[0].Unpack(info)
        return error.code().name, info.reason, dict(info.metadata)
    return "OK", "", {}


def _check(service: Service, method: MethodDescriptor, caller: Caller) -> None:
    code, reason, metadata = _answer(service, method, caller)
    expected = _expected(method, caller)
    if not expected:
        # An empty request is mostly wrong in itself, which is only looked at after access.
        assert code in ("OK", "INVALID_ARGUMENT") or reason == "FILTER_NOT_ALLOWED", (caller, code, reason)
        return
    wanted = "UNAUTHENTICATED" if expected == "CREDENTIAL_MISSING" else "PERMISSION_DENIED"
    assert (code, reason) == (wanted, expected), caller
    declared = _declared(method)
    if expected == "ROLE_TOO_LOW":
        assert metadata == {"required_role": Role(declared.minimum_role).name}
    if expected == "SCOPE_MISSING":
        assert metadata == {"required_scope": declared.scopes[0]}


@_ON_SQLITE
@pytest.mark.parametrize("name", METHODS)
def test_each_method_lets_in_whom_its_proto_names(service: Service, callers: Callers, name: str) -> None:
    """No credential, each role, a key without the scope, with it and with all: as the proto declares."""
    method = METHODS[name]
    for caller in callers.all(_declared(method).scopes):
        _check(service, method, caller)


@_ON_SQLITE
@pytest.mark.parametrize("role", Role)
def test_a_session_has_every_scope_of_its_role(service: Service, callers: Callers, role: Role) -> None:
    """An access token reaches every method that its role may call, those without a scope among them."""
    session = callers.session(role)
    for method in METHODS.values():
        if method.name != "Logout":
            _check(service, method, session)
    _check(service, METHODS["moragmeta.v1.UserService.Logout"], session)


@_ON_SQLITE
@pytest.mark.parametrize(
    "metadata",
    [
        (("x-api-key", "morag_" + "A" * 43),),
        (("x-api-key", "x"),),
        (("x-api-key", "morag_\u007e"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("x-api-key", "a" * 6000),),
    ],
)
def test_a_wrong_credential_opens_nothing_but_what_is_public(
    service: Service, metadata: tuple[tuple[str, str], ...]
) -> None:
    """A made-up credential is UNAUTHENTICATED at every method that is not public, and says not why."""
    for method in METHODS.values():
        code, reason, told = _answer(service, method, Caller(metadata, None, None))
        if _declared(method).public:
            assert code == "INVALID_ARGUMENT"
        else:
            assert (code, reason, told) == ("UNAUTHENTICATED", "CREDENTIAL_INVALID", {}), method.full_name


def test_the_protos_follow_the_rule_of_the_house() -> None:
    """Reads ask for a VIEWER and the :read scope of their service, writes for a USER and its :write scope.

    What workers do is allowed by the scopes of workers too, or by these alone.
    """
    of_resets = {"TakePasswordResets", "CreatePasswordReset"}
    of_admins = of_resets | {
        "ListUsers",
        "SetUserRole",
        "DeactivateUser",
        "ReactivateUser",
        "DeleteUser",
        "SetQuotas",
        "ListAuditEvents",
    }
    of_sessions = {"Logout", "ChangePassword", "ExportUserData"}
    of_everybody = {"RegisterUser", "Login", "RefreshToken", "RequestPasswordReset", "ResetPassword"}
    work = ["jobs:work", "jobs:work:all"]
    of_workers_alone = {"RegisterWorker", "LeaseJobs"}
    of_workers = {"UpdateJobProgress", "CompleteJob", "FailJob", "HeartbeatJob", "ReleaseJob"}
    of_workers |= {"GetWorker", "ListWorkers", "WatchJobs"} | of_workers_alone
    ends_own = {"EndSession", "RevokeApiKey", "DisableApiKey", "RevokeAccess"}  # which a VIEWER may as well
    of_any_key = {"GetCurrentPrincipal", "RevokeApiKey", "DisableApiKey"}
    verify = ["api_keys:verify", "api_keys:verify:all"]
    for method in METHODS.values():
        declared = _declared(method)
        if method.name in of_everybody:
            assert (declared.public, declared.minimum_role, list(declared.scopes)) == (True, 0, [])
            continue
        assert not declared.public, method.name
        assert declared.any_scope == (method.name in of_any_key), method.name
        reads = method.GetOptions().idempotency_level == 1
        of_viewers = reads or method.name in of_sessions | ends_own
        role = options_pb2.ROLE_VIEWER if of_viewers else options_pb2.ROLE_USER
        assert declared.minimum_role == (options_pb2.ROLE_ADMIN if method.name in of_admins else role)
        family = method.containing_service.name.removesuffix("Service").replace("ApiKey", "Api_Key").lower()
        family = family.replace("worker", "job")
        unbound = method.name in of_sessions | of_workers_alone | of_any_key
        verb = "read" if reads else "reset" if method.name in of_resets else "write"
        many = family if family == "audit" else f"{family}s"
        scopes = [] if unbound else [f"{many}:{verb}"]
        if method.name == "VerifyApiKey":
            scopes = verify
        assert declared.scopes == scopes + (work if method.name in of_workers else []), method.name


def test_reading_is_what_is_named_so() -> None:
    """A method is free of side effects exactly when its name begins with a verb that reads."""
    for method in METHODS.values():
        named = method.name.startswith(("Get", "List", "BatchGet", "Verify", "Watch", "Export"))
        assert (method.GetOptions().idempotency_level == 1) == named, method.name


def test_a_key_is_no_way_around_its_owners_role() -> None:
    """A key with a scope that its owner's role no longer covers opens nothing."""
    access = Access(public=False, minimum_role=Role.ADMIN, scopes=("users:write",))
    demoted = Principal("u", Role.USER, frozenset({"users:write"}), "k", "", None)
    with pytest.raises(Forbidden) as refusal:
        check_access(access, demoted)
    assert refusal.value.reason == "ROLE_TOO_LOW"


@pytest.mark.parametrize(
    ("role", "scopes", "opens"),
    [
        (Role.USER, frozenset({"jobs:work:all"}), True),
        (Role.USER, frozenset({"jobs:work"}), False),
        (Role.USER, None, False),
        (Role.ADMIN, None, True),
    ],
)
def test_a_scope_over_everybody_is_held_by_name_or_by_an_admin(
    role: Role, scopes: frozenset[str] | None, opens: bool
) -> None:
    """Every scope together holds one that ends in :all for an ADMIN only; a key may hold it by its name."""
    access = Access(public=False, minimum_role=Role.USER, scopes=("jobs:work:all",))
    principal = Principal("u", role, scopes, "k", "", None)
    with contextlib.nullcontext() if opens else pytest.raises(Forbidden, match="lacks the scope"):
        check_access(access, principal)


def test_one_of_several_scopes_is_enough() -> None:
    """Who holds any of a method's scopes may call it; who holds none is told all of them, and the first."""
    access = Access(public=False, minimum_role=Role.USER, scopes=("jobs:write", "jobs:work"))
    for scope in access.scopes:
        check_access(access, Principal("u", Role.USER, frozenset({scope}), "k", "", None))
    with pytest.raises(Forbidden, match="jobs:write or jobs:work") as refusal:
        check_access(access, Principal("u", Role.USER, frozenset({"jobs:read"}), "k", "", None))
    assert refusal.value.metadata == {"required_scope": "jobs:write"}


def test_known_scopes_are_those_of_the_protos() -> None:
    """Every scope is known with the least role that can use it for anything; those of :all are an ADMIN's."""
    scopes: dict[str, int] = {}
    for method in METHODS.values():
        declared = _declared(method)
        for scope in declared.scopes:
            needed = Role.ADMIN if scope.endswith(":all") else declared.minimum_role
            scopes[scope] = min(scopes.get(scope, needed), needed)
    assert {scope: int(role) for scope, role in known_scopes().items()} == scopes
    assert len(scopes) == 22
    assert all(access_of(method).scopes == tuple(_declared(method).scopes) for method in METHODS.values())
