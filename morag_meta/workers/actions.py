"""What is done for workers, in one unit of work: jobs are leased to them, and their leases renewed.

Which jobs a worker takes is decided in ``rules.py``; what a lease does to a job in ``jobs/leases.py``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from morag_meta.auth.narrowing import Narrowing, Reach
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import NotFound, WrongState
from morag_meta.jobs import leases
from morag_meta.jobs.limits import Overdue, judge
from morag_meta.jobs.rules import INGESTION, Holder, Verb
from morag_meta.jobs.wanted import Wanted
from morag_meta.uow import UnitOfWork
from morag_meta.workers.rules import Appetite

_SPARE: Final = 40
"""How many candidates are looked at beside those that are wanted: others take some at the same time."""
_MOST_BYTES: Final = 3 * 1024 * 1024
"""Above which no further job is leased, so that the answer stays below gRPC's limit of 4 MiB."""


class Measured(Protocol):
    """Something whose size in an answer is known; a message is."""

    def ByteSize(self) -> int:  # noqa: N802 - as protobuf calls it
        """Give the size in bytes."""


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that was leased, and what its worker needs to know of it."""

    job: Row
    checkpoint: bytes
    document: Row | None
    database: Row | None


@dataclass(frozen=True, slots=True)
class Haul(Generic[M]):
    """What a worker got, as it is shown.

    Where it got nothing, ``passed_by`` are the jobs that others held, or that are only left to fail.
    """

    leases: list[M]
    passed_by: frozenset[str] = frozenset()


class Verdict(enum.Enum):
    """What a worker is to do with its job."""

    GO_ON = "GO_ON"
    CANCEL = "CANCEL"
    LOST = "LOST"


def lease_jobs(
    uow: UnitOfWork,
    worker: Row,
    appetite: Appetite,
    *,
    most: int,
    lease_ms: int,
    show: Callable[[Taken], M],
    without: frozenset[str] = frozenset(),
) -> Haul[M]:
    """Lease at most so many jobs to a worker, the next first, but none ``without`` which it is to do.

    Nothing waits for a lock here: what somebody else has locked, most likely to lease it, is passed by.
    """
    wanted = wanted_by(appetite, without)
    shown: list[M] = []
    had: list[Row] = []
    passed_by: set[str] = set()
    size = 0
    for candidate in uow.queue.candidates(wanted, most + max(_SPARE, len(without))):
        row = None if _is_over(candidate) else _lock_if_free(uow, candidate, appetite.narrowing)
        if row is None or not _waits(row, appetite):
            passed_by.add(candidate["id"])
        elif not _is_over(row) and (leased := _lease(uow, row, worker["id"], lease_ms)) is not None:
            had.append(candidate)
            shown.append(show(_with_circumstances(uow, leased)))
            size += shown[-1].ByteSize()
            if len(shown) == most or size >= _MOST_BYTES:
                break
    if wanted.reach == EVERYONE:
        uow.queue.turns.note(had)
    return Haul(shown, frozenset() if shown else frozenset(passed_by))


def held_leases(
    uow: UnitOfWork,
    worker: Row,
    noted: Iterable[tuple[str, int]],
    show: Callable[[Taken], M],
    narrowing: Narrowing | None = None,
) -> Haul[M]:
    """Give those leases of a worker, each noted as a job's id and its attempt, that it still holds.

    Within a narrowing are those whose document has not left it meanwhile.
    """
    now, held = uow.queue.now(), []
    for job_id, attempt in noted:
        with contextlib.suppress(NotFound):
            row = uow.jobs.get(Reach(EVERYONE, narrowing), job_id)
            if narrowing is not None:
                uow.documents.get(Reach(row["owner_id"], narrowing), row["document_id"])
            same = row["attempt"] == attempt and row["worker_id"] == worker["id"]
            if same and row["state"] == "PROCESSING" and now < row["lease_expire_time"]:
                held.append(show(_with_circumstances(uow, row)))
    return Haul(held)


def renew_lease(
    uow: UnitOfWork, row: Row, holder: Holder, checkpoint: bytes | None
) -> tuple[Verdict, dt.datetime | None]:
    """Renew the lease of a locked job if its holder asks; say what the holder is to do, and until when.

    ``checkpoint`` is saved for the next attempt; empty removes what is there, and None keeps it.
    """
    if not leases.is_held(row, holder):
        called_off = row["state"] == "CANCELLED" and holder.shows(row)
        return (Verdict.CANCEL if called_off else Verdict.LOST), None
    expire_time = leases.renewal(row)["lease_expire_time"]
    uow.jobs.renew(row, expire_time)
    if checkpoint is not None:
        uow.queue.save_checkpoint(row, checkpoint)
    return Verdict.GO_ON, expire_time


def wanted_by(appetite: Appetite, without: frozenset[str] = frozenset()) -> Wanted:
    """Give what is asked for by an appetite, but for some jobs."""
    parts = appetite.states, appetite.kinds, appetite.document_types
    return Wanted(appetite.owner_id, *parts, appetite.narrowing, without)


def _lock_if_free(uow: UnitOfWork, candidate: Row, narrowing: Narrowing | None) -> Row | None:
    """Lock a job, and before it the document that an INGESTION job carries along, unless somebody has.

    Within a narrowing any document, so that what is shown of it has not left.
    """
    if candidate["kind"] == INGESTION or narrowing is not None:
        reach = Reach(candidate["owner_id"], narrowing)
        document = uow.documents.lock_if_free(reach, candidate["document_id"])
        if document is None:
            return None
    return uow.jobs.lock_if_free(candidate["owner_id"], candidate["id"])


def _waits(row: Row, appetite: Appetite) -> bool:
    """Whether a locked job still waits for such a worker, and its time has come."""
    return appetite.wants(row) and (row["not_before"] is None or row["not_before"] <= row["clock"])


def _is_over(row: Row) -> bool:
    """Whether a waiting job is only left to fail, which is the reaper's matter."""
    overdue = judge(row)
    return overdue is not None and overdue[0] is Overdue.FAIL


def _lease(uow: UnitOfWork, row: Row, worker_id: str, lease_ms: int) -> Row | None:
    """Lease a locked job; one whose document cannot be ingested is called off, as nobody ever can run it."""
    try:
        return leases.lease(uow, row, worker_id=worker_id, lease_ms=lease_ms)
    except WrongState:
        uow.jobs.end(row, Verb.CANCEL, summary="the document cannot be ingested")
        return None


def _with_circumstances(uow: UnitOfWork, job: Row) -> Taken:
    document: Row | None = None
    database: Row | None = None
    owner = job["owner_id"]
    if job["document_id"] is not None:
        document, database = _document_with_database(uow, owner, job["document_id"])
    checkpoint = uow.queue.checkpoint(owner, job["id"]) if job["attempt"] > 1 else b""
    return Taken(job, checkpoint, document, database)


def _document_with_database(uow: UnitOfWork, owner_id: str, document_id: str) -> tuple[Row, Row | None]:
    """Give a document and the database that it is in, which may be deleted between the two looks.

    For only the document of a new INGESTION lease is locked here, or of one by a narrowed key.
    """
    document = uow.documents.get(owner_id, document_id)
    if document["database_id"] is None:
        return document, None
    try:
        return document, uow.databases.get(owner_id, document["database_id"])
    except NotFound:
        return uow.documents.get(owner_id, document_id), None
