"""How a session is opened and goes on: where passwords and tokens meet rows.

Tokens themselves are ``auth/tokens.py``'s, and what ends a session is ``users/actions.py``'s.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from morag_meta.auth.passwords import Passwords, check_password
from morag_meta.auth.principal import Role
from morag_meta.auth.tokens import Tokens
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import NotFound, Reason, Unauthenticated
from morag_meta.uow import UnitOfWork
from morag_meta.users.rules import login_failed, normalize_email


@dataclass(frozen=True, slots=True)
class Session:
    """A session and what its holder needs; the tokens are shown this once. ``user`` is the user's row."""

    access_token: str
    access_end: dt.datetime
    refresh_token: str
    end: dt.datetime
    user: Row


class Sessions:
    """Opens and continues sessions."""

    def __init__(self, database: Database, passwords: Passwords, tokens: Tokens) -> None:
        """Work with these parts."""
        self._database = database
        self._passwords = passwords
        self._tokens = tokens

    async def open(self, email: str, password: str, deadline: float | None) -> Session:
        """Open a session for who knows an email's password.

        Raises:
            Invalid: the password is longer than any can be.
            Unauthenticated: LOGIN_FAILED, after the same work whatever the cause.
            Unavailable: too many passwords wait to be checked.
        """
        check_password(password)
        normal = normalize_email(email)
        row = await self._database.read(
            lambda uow: uow.users.find_by_email(normal), point=True, deadline=deadline
        )
        known = row["password_hash"] if row is not None and row["active"] else None
        matches = await self._passwords.matches(password, known)
        if row is None or not matches:
            raise login_failed()
        user_id = row["id"]
        return await self._database.write(lambda uow: self._add(uow, user_id, known), deadline=deadline)

    async def continue_(self, refresh_token: str, deadline: float | None) -> Session:
        """Give a session that goes on a new access token.

        Raises:
            Unauthenticated: REFRESH_TOKEN_INVALID.
        """
        refresh_hash = self._tokens.refresh_hash(refresh_token)
        # Read first, because anybody can send tokens that are none, and writers may have to queue.
        found = await self._database.read(
            lambda uow: _going_on(uow, refresh_hash), point=True, deadline=deadline
        )
        return await self._database.write(
            lambda uow: self._refreshed(uow, found, refresh_token), deadline=deadline
        )

    def _refreshed(self, uow: UnitOfWork, found: Row, refresh_token: str) -> Session:
        # The update finds the session only while it is open, also when it is ended meanwhile.
        if not uow.sessions.refreshed(found["user_id"], found["session_id"]):
            raise _no_session()
        user = uow.users.get(EVERYONE, found["user_id"])
        return self._session(uow, user, found["session_id"], refresh_token, found["expire_time"])

    def _add(self, uow: UnitOfWork, user_id: str, password_hash: str | None) -> Session:
        try:
            user = uow.users.lock(EVERYONE, user_id)
        except NotFound:
            raise login_failed() from None
        # The comparison took long: a password or a standing that changed meanwhile opens nothing.
        if not user["active"] or user["password_hash"] != password_hash:
            raise login_failed()
        refresh_token = self._tokens.new_refresh_token()
        end = uow.now + self._tokens.session_life
        refresh_hash = self._tokens.refresh_hash(refresh_token)
        session = uow.sessions.add(user_id, refresh_hash=refresh_hash, expire_time=end)
        return self._session(uow, user, session["id"], refresh_token, end)

    def _session(
        self, uow: UnitOfWork, user: Row, session_id: str, refresh_token: str, end: dt.datetime
    ) -> Session:
        token, access_end = self._tokens.issue(
            user["id"], session_id, Role[user["role"]], now=uow.now, session_end=end
        )
        return Session(token, access_end, refresh_token, end, user)


def _going_on(uow: UnitOfWork, refresh_hash: str) -> Row:
    found = uow.sessions.find_by_refresh(refresh_hash)
    if found is None or found["end_time"] is not None or found["expire_time"] <= uow.now:
        raise _no_session()
    if not found["active"]:
        raise _no_session()
    return found


def _no_session() -> Unauthenticated:
    return Unauthenticated(
        "the refresh token is unknown, or its session is over", reason=Reason.REFRESH_TOKEN_INVALID
    )
