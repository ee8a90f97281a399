"""Standing that is taken away at one server, and who lost it at another one, which still trusts them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.auth.principal import Role
from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    grants_pb2,
    options_pb2,
    quotas_pb2,
    servers_pb2,
    users_pb2,
)
from tests.access.estate import HASHED
from tests.rpc.changes import PASSWORD
from tests.service import Channel, Service, User

_ME: Final = api_keys_pb2.GetCurrentPrincipalRequest()
_NEW: Final = "another password"
_TRIES: Final = 8


@dataclass
class Attempt:
    """An ADMIN who is about to lose something here, and calls there, by a key or a session."""

    here: Service
    person: User
    mine: Channel  # at the first server
    there: Channel  # at the second one, which knows who calls
    database_id: str

    @property
    def admin(self) -> Channel:
        """Who takes away."""
        return self.here.admin.channel

    def stored(self) -> dict[str, Any]:
        """What the database holds of the person, their grants, keys and tokens."""
        with self.here.database.unit_of_work() as uow:
            user = uow.users.get(self.person.id, self.person.id)
            kept = {name: user[name] for name in ("role", "active", "email", "password_hash")}
            return {
                **kept,
                "reset": uow.resets.lock(self.person.id) is not None,
                "grants": len(uow.grants.page_on(self.person.id, self.database_id, None, 9)),
                "keys": len(uow.api_keys.page(self.person.id, None, 9, show_revoked=True)),
                "quotas": dict(uow.quotas.get(self.person.id)),
            }


def _revoke(a: Attempt) -> None:
    a.admin.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=a.person.key_id))


def _deactivate(a: Attempt) -> None:
    a.admin.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=a.person.id))


def _demote(a: Attempt) -> None:
    a.admin.users.SetUserRole(users_pb2.SetUserRoleRequest(id=a.person.id, role=options_pb2.ROLE_USER))


def _log_out(a: Attempt) -> None:
    a.mine.users.Logout(users_pb2.LogoutRequest())


def _reset(a: Attempt) -> Any:
    return a.there.users.CreatePasswordReset(users_pb2.CreatePasswordResetRequest(email=a.person.email))


def _change_email(a: Attempt) -> Any:
    user = users_pb2.User(id=a.person.id, email=f"new-{a.person.email}")
    request = users_pb2.UpdateUserRequest(user=user, update_mask=FieldMask(paths=["email"]))
    return a.there.users.UpdateUser(request)


def _change_password(a: Attempt) -> Any:
    request = users_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=_NEW)
    return a.there.users.ChangePassword(request)


def _share(a: Attempt) -> Any:
    request = grants_pb2.GrantAccessRequest(
        database_id=a.database_id, grantee_id=a.here.admin.id, level=grants_pb2.GRANT_LEVEL_WRITER
    )
    return a.there.grants.GrantAccess(request)


def _make_key(a: Attempt) -> Any:
    key = api_keys_pb2.ApiKey(name="heir")
    return a.there.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))


def _raise_quota(a: Attempt) -> Any:
    quotas = quotas_pb2.Quotas(owner_id=a.person.id, api_keys=9)
    return a.there.quotas.SetQuotas(quotas_pb2.SetQuotasRequest(quotas=quotas))


def _reactivate(a: Attempt) -> Any:
    return a.there.users.ReactivateUser(users_pb2.ReactivateUserRequest(id=a.person.id))


def _promote(a: Attempt) -> Any:
    request = users_pb2.SetUserRoleRequest(id=a.person.id, role=options_pb2.ROLE_ADMIN)
    return a.there.users.SetUserRole(request)


Step = Callable[[Attempt], Any]
_GONE, _TOO_LOW = "UNAUTHENTICATED", "PERMISSION_DENIED"
CASES: Final[dict[str, tuple[Step, Step, str]]] = {
    "a deactivated ADMIN comes back": (_deactivate, _reactivate, _GONE),
    "a demoted ADMIN rises again": (_demote, _promote, _TOO_LOW),
    "a demoted ADMIN gives out a reset": (_demote, _reset, _TOO_LOW),
    "a demoted ADMIN sets a quota": (_demote, _raise_quota, _TOO_LOW),
    "a revoked key gives out a reset": (_revoke, _reset, _GONE),
    "a revoked key shares a database": (_revoke, _share, _GONE),
    "a revoked key makes another": (_revoke, _make_key, _GONE),
    "an ended session changes the password": (_log_out, _change_password, _GONE),
    "an ended session changes the email": (_log_out, _change_email, _GONE),
    "an ended session makes a key": (_log_out, _make_key, _GONE),
}


def _ask(a: Attempt) -> Any:
    return a.there.api_keys.GetCurrentPrincipal(_ME)


def _begin(servers: tuple[Service, Service], *, by_session: bool) -> Attempt:
    here, second = servers
    person = here.new_user(Role.ADMIN, password_hash=HASHED)
    calls = person.channel
    server = servers_pb2.Server(name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    server_id = calls.servers.CreateServer(servers_pb2.CreateServerRequest(server=server)).id
    database = databases_pb2.Database(name="d", server_id=server_id)
    made = calls.databases.CreateDatabase(databases_pb2.CreateDatabaseRequest(database=database))
    if by_session:
        request = users_pb2.LoginRequest(email=person.email, password=PASSWORD)
        token = here.channel().users.Login(request).access_token
        mine, there = here.channel(token=token), second.channel(token=token)
    else:
        mine, there = person.channel, second.channel(api_key=person.key)
    for channel in (mine, there):
        channel.api_keys.GetCurrentPrincipal(_ME)
    return Attempt(here, person, mine, there, made.id)


def _outcome(step: Step, attempt: Attempt) -> str:
    try:
        step(attempt)
    except grpc.RpcError as error:
        known: Any = error
        return str(known.code().name)
    return "OK"


@pytest.mark.parametrize("case", CASES)
def test_who_lost_standing_undoes_nothing_of_it_elsewhere(
    there: tuple[Service, Service], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken away here stays away, though the other server still answers who lost it."""
    monkeypatch.setattr(there[1].app._epochs, "_interval", 4.0)  # noqa: SLF001 - it trusts for 5 s
    take_away, try_it, expected = CASES[case]
    still_trusted = False
    for _ in range(_TRIES):
        attempt = _begin(there, by_session=take_away is _log_out)
        take_away(attempt)
        after = attempt.stored()
        assert _outcome(try_it, attempt) == expected
        still_trusted = _outcome(_ask, attempt) == "OK"
        assert attempt.stored() == after
        if still_trusted:  # and so the call was refused by what the database says
            break
    assert still_trusted


