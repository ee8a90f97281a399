"""How a user is deleted who may have very many jobs and documents: in parts, and the rest in one transaction.

The row of the log and that of the epoch keep others waiting while they are held. So jobs and documents go
first, a part in each transaction, and the last one finds what came meanwhile. What is left after each part is
whole, and a deletion that was broken off is finished by the next. What goes in the last transaction, and in
which order, stands in ``actions.py``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from morag_meta.auth.throttle import Throttle
from morag_meta.db.clock import read_clock
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.errors import NotFound
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag
from morag_meta.rpc.standing import prove
from morag_meta.rpc.trail import record
from morag_meta.uow import UnitOfWork
from morag_meta.users import actions

_MEANWHILE: Final = dt.timedelta(minutes=1)
"""Longer than any transaction lasts that began before a row was locked, or could be seen."""
_ROUNDS: Final = 5  # for what is made, or held by somebody else, while the rest goes


class Removals(Protocol):
    """What removes a part of a user's rows of one kind within a unit of work."""

    def take(self, owner_id: str, ids: Sequence[str], /) -> list[str]:
        """Lock what may be removed, so that nobody else changes it, and give its ids."""

    def remove(self, owner_id: str, ids: Sequence[str], /) -> None:
        """Remove what was taken."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that one transaction removes."""

    of: Callable[[UnitOfWork], Removals]
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a user had at a time: the ids of everything, and what of it is to go in parts."""

    time: dt.datetime
    things: set[str]
    parts: Sequence[_Part]


@dataclass(slots=True)
class _Told:
    """What others' requests name no more: of what they did up to ``since``, none names any of ``gone``."""

    gone: set[str] = field(default_factory=set)
    since: dt.datetime | None = None


class Deletions:
    """Deletes users."""

    def __init__(self, database: Database, throttle: Throttle) -> None:
        """Work with these parts."""
        self._database = database
        self._throttle = throttle

    async def delete(self, request: Any, call: Call) -> None:
        """Do what a ``DeleteUserRequest`` asks for; nothing, where it is a repeat.

        Raises:
            NotFound: there is no such user.
            Stale: the user is not as the etag says (ETAG_MISMATCH).
            WrongState: the user is active (USER_ACTIVE).
            DeadlineExceeded: the deadline passed before everything was gone; a repeat goes on.
        """
        told = _Told()
        with contextlib.suppress(NotFound):  # where somebody was faster, what comes last knows what to answer
            await self._empty(request, call, told)
        await self._database.write(lambda uow: self._finish(uow, request, call, told), deadline=call.deadline)

    async def _empty(self, request: Any, call: Call, told: _Told) -> None:
        """Remove jobs and documents in parts, until none is seen."""
        owner = await self._database.write(lambda uow: _begin(uow, request, call), deadline=call.deadline)
        for _ in range(_ROUNDS if owner else 0):
            look = partial(_look, owner_id=owner)
            seen = await self._database.read(look, snapshot=True, deadline=call.deadline)
            told.gone |= seen.things
            forget = partial(_forget, told=told, since=told.since)
            since = await self._database.write(forget, deadline=call.deadline)
            told.since = seen.time - _MEANWHILE
            if not seen.parts:
                return
            for part in seen.parts:
                remove = partial(_remove, request=request, call=call, part=part, told=told, since=since)
                since = await self._database.write(remove, deadline=call.deadline)

    def _finish(self, uow: UnitOfWork, request: Any, call: Call, told: _Told) -> None:
        if uow.requests.claim(call, request) is not None:
            return
        row = _admit(uow, request, call)
        actions.delete_user(uow, row, known=told.gone, since=told.since)
        self._throttle.forget(uow, user_id=row["id"], email=row["email"])
        record(uow, call)
        uow.requests.settle(call, request, {})


def _begin(uow: UnitOfWork, request: Any, call: Call) -> str:
    """Give the id of the user who is to be deleted; none for a repeat of a call that did it."""
    if uow.requests.claim(call, request) is not None:
        return ""
    uow.requests.give_back(call, request)  # it is claimed where it is done
    owner_id: str = _admit(uow, request, call)["id"]
    return owner_id


def _admit(uow: UnitOfWork, request: Any, call: Call) -> Row:
    """Prove who calls, and give the user, locked, if that is one to be deleted."""
    prove(uow, call)
    row = actions.lock_standing(uow, call.whole_reach, call.user_named(request.id))
    check_etag(request.etag, row)
    actions.check_inactive(row)
    return row


def _look(uow: UnitOfWork, owner_id: str) -> _Seen:
    time = read_clock(uow)  # before anything else is read
    things = {owner_id, *uow.requests.things_of(owner_id)}
    jobs = [_Part(lambda uow: uow.job_removals, ids) for ids in uow.job_removals.batches(owner_id)]
    documents = [
        _Part(lambda uow: uow.document_removals, ids) for ids in uow.document_removals.batches(owner_id)
    ]
    return _Seen(time, things, [*jobs, *documents])


def _forget(uow: UnitOfWork, told: _Told, since: dt.datetime | None) -> dt.datetime:
    """Have requests name nothing that goes; give the time from which on others may do so again."""
    now = read_clock(uow)
    uow.requests.forget_about(told.gone, since)
    return now - _MEANWHILE


def _remove(
    uow: UnitOfWork, request: Any, call: Call, part: _Part, told: _Told, since: dt.datetime
) -> dt.datetime:
    """Remove a part, and have requests forget it while it is locked: a later call would not know its ids."""
    owner_id = _admit(uow, request, call)["id"]
    removals = part.of(uow)
    taken = removals.take(owner_id, part.ids)
    since = _forget(uow, told, since)
    removals.remove(owner_id, taken)
    return since
