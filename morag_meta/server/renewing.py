"""Renewing what the database keeps of an old generation of a secret, batch by batch, and what cannot be.

Hashes of API keys, reset tokens, accounts and requests, and sealed credentials, are made into those of the
generation that makes now. What a client holds is not here to be renewed: access tokens end by themselves,
refresh tokens are replaced when they are used, and page and resume tokens are made again. How the
generations follow each other is ``server/rotation.py``'s matter.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from morag_meta.audit.actions import note_operator
from morag_meta.auth.credentials import CredentialRing, UnreadableCredentialError
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.refresh_tokens import RefreshTokens
from morag_meta.auth.renewals import KEYS, REQUESTS, RESETS, TRIES, Hashed
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.tries import TryKey, key_of
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.errors import Collision
from morag_meta.servers.secrets import resealed
from morag_meta.uow import UnitOfWork

T = TypeVar("T")
_BATCH: Final = 500  # rows of one transaction
_TIMES: Final = 20  # that a batch is tried, when others change the same rows
_PURPOSES: Final = {
    "api-key": KEYS,
    "password-reset": RESETS,
    "request-fingerprint": REQUESTS,
    "tries": TRIES,
}


@dataclass(frozen=True, slots=True)
class Made:
    """What the database keeps of one secret: rows by the id of the generation that made them."""

    rows: dict[str, int]
    """Of each generation that is given, also of one that made nothing; the one that makes now is first."""
    unknown: int
    """Rows that no generation that is given can read."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the database keeps of each secret, what is left of old generations, and sessions that go on."""

    root: Made
    """Of the root secret, whose id is what hashes of API keys begin with."""
    ring: Made
    """Servers by the keys of their credentials, counted with each key where those are two."""
    hashes: dict[str, int]
    """Rows by table that the generation that makes now did not make."""
    credentials: int
    sessions: int
    last_session: dt.datetime | None
    """When the last of those sessions ends."""

    @property
    def rows(self) -> int:
        """How many rows only an old generation can read."""
        return sum(self.hashes.values()) + self.credentials


class Renewing:
    """Renews by the generations that are in force."""

    def __init__(self, database: Database, secrets: RootSecrets, ring: CredentialRing) -> None:
        """Work on a database; the first secret and the active key make, the others are read."""
        self._database = database
        self._ring = ring
        self._hashers = {name: KeyHasher(secrets.keys(name)) for name in _PURPOSES}
        self._tokens = RefreshTokens(secrets.keys("refresh-token"))

    def renew(self) -> dict[str, int]:
        """Renew every row that can be, and give their numbers by table."""
        done = {hashed.name: self._renew(hashed, self._hashers[name]) for name, hashed in _PURPOSES.items()}
        return done | {"servers": self._reseal()}

    def held(self) -> Held:
        """Say what there is of each generation, and what is left that only an old one can read."""
        with self._database.unit_of_work() as uow:
            tallies = {name: uow.makers.tally(hashed) for name, hashed in _PURPOSES.items()}
            old = {
                hashed.name: sum(tallies[name].values())
                - tallies[name].get(self._hashers[name].generations[0], 0)
                for name, hashed in _PURPOSES.items()
            }
            ids = self._ring.ids
            ring = Made({each: uow.makers.sealed_by(each) for each in ids}, uow.makers.sealed_by_none(ids))
            credentials = uow.makers.sealed_by_none(ids[:1])
            found = uow.renewals.old_sessions(self._tokens.generations[0])
        return Held(self._made(tallies), ring, old, credentials, int(found["rows"]), found["last"])

    def _made(self, tallies: dict[str, dict[str, int]]) -> Made:
        """Add up by generation what each purpose's keys, which have names of their own, made."""
        ids, rows = self._hashers["api-key"].generations, dict[str, int]()
        for place, each in enumerate(ids):
            made = (tallies[name].get(self._hashers[name].generations[place], 0) for name in _PURPOSES)
            rows[each] = rows.get(each, 0) + sum(made)
        return Made(rows, sum(sum(tally.values()) for tally in tallies.values()) - sum(rows.values()))

    def end_sessions(self) -> int:
        """End the sessions whose refresh tokens an old generation made, and give their number."""

        def end(uow: UnitOfWork) -> int:
            uow.epoch.lock()
            ended = uow.renewals.end_sessions(self._tokens.generations[0])
            if ended:
                uow.epoch.bump()
                note_operator(uow, "secrets rotate", "secrets.end_sessions")
            return ended

        return self._write(end)

    def _renew(self, hashed: Hashed, hasher: KeyHasher) -> int:
        def batch(uow: UnitOfWork, after: Any) -> tuple[int, list[Row]]:
            rows = uow.renewals.old(hashed, hasher.generations[0], after, _BATCH)
            new = [(row, hasher.renewed(row[hashed.column.name])) for row in rows]
            known = [(row, made) for row, made in new if made is not None]
            if hashed is TRIES:
                for row, account in sorted(known, key=lambda each: key_of(each[0])):
                    uow.tries.move(TryKey(row["kind"], row["account"], row["address"]), account)
            else:
                uow.renewals.renew(hashed, known)
            return len(known), rows

        return self._walk(batch, hashed.order.name, None)

    def _reseal(self) -> int:
        def batch(uow: UnitOfWork, after: Any) -> tuple[int, list[Row]]:
            rows = uow.renewals.sealed(self._ring.active, after, _BATCH)
            changed = 0
            for row in rows:
                try:
                    anew = resealed(self._ring, row)
                except UnreadableCredentialError:
                    continue  # damaged, or of a key that is not there: it stays what it is
                for name, sealed in anew.items():
                    uow.renewals.reseal(row, name, sealed)
                changed += 1
            return changed, rows

        return self._walk(batch, "id", "")

    def _walk(self, batch: Callable[[UnitOfWork, Any], tuple[int, list[Row]]], order: str, first: Any) -> int:
        """Renew batch after batch; what cannot be renewed is met once, and passed by."""
        total, after = 0, first
        while True:
            at = after
            changed, rows = self._write(lambda uow, at=at: batch(uow, at))  # type: ignore[misc]
            total += changed
            if len(rows) < _BATCH or (not changed and rows[-1][order] == after):
                return total
            after = rows[-1][order]

    def _write(self, work: Callable[[UnitOfWork], T]) -> T:
        for turn in range(_TIMES):
            try:
                with self._database.unit_of_work() as uow:
                    result = work(uow)
                    uow.commit()
                    return result
            except Collision:
                if turn == _TIMES - 1:
                    raise
                time.sleep(0.05 * (turn + 1))
        raise AssertionError
