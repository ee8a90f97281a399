"""How a session is opened and goes on: where passwords and tokens meet rows.

Tokens themselves are ``auth/tokens.py``'s and ``auth/refresh_tokens.py``'s, what a refresh token opens
is decided in ``users/rules.py``, and what ends a session is ``users/actions.py``'s.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog

from morag_meta.auth import throttle
from morag_meta.auth.passwords import Passwords, check_password
from morag_meta.auth.principal import Role
from morag_meta.auth.sessions import Device
from morag_meta.auth.throttle import Counts, Throttle
from morag_meta.auth.tokens import Tokens
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import NotFound, Unavailable
from morag_meta.ids import new_id
from morag_meta.rpc.call import Call
from morag_meta.rpc.trail import record
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import end_session
from morag_meta.users.rules import Refresh, judge_refresh, login_failed, normalize_email, refresh_failed

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """A session and what its holder needs; the tokens are shown this once. ``user`` is the user's row."""

    id: str
    access_token: str
    access_end: dt.datetime
    refresh_token: str
    end: dt.datetime
    user: Row


class Sessions:
    """Opens and continues sessions."""

    def __init__(self, database: Database, passwords: Passwords, tokens: Tokens, throttle: Throttle) -> None:
        """Work with these parts."""
        self._throttle = throttle
        self._database = database
        self._passwords = passwords
        self._tokens = tokens

    async def open(self, email: str, password: str, device: Device, call: Call) -> Session:
        """Open a session for who knows an email's password.

        Raises:
            Invalid: the password is longer than any can be.
            Unauthenticated: LOGIN_FAILED, after the same work whatever the cause.
            Exhausted: there were too many failed ones, whether the email is known or not.
            Unavailable: too many passwords wait to be checked.
        """
        check_password(password)
        normal = normalize_email(email)
        counts = self._throttle.login(normal, device.address or "")
        # Read first, so that who is refused anyhow keeps no writer busy.
        row = await self._database.read(lambda uow: _asked(uow, counts, normal), deadline=call.deadline)
        known = row["password_hash"] if row is not None and row["active"] else None
        call.trail.subject = row["id"] if row is not None else ""
        counts = await self._database.write(lambda uow: throttle.take(uow, counts), deadline=call.deadline)
        try:
            matches = await self._passwords.matches(password, known)
        except Unavailable:
            await self._database.write(lambda uow: throttle.give_back(uow, counts))
            raise
        if row is None or not matches:
            raise login_failed()
        user_id = row["id"]

        def add(uow: UnitOfWork) -> Session:
            session = self._add(uow, user_id, known, device)
            throttle.passed(uow, counts)
            record(uow, call, user_id=user_id, target_id=session.id)
            return session

        return await self._database.write(add, deadline=call.deadline)

    async def continue_(self, refresh_token: str, device: Device, call: Call) -> Session:
        """Give a session that goes on a new access token and, in place of this one, a new refresh token.

        A token that was replaced long ago ends its session for everybody who holds a token of it.

        Raises:
            Unauthenticated: REFRESH_TOKEN_INVALID.
        """
        tokens = self._tokens.refresh
        session_id = tokens.session_of(refresh_token)
        if session_id is None:
            raise refresh_failed()
        refresh_hash = tokens.digest(refresh_token)
        # Read first, because whoever once had a token can send it, and writers may have to queue.
        found = await self._database.read(
            lambda uow: uow.sessions.find(session_id), point=True, deadline=call.deadline
        )
        if found is None:
            raise refresh_failed()
        verdict = judge_refresh(found, refresh_hash, active=found["active"])
        owner_id = call.trail.subject = found["owner_id"]
        if verdict in (Refresh.ROTATE, Refresh.REPEAT):
            session, verdict = await self._database.write(
                lambda uow: self._go_on(uow, owner_id, refresh_token, device, call), deadline=call.deadline
            )
            if session is not None:
                return session
        if verdict is Refresh.REUSED and await self._database.write(
            lambda uow: end_session(uow, owner_id, session_id), deadline=call.deadline
        ):
            copied = "a refresh token was used after its time: its session is ended"
            _log.warning(copied, user_id=owner_id, session_id=session_id, address=device.address)
        raise refresh_failed()

    def _go_on(
        self, uow: UnitOfWork, owner_id: str, refresh_token: str, device: Device, call: Call
    ) -> tuple[Session | None, Refresh]:
        tokens = self._tokens.refresh
        row = uow.sessions.lock(owner_id, tokens.session_of(refresh_token) or "")
        if row is None:
            return None, Refresh.OVER
        user = uow.users.get(EVERYONE, owner_id)
        verdict = judge_refresh(row, tokens.digest(refresh_token), active=user["active"])
        successors = tokens.successors(refresh_token)
        successor = successors[0]
        if verdict is Refresh.ROTATE:
            uow.sessions.rotate(row, tokens.digest(successor), device)
        elif verdict is Refresh.REPEAT:
            # Whoever replaced it may have had another key to make the successor by.
            kept = (each for each in successors if tokens.digest(each) == row["refresh_hash"])
            successor = next(kept, successors[0])
            uow.sessions.touch(row, device)
        else:
            return None, verdict
        record(uow, call, user_id=owner_id, target_id=row["id"])
        return self._session(uow, user, row["id"], successor, row["expire_time"]), verdict

    def _add(self, uow: UnitOfWork, user_id: str, password_hash: str | None, device: Device) -> Session:
        try:
            user = uow.users.lock(EVERYONE, user_id)
        except NotFound:
            raise login_failed() from None
        # The comparison took long: a password or a standing that changed meanwhile opens nothing.
        if not user["active"] or user["password_hash"] != password_hash:
            raise login_failed()
        session_id, end = new_id(), user["clock"] + self._tokens.session_life
        refresh_token = self._tokens.refresh.first(session_id)
        refresh_hash = self._tokens.refresh.digest(refresh_token)
        uow.sessions.add(user_id, session_id, refresh_hash=refresh_hash, expire_time=end, device=device)
        return self._session(uow, user, session_id, refresh_token, end)

    def _session(
        self, uow: UnitOfWork, user: Row, session_id: str, refresh_token: str, end: dt.datetime
    ) -> Session:
        token, access_end = self._tokens.issue(
            user["id"], session_id, Role[user["role"]], now=uow.now, session_end=end
        )
        return Session(session_id, token, access_end, refresh_token, end, user)


def _asked(uow: UnitOfWork, counts: Counts, email: str) -> Row | None:
    throttle.look(uow, counts)
    return uow.users.find_by_email(email)
