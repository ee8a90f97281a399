"""Request records: what makes a retried write happen once (AIP-155).

A record is claimed in the transaction of the write that it stands for, before anything else is done,
so that of two calls with one request id the second waits for the first, and then finds its receipt.
Which methods use it, and what a repeat answers, is ``rpc/methods.py``'s matter.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterator
from typing import Any, Final, Protocol

import sqlalchemy as sa

from morag_meta.db.clock import Clock, clock
from morag_meta.db.schema import metadata
from morag_meta.db.schema import request_records as records
from morag_meta.db.statements import Path, end_of_batch, owned, system
from morag_meta.db.sweep import sweep
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import Invalid, Reason, Violation

KEPT: Final = dt.timedelta(hours=24)
"""How long a request id is remembered, by the database's clock."""

_KEY = (
    owned(records),
    records.c.method == sa.bindparam("method_name"),
    records.c.request_id == sa.bindparam("id"),
)
_FIND = sa.select(records.c.fingerprint, records.c.receipt, records.c.create_time, clock).where(*_KEY)
_CLAIM = sa.insert(records).values(
    owner_id=sa.bindparam("owner_id"),
    method=sa.bindparam("method_name"),
    request_id=sa.bindparam("id"),
    fingerprint=sa.bindparam("fingerprint"),
    create_time=Clock(),
)
_SETTLE = sa.update(records).where(*_KEY).values(receipt=sa.bindparam("new_receipt"))
_FORGET = sa.delete(records).where(*_KEY)
_WHY_SWEPT: Final = "old records of every caller go"
_SWEEP_END = end_of_batch(records.c.create_time, _WHY_SWEPT)
_SWEEP = system(
    sa.delete(records).where(records.c.create_time <= sa.bindparam("last")), _WHY_SWEPT, Path.SWEEPER
)
_DELETE_ALL = sa.delete(records).where(owned(records))
# Read, and then forgotten one by one: a deletion by it would wait for every record that is being written.
_WHY_ABOUT: Final = "what anybody did to a user who is deleted, or to what was theirs, names it"
_TOLD = system(
    sa.select(records.c.owner_id, records.c.method, records.c.request_id)
    .add_columns(sa.type_coerce(records.c.receipt, sa.Text).label("told"), records.c.create_time)
    .where(records.c.receipt.is_not(None))
    .order_by(records.c.create_time, records.c.owner_id, records.c.method, records.c.request_id)
    .limit(sa.bindparam("limit", type_=sa.Integer)),
    _WHY_ABOUT,
    Path.PURGE,
)
_NEXT_TOLD = system(
    _TOLD.where(
        records.c.create_time >= sa.bindparam("after_create_time", type_=records.c.create_time.type),
        sa.or_(
            records.c.create_time > sa.bindparam("after_create_time", type_=records.c.create_time.type),
            sa.tuple_(records.c.owner_id, records.c.method, records.c.request_id)
            > sa.tuple_(
                sa.bindparam("after_owner_id", type_=sa.String()),
                sa.bindparam("after_method", type_=sa.String()),
                sa.bindparam("after_request_id", type_=sa.String()),
            ),
        ),
    ),
    _WHY_ABOUT,
    Path.PURGE,
)
_BATCH: Final = 1000
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_THINGS = tuple(
    sa.select(table.c.id).where(owned(table))
    for table in metadata.sorted_tables
    if {"id", "owner_id"} <= set(table.c.keys())
)
_LOCK_THINGS = tuple(statement.with_for_update() for statement in _THINGS)


class Identified(Protocol):
    """A request message with the field ``request_id``."""

    request_id: str


class Caller(Protocol):
    """What a claim needs to know of the call; ``rpc.call.Call`` is one."""

    method: str
    replayed: bool

    @property
    def own(self) -> str:
        """The caller's user id, empty for a public method."""

    def fingerprints(self, request: Any) -> tuple[str, ...]:
        """Keyed hashes of the request without its request id: the one to keep, and others it may have."""


