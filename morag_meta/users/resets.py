"""Every statement over password resets: tokens that were given out, as keyed hashes, and who asked for one.

Whoever asks may name any email, so a request is kept by the email alone: whether a user has it is only
looked up when the request is taken. What a reset does is ``users/password_resets.py``'s.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa

from morag_meta.db.clock import Clock, clock
from morag_meta.db.schema import password_resets as resets
from morag_meta.db.schema import reset_requests as requests
from morag_meta.db.schema import users
from morag_meta.db.statements import Path, end_of_batch, owned, system
from morag_meta.db.sweep import sweep
from morag_meta.db.unit import Row, Unit

_ADD: Final = sa.insert(resets).values(create_time=Clock())
_FIND: Final = system(
    sa.select(resets.c.owner_id, resets.c.token_hash, resets.c.expire_time, users.c.active, clock)
    .join_from(resets, users, users.c.id == resets.c.owner_id)
    .where(resets.c.token_hash == sa.bindparam("hash")),
    "the token is the credential that says whose password it resets",
    Path.LOGIN,
)
_LOCK: Final = (
    sa.select(resets.c.owner_id, resets.c.token_hash, resets.c.expire_time, clock)
    .where(owned(resets))
    .with_for_update()
)
_VOID: Final = sa.delete(resets).where(owned(resets))
_WHY_SWEPT: Final = "tokens of every user go once they are over"
_SWEEP_END: Final = end_of_batch(resets.c.expire_time, _WHY_SWEPT)
_SWEEP: Final = system(
    sa.delete(resets).where(resets.c.expire_time <= sa.bindparam("last")), _WHY_SWEPT, Path.SWEEPER
)

_EMAIL: Final = requests.c.email == sa.bindparam("of_email")
_ASKED: Final = sa.select(requests.c.email).where(_EMAIL)
_ASK: Final = sa.insert(requests).values(ask_time=Clock())
_OLDEST: Final = (
    sa.select(requests.c.email, requests.c.ask_time)
    .order_by(requests.c.ask_time, requests.c.email)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update()
)
_DROP: Final = sa.delete(requests).where(_EMAIL)
_DROP_END: Final = end_of_batch(requests.c.ask_time, "whoever asked need not be a user")
_DROP_OLD: Final = sa.delete(requests).where(requests.c.ask_time <= sa.bindparam("last"))


class ResetStore:
    """Password resets: at most one token of each user, and one request for each email."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def add(self, owner_id: str, *, token_hash: str, expire_time: dt.datetime) -> None:
        """Give a locked user a token in place of the one before; it ends by the database's clock."""
        self.void(owner_id)
        self._unit.run(_ADD, owner_id=owner_id, token_hash=token_hash, expire_time=expire_time)

    def find(self, token_hash: str) -> Row | None:
        """Give owner_id, token_hash and expire_time of a token, its user's active, and the clock."""
        return self._unit.one(_FIND, hash=token_hash)

    def lock(self, owner_id: str) -> Row | None:
        """Give a locked user's token as ``find`` does, without active, and let nobody else use it."""
        return self._unit.one(_LOCK, owner_id=owner_id)

    def void(self, owner_id: str) -> None:
        """Let a user's token be worth nothing."""
        self._unit.run(_VOID, owner_id=owner_id)

    def forget(self, owner_id: str, email: str) -> None:
        """Remove the token of a user who is deleted, and a request for one."""
        self.void(owner_id)
        self._unit.run(_DROP, of_email=email)

    def ask(self, email: str) -> None:
        """Note that a token is asked for, for a normalised email; once, however often it is.

        Raises:
            Collision: somebody else has just asked for it.
        """
        if self._unit.one(_ASKED, of_email=email) is None:
            self._unit.run(_ASK, email=email)

    def take_requests(self, limit: int) -> list[Row]:
        """Take the oldest requests, and forget them: email and ask_time."""
        rows = self._unit.all(_OLDEST, limit=limit)
        for row in rows:
            self._unit.run(_DROP, of_email=row["email"])
        return rows

    def sweep(self, limit: int = 1000) -> int:
        """Remove the tokens that expired first, and give their number."""
        return sweep(self._unit, _SWEEP_END, _SWEEP, limit)

    def sweep_requests(self, age: dt.timedelta, limit: int = 1000) -> int:
        """Remove the oldest requests that nobody took for so long, and give their number."""
        return sweep(self._unit, _DROP_END, _DROP_OLD, limit, age)
