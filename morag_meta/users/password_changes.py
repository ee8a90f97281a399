"""How a user's own password is changed by who knows the present one: two hashes, and one transaction.

What a new password ends is ``users/actions.py``'s, and how often may be tried ``auth/throttle.py``'s.
"""

from __future__ import annotations

from typing import Any

from morag_meta.auth import throttle
from morag_meta.auth.passwords import Passwords, check_password
from morag_meta.auth.throttle import Counts, Throttle
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.errors import Reason, Stale, Unauthenticated, Unavailable
from morag_meta.rpc.call import Call
from morag_meta.rpc.standing import prove
from morag_meta.rpc.trail import record
from morag_meta.uow import UnitOfWork
from morag_meta.users import actions


class PasswordChanges:
    """Changes passwords of users who are logged in."""

    def __init__(self, database: Database, passwords: Passwords, throttle: Throttle) -> None:
        """Work with these parts."""
        self._database = database
        self._passwords = passwords
        self._throttle = throttle

    async def change(self, request: Any, call: Call) -> None:
        """Do what a ``ChangePasswordRequest`` asks for; nothing, where it is a repeat.

        Raises:
            Invalid: a password is no password, or the new one too short.
            Unauthenticated: PASSWORD_WRONG, or the session is over by now (CREDENTIAL_INVALID).
            Exhausted: it was wrong too often.
            Stale: the password was changed meanwhile (CONFLICT).
            Unavailable: too many passwords wait to be checked.
        """
        check_password(request.current_password, "current_password")
        check_password(request.new_password, "new_password", new=True)
        counts = self._throttle.password(call.own)
        known = await self._database.read(lambda uow: _known(uow, counts, call.own), deadline=call.deadline)
        counts = await self._database.write(lambda uow: throttle.take(uow, counts), deadline=call.deadline)
        try:
            right = await self._passwords.matches(request.current_password, known["password_hash"])
            new_hash = await self._passwords.hash(request.new_password) if right else None
        except Unavailable:
            await self._database.write(lambda uow: throttle.give_back(uow, counts))
            raise
        await self._database.write(
            lambda uow: _replace(uow, request, call, known, new_hash, counts), deadline=call.deadline
        )


def _known(uow: UnitOfWork, counts: Counts, user_id: str) -> Row:
    throttle.look(uow, counts)
    return uow.users.get(user_id, user_id)


def _replace(
    uow: UnitOfWork, request: Any, call: Call, known: Row, new_hash: str | None, counts: Counts
) -> None:
    # First of all, because after the change that is repeated the current password is another one.
    if uow.requests.claim(call, request) is not None:
        throttle.give_back(uow, counts)
        return
    prove(uow, call)
    if new_hash is None:
        raise Unauthenticated("the current password is wrong", reason=Reason.PASSWORD_WRONG)
    row = actions.lock_standing(uow, call.own, call.own)
    if row["password_hash"] != known["password_hash"]:
        raise Stale("the password was changed meanwhile", reason=Reason.CONFLICT)
    actions.set_password(uow, row, new_hash)
    throttle.passed(uow, counts)
    record(uow, call, target_id=call.own)
    uow.requests.settle(call, request, {})