class RequestStore:
    """The records of what request ids did."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def claim(self, call: Caller, request: Identified) -> dict[str, Any] | None:
        """Claim the request id, or give the receipt of the call that used it.

        Sets ``call.replayed``. A request without an id claims nothing.

        Raises:
            Invalid: the id was used with another body (REQUEST_ID_REUSED).
            Collision: another call is working under the same id.
        """
        call.replayed = False
        if not request.request_id:
            return None
        key = {"owner_id": call.own, "method_name": call.method, "id": request.request_id}
        fingerprints = call.fingerprints(request)
        found = self._unit.one(_FIND, **key)
        if found is not None and found["create_time"] > found["clock"] - KEPT:
            if found["fingerprint"] not in fingerprints:
                raise _reused(request.request_id)
            call.replayed = True
            receipt: dict[str, Any] = found["receipt"] or {}
            return receipt
        if found is not None:
            self._unit.run(_FORGET, **key)
        self._unit.run(_CLAIM, **key, fingerprint=fingerprints[0])
        self._unit.recorded = True
        return None

    def settle(self, call: Caller, request: Identified, receipt: dict[str, Any]) -> None:
        """Note what a repeat of the claimed request needs to answer; JSON values only."""
        if request.request_id:
            key = {"owner_id": call.own, "method_name": call.method, "id": request.request_id}
            self._unit.run_soon(_SETTLE, **key, new_receipt=receipt)

    def give_back(self, call: Caller, request: Identified) -> None:
        """Forget a claim of this transaction, so that a repeat is no repeat."""
        if request.request_id:
            self._unit.run(_FORGET, owner_id=call.own, method_name=call.method, id=request.request_id)

    def sweep(self, limit: int = 1000) -> int:
        """Remove the oldest records that are older than they are kept, and give their number.

        Once that is less than ``limit``, none is left.
        """
        return sweep(self._unit, _SWEEP_END, _SWEEP, limit, KEPT)

    def things_of(self, owner_id: str) -> set[str]:
        """Give the ids of everything that is a user's, by which records of others may name it."""
        return {row["id"] for statement in _THINGS for row in self._unit.all(statement, owner_id=owner_id)}

    def lock_things_of(self, owner_id: str) -> set[str]:
        """Give the ids as ``things_of`` does, of what nobody else changes before this unit ends."""
        return {row["id"] for each in _LOCK_THINGS for row in self._unit.all(each, owner_id=owner_id)}

    def delete_all(self, owner_id: str) -> None:
        """Remove the records of one caller."""
        self._unit.run(_DELETE_ALL, owner_id=owner_id)

    def forget_about(self, ids: Collection[str], since: dt.datetime | None = None) -> None:
        """Remove everybody's records, those made since a time or all, that name one of the ids."""
        gone = frozenset(ids)
        for row in self._told(since):
            if not gone.isdisjoint(_ID.findall(str(row["told"]))):
                key = {"owner_id": row["owner_id"], "method_name": row["method"], "id": row["request_id"]}
                self._unit.run(_FORGET, **key)

    def _told(self, since: dt.datetime | None) -> Iterator[Row]:
        """Give every record with a receipt, page by page."""
        first = dict.fromkeys(("after_owner_id", "after_method", "after_request_id"), "")
        begin = {} if since is None else {"after_create_time": since, **first}
        rows = self._unit.all(_TOLD if since is None else _NEXT_TOLD, limit=_BATCH, **begin)
        while rows:
            yield from rows
            names = ("create_time", "owner_id", "method", "request_id")
            after = {f"after_{name}": rows[-1][name] for name in names}
            rows = self._unit.all(_NEXT_TOLD, limit=_BATCH, **after) if len(rows) == _BATCH else []


def _reused(request_id: str) -> Invalid:
    description = "was used with another request; a new request needs a new id"
    return Invalid(
        f"request_id: {description}",
        reason=Reason.REQUEST_ID_REUSED,
        metadata={"request_id": request_id},
        violations=[Violation("request_id", description)],
    )
