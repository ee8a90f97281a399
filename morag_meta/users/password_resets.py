"""How a forgotten password is replaced: asking, taking a token, and using it once.

Anybody may ask for any email, and learns nothing by it. A trusted service takes what was asked for, and
delivers the tokens; who holds one sets a new password. What a new password ends is ``users/actions.py``'s.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Final

import structlog

from morag_meta.auth import throttle
from morag_meta.auth.generations import Keys, found_by
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.passwords import Passwords, check_password
from morag_meta.auth.throttle import Counts, Throttle
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import Exhausted, Unavailable, not_found
from morag_meta.rpc.call import Call
from morag_meta.rpc.standing import prove
from morag_meta.rpc.trail import record
from morag_meta.uow import UnitOfWork
from morag_meta.users import actions
from morag_meta.users.rules import LONGEST_EMAIL, normalize_email, reset_failed

_TOKEN_BYTES: Final = 32
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reset:
    """A token, shown this once, and the row of the user whose password it replaces until then."""

    token: str
    expire_time: dt.datetime
    user: Row


class ResetTokens:
    """Gives out tokens, of which the database keeps keyed hashes."""

    def __init__(self, keys: bytes | Keys, life: dt.timedelta) -> None:
        """Give them out for so long, hashed by this key, or by what gives those in force."""
        self._hasher = KeyHasher(keys)
        self.life = life

    def issue(self, uow: UnitOfWork, email: str) -> Reset | None:
        """Give the active user of a normalised email a token in place of the one before; None for nobody."""
        found = uow.users.find_by_email(email)
        if found is None:
            return None
        user = uow.users.lock(EVERYONE, found["id"])
        if not user["active"] or user["email"] != email:
            return None
        token, end = secrets.token_urlsafe(_TOKEN_BYTES), user["clock"] + self.life
        uow.resets.add(user["id"], token_hash=self._hasher.digest(token), expire_time=end)
        return Reset(token, end, user)

    def digests(self, token: str) -> tuple[str, ...]:
        """Give the hashes under which a token may be kept."""
        return self._hasher.digests(token)


class PasswordResets:
    """Resets passwords."""

    def __init__(
        self, database: Database, passwords: Passwords, throttle: Throttle, tokens: ResetTokens
    ) -> None:
        """Work with these parts."""
        self._database = database
        self._passwords = passwords
        self._throttle = throttle
        self._tokens = tokens

    async def ask(self, email: str, call: Call) -> None:
        """Note that somebody asks for a token; the same work whether the email is anybody's or not.

        Raises:
            Exhausted: too many were asked for from this address.
        """
        normal = normalize_email(email)
        by_address, by_account = self._throttle.reset_request(normal, call.address)

        def note(uow: UnitOfWork) -> None:
            throttle.take(uow, by_address)
            try:
                throttle.take(uow, by_account)
            except Exhausted:  # silently: each is a message to somebody who may not have asked for it
                return
            if len(normal) <= LONGEST_EMAIL:
                uow.resets.ask(normal)
            record(uow, call)

        await self._database.write(note, deadline=call.deadline)

    async def take(self, limit: int, call: Call) -> list[Reset]:
        """Give tokens to those who asked, the first who asked first; what nobody has is dropped."""

        def taken(uow: UnitOfWork) -> list[Reset]:
            prove(uow, call)
            asked = uow.resets.take_requests(limit)
            issued = [self._tokens.issue(uow, email) for email in sorted(row["email"] for row in asked)]
            if asked:  # to find nobody is to change nothing
                record(uow, call)
            return [reset for reset in issued if reset is not None]

        resets = await self._database.write(taken, deadline=call.deadline)
        _tell(resets, call)
        return resets

    async def create(self, email: str, call: Call) -> Reset:
        """Give the user of an email a token.

        Raises:
            NotFound: there is no active user of that email.
        """
        normal = normalize_email(email)

        def issued(uow: UnitOfWork) -> Reset | None:
            prove(uow, call)
            reset = self._tokens.issue(uow, normal)
            if reset is not None:
                record(uow, call, target_id=reset.user["id"])
            return reset

        reset = await self._database.write(issued, deadline=call.deadline)
        if reset is None:
            raise not_found("user", email)
        _tell([reset], call)
        return reset

    async def use(self, request: Any, call: Call) -> None:
        """Do what a ``ResetPasswordRequest`` asks for; nothing, where it is a repeat.

        Raises:
            Invalid: the new password is none, or too short.
            Unauthenticated: RESET_TOKEN_INVALID.
            Exhausted: too many wrong tokens came from this address.
            Unavailable: too many passwords wait to be hashed.
        """
        check_password(request.new_password, "new_password", new=True)
        hashes = self._tokens.digests(request.token)
        counts = self._throttle.reset(call.address)
        found = await self._database.read(lambda uow: _found(uow, counts, hashes), deadline=call.deadline)
        call.trail.subject = "" if found is None else found["owner_id"]
        counts = await self._database.write(lambda uow: throttle.take(uow, counts), deadline=call.deadline)
        try:
            new_hash = None if found is None else await self._passwords.hash(request.new_password)
        except Unavailable:
            await self._database.write(lambda uow: throttle.give_back(uow, counts))
            raise

        def replace(uow: UnitOfWork) -> None:
            if uow.requests.claim(call, request) is None:
                if found is None or new_hash is None:
                    raise reset_failed()
                self._replace(uow, found, hashes, new_hash)
                record(uow, call, user_id=found["owner_id"], target_id=found["owner_id"])
                uow.requests.settle(call, request, {})
            throttle.give_back(uow, counts)

        await self._database.write(replace, deadline=call.deadline)

    def _replace(self, uow: UnitOfWork, found: Row, hashes: tuple[str, ...], new_hash: str) -> None:
        uow.epoch.lock()
        user = uow.users.lock(EVERYONE, found["owner_id"])
        reset = uow.resets.lock(user["id"])
        # Hashing took long: the token may have been used, replaced or voided meanwhile.
        if reset is None or not any(hmac.compare_digest(reset["token_hash"], each) for each in hashes):
            raise reset_failed()
        if reset["expire_time"] <= reset["clock"] or not user["active"]:
            raise reset_failed()
        actions.set_password(uow, user, new_hash)
        self._throttle.forget(uow, user_id=user["id"], email=user["email"])


def _found(uow: UnitOfWork, counts: Counts, hashes: tuple[str, ...]) -> Row | None:
    """Give a token that works at this moment."""
    throttle.look(uow, counts)
    found = found_by(hashes, uow.resets.find)
    if found is None or not found["active"] or found["expire_time"] <= found["clock"]:
        return None
    return found


def _tell(resets: list[Reset], call: Call) -> None:
    for reset in resets:
        _log.info(
            "reset of a password", user_id=reset.user["id"], given_to=call.own, key_id=call.principal.key_id
        )