def test_changes_of_power_go_on_where_nothing_was_lost(there: tuple[Service, Service]) -> None:
    """The same calls are carried out at the second server for who stands, by a key and by a session."""
    for by_session, steps in ((False, (_share, _make_key, _raise_quota, _reset)), (True, (_change_email,))):
        for step in steps:
            attempt = _begin(there, by_session=by_session)
            before = attempt.stored()
            step(attempt)
            assert attempt.stored() != before


def _until_heard(answer: str, outcomes: list[str]) -> None:
    end = time.monotonic() + 20
    while answer not in outcomes:
        assert time.monotonic() < end, set(outcomes)
        time.sleep(0.05)


def test_of_a_loss_and_what_would_undo_it_at_once_the_loss_stands(there: tuple[Service, Service]) -> None:
    """An ADMIN who is deactivated while they reactivate themselves elsewhere all the time ends inactive."""
    attempt = _begin(there, by_session=False)
    outcomes: list[str] = []
    over = threading.Event()

    def insist() -> None:
        while not over.is_set():
            outcomes.append(_outcome(_reactivate, attempt))

    insisting = [threading.Thread(target=insist) for _ in range(3)]
    for thread in insisting:
        thread.start()
    _until_heard("OK", outcomes)
    _deactivate(attempt)
    _until_heard("UNAUTHENTICATED", outcomes)
    time.sleep(0.5)  # in which they would come back
    over.set()
    for thread in insisting:
        thread.join()
    assert attempt.stored()["active"] is False
    assert set(outcomes) == {"OK", "UNAUTHENTICATED"}
