"""Credentials that open nothing, each of somebody who might do everything if it were let in."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.api_keys.actions import create_key
from morag_meta.auth.keys import new_key
from morag_meta.auth.principal import Role
from moragmeta.v1 import api_keys_pb2, users_pb2
from tests.access.estate import HASHED
from tests.rpc.changes import PASSWORD
from tests.service import Service, User

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Credential:
    """What a call brings, and what it meets wherever a credential is asked for."""

    title: str
    metadata: Metadata
    code: str = "UNAUTHENTICATED"
    reason: str = "CREDENTIAL_INVALID"


def by_key(secret: str) -> Metadata:
    """Call with an API key."""
    return (("x-api-key", secret),)


def by_token(token: str) -> Metadata:
    """Call with an access token."""
    return (("authorization", f"Bearer {token}"),)


def log_in(service: Service, user: User) -> str:
    """Open a session; give its access token."""
    request = users_pb2.LoginRequest(email=user.email, password=PASSWORD)
    return str(service.channel().users.Login(request).access_token)


def useless(service: Service) -> list[Credential]:
    """Make one credential of each kind that is refused."""
    keys, tokens = _Keys(service), _Tokens(service)
    return [
        Credential("no credential", (), reason="CREDENTIAL_MISSING"),
        Credential("a text that is no key", by_key("x")),
        Credential("a key that was never made", by_key(new_key())),
        Credential("an expired key", by_key(keys.expired())),
        Credential("a revoked key", by_key(keys.after("RevokeApiKey"))),
        Credential("a disabled key", by_key(keys.after("DisableApiKey"))),
        Credential("a deleted key", by_key(keys.after("DeleteApiKey"))),
        Credential("a key that was rotated away", by_key(keys.after("RotateApiKey"))),
        Credential("the key of a deactivated user", by_key(keys.of_gone("DeactivateUser"))),
        Credential("the key of a deleted user", by_key(keys.of_gone("DeactivateUser", "DeleteUser"))),
        Credential("a key from elsewhere", by_key(keys.bound()), "PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED"),
        Credential("a text that is no token", by_token("eyJhbGciOiJub25lIn0.e30.")),
        Credential("a token with another signature", by_token(tokens.forged())),
        Credential("an expired token", by_token(tokens.expired())),
        Credential("a token of a session that nobody opened", by_token(tokens.of_no_session())),
        Credential("the token of an ended session", by_token(tokens.ended())),
        Credential("the token of a session before the password was changed", by_token(tokens.outdated())),
        Credential("the token of a deactivated user", by_token(tokens.of_gone("DeactivateUser"))),
        Credential("the token of a deleted user", by_token(tokens.of_gone("DeactivateUser", "DeleteUser"))),
    ]


class _Keys:
    """API keys of ADMINs, of every scope."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._owner = service.new_user(Role.ADMIN)

    def expired(self) -> str:
        past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
        return self._new(expire_time=past)

    def bound(self) -> str:
        return self._new(allowed_addresses=["203.0.113.0/24", "2001:db8::/32"])

    def after(self, method: str) -> str:
        """Make a key, use it, and call a method on it."""
        calls = self._owner.channel.api_keys
        request = api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name=uuid.uuid4().hex))
        made = calls.CreateApiKey(request)
        self._service.channel(made.secret).api_keys.GetCurrentPrincipal(
            api_keys_pb2.GetCurrentPrincipalRequest()
        )
        change: Any = getattr(api_keys_pb2, f"{method}Request")(id=made.api_key.id)
        if method == "RotateApiKey":
            change.grace.seconds = 0
        getattr(calls, method)(change)
        return str(made.secret)

    def of_gone(self, *methods: str) -> str:
        user = self._service.new_user(Role.ADMIN)
        _remove(self._service, user, *methods)
        return user.key

    def _new(self, **traits: Any) -> str:
        with self._service.database.unit_of_work() as uow:
            _, secret = create_key(
                uow, self._service.hasher, owner_id=self._owner.id, name=uuid.uuid4().hex, **traits
            )
            uow.commit()
        return secret


class _Tokens:
    """Access tokens of ADMINs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._signer: Final = service.app._tokens  # noqa: SLF001 - no other holder of the key
        self._owner = service.new_user(Role.ADMIN, password_hash=HASHED)

    def forged(self) -> str:
        token = log_in(self._service, self._owner)
        other = log_in(self._service, self._owner)
        return f"{token.rpartition('.')[0]}.{other.rpartition('.')[2]}"

    def expired(self) -> str:
        claims = self._signer.verify(log_in(self._service, self._owner))
        return self._issue(claims.session_id, dt.timedelta(hours=-1))

    def of_no_session(self) -> str:
        return self._issue(str(uuid.uuid4()), dt.timedelta())

    def ended(self) -> str:
        token = log_in(self._service, self._owner)
        self._service.channel(token=token).users.Logout(users_pb2.LogoutRequest())
        return token

    def outdated(self) -> str:
        user = self._service.new_user(Role.ADMIN, password_hash=HASHED)
        token, second = log_in(self._service, user), log_in(self._service, user)
        change = users_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=uuid.uuid4().hex)
        self._service.channel(token=second).users.ChangePassword(change)
        return token

    def of_gone(self, *methods: str) -> str:
        user = self._service.new_user(Role.ADMIN, password_hash=HASHED)
        token = log_in(self._service, user)
        _remove(self._service, user, *methods)
        return token

    def _issue(self, session_id: str, shift: dt.timedelta) -> str:
        now = dt.datetime.now(dt.UTC) + shift
        end = now + dt.timedelta(hours=12)
        token, _ = self._signer.issue(self._owner.id, session_id, Role.ADMIN, now=now, session_end=end)
        return str(token)


def _remove(service: Service, user: User, *methods: str) -> None:
    for method in methods:
        request = getattr(users_pb2, f"{method}Request")(id=user.id)
        getattr(service.admin.channel.users, method)(request)
