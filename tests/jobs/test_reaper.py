"""What becomes of a job whose time has come: each limit, the lease's end, the fallback, and its document."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import documents, jobs
from morag_meta.ids import new_id
from morag_meta.jobs import actions, leases, reaper
from morag_meta.jobs.actions import Plan, Report
from morag_meta.jobs.limits import Backoff
from morag_meta.jobs.rules import Holder
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.jobs.later import events_of, let_pass, row_of

_BACKOFF = Backoff()


@dataclass(frozen=True)
class Kept:
    """A database and one of its users."""

    database: Database
    owner_id: str

    def create(self, *, ingestion: bool = False, **fields: Any) -> str:
        """Make a job, of a new document if it is an ingestion, and give its id."""
        with self.database.unit_of_work() as uow:
            if ingestion:
                named = {"name": new_id(), "type": "pdf"}
                fields["document_id"] = uow.documents.add(self.owner_id, named)["id"]
            kind = "INGESTION" if ingestion else "X"
            row = actions.create_job(uow, self.owner_id, kind=kind, **fields)
            uow.commit()
        return str(row["id"])

    def lease(self, job_id: str, worker_id: str | None = None) -> str:
        """Lease a job, and give the token."""
        with self.database.unit_of_work() as uow:
            row = leases.lease(uow, actions.lock_with_document(uow, "-", job_id), worker_id=worker_id)
            uow.commit()
        return str(row["lease_token"])

    def reap(self, job_id: str, chance: float = 0.0) -> str | None:
        """Do what is due with a job."""
        with self.database.unit_of_work() as uow:
            done = reaper.handle(uow, job_id, _BACKOFF, chance)
            uow.commit()
        return done

    def document_of(self, job_id: str) -> dict[str, Any]:
        """Give the document of a job."""
        wanted = sa.select(documents).where(documents.c.id == row_of(self.database, job_id)["document_id"])
        with self.database.engine.connect() as connection:
            return dict(connection.execute(wanted).mappings().one())


@pytest.fixture(scope="module")
def kept(backend: Backend) -> Iterator[Kept]:
    """Give a database with one user, which no server serves."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        owner_id = create_user(uow, name="Owner", email="owner@reaper.test")["id"]
        uow.commit()
    yield Kept(database, owner_id)
    database.close()
    backend.drop(url)


def test_nothing_is_done_before_its_time(kept: Kept) -> None:
    """A job that waits or runs within its limits is left as it is, and one that is gone is no fault."""
    job_id = kept.create()
    assert kept.reap(job_id) is None
    kept.lease(job_id)
    let_pass(kept.database, job_id, seconds=80)
    before = row_of(kept.database, job_id)

    assert kept.reap(job_id) is None
    assert row_of(kept.database, job_id) == before
    assert kept.reap(kept.owner_id) is None


@pytest.mark.parametrize("remote", [False, True])
def test_a_lost_lease_lets_the_job_wait_again(kept: Kept, remote: bool) -> None:
    """An expired lease puts the job back to where it waited, after a pause, in one event that tells why."""
    job_id = kept.create(remote=remote)
    kept.lease(job_id, worker_id=kept.owner_id)
    let_pass(kept.database, job_id, seconds=91)

    assert kept.reap(job_id, chance=0.5) == "LEASE_EXPIRED"
    row, told = row_of(kept.database, job_id), events_of(kept.database, job_id)
    assert row["state"] == ("WAITING_FOR_REMOTE_WORKER" if remote else "PENDING")
    assert (row["attempt"], row["lost_leases"], row["failure"]) == (1, 1, None)
    assert row["not_before"] - row["update_time"] == dt.timedelta(seconds=28.5)
    assert row["queue_time"] == row["not_before"]
    assert [row[name] for name in ("worker_id", "lease_token", "lease_ms", "lease_expire_time")] == [None] * 4
    assert row["summary"] == ("the lease of attempt 1 expired (1 of 3); the next attempt may begin in 28.5 s")
    assert [event["number"] for event in told] == [1, 2, 3]
    assert (told[2]["previous_worker_id"], told[2]["worker_id"]) == (kept.owner_id, None)
    assert (told[2]["state"], told[2]["summary"]) == (row["state"], row["summary"])


def test_the_last_lost_lease_fails_the_job(kept: Kept) -> None:
    """Pauses grow from loss to loss, and the third loss of three is FAILED with LEASE_EXPIRED, for ever."""
    job_id, pauses = kept.create(), []
    for attempt in (1, 2, 3):
        kept.lease(job_id)
        let_pass(kept.database, job_id, seconds=91)
        assert kept.reap(job_id) == "LEASE_EXPIRED"
        row = row_of(kept.database, job_id)
        assert (row["attempt"], row["lost_leases"]) == (attempt, attempt)
        if row["not_before"] is not None:
            pauses.append((row["not_before"] - row["update_time"]).total_seconds())
            let_pass(kept.database, job_id, minutes=2)

    assert pauses == [30, 60]
    assert (row["state"], row["failure"], row["due_time"]) == ("FAILED", "LEASE_EXPIRED", None)
    assert row["error"] == "the leases of 3 attempts expired: their workers neither reported nor renewed them"
    assert events_of(kept.database, job_id)[-1]["failure"] == "LEASE_EXPIRED"
    assert kept.reap(job_id) is None
    assert row_of(kept.database, job_id) == row


def test_a_single_attempt_is_not_repeated(kept: Kept) -> None:
    """With ``max_attempts`` 1 the first lost lease fails the job."""
    job_id = kept.create(plan=Plan(max_attempts=1))
    kept.lease(job_id)
    let_pass(kept.database, job_id, seconds=91)
    kept.reap(job_id)

    assert row_of(kept.database, job_id)["failure"] == "LEASE_EXPIRED"


def test_a_job_given_back_has_lost_no_lease(kept: Kept) -> None:
    """A job given back waits at once, its time to be started begins anew, and no lease counts as lost."""
    job_id = kept.create(plan=Plan(max_attempts=1))
    with kept.database.unit_of_work() as uow:
        row = leases.lease(uow, uow.jobs.lock("-", job_id), worker_id=None)
        holder = Holder(row["lease_token"])
        released = leases.release(uow, uow.jobs.lock("-", job_id), holder, reason="no memory")
        uow.commit()

    assert (released["state"], released["lost_leases"], released["not_before"]) == ("PENDING", 0, None)
    assert (released["summary"], released["queue_time"]) == ("no memory", released["update_time"])
    kept.lease(job_id)
    assert row_of(kept.database, job_id)["attempt"] == 2


_LATE = [
    ({"schedule_to_start_ms": 3_600_000}, False, 3601, "NOT_STARTED", "no worker began within 3600 s"),
    ({"start_to_close_ms": 60_000}, True, 61, "ATTEMPT_TOO_LONG", "attempt 1 did not end within 60 s"),
    ({"schedule_to_close_ms": 7_200_500}, False, 7201, "TOO_LONG", "it did not end within 7200.5 s"),
    ({"schedule_to_close_ms": 80_000}, True, 81, "TOO_LONG", "it did not end within 80 s"),
]


@pytest.mark.parametrize(("plan", "started", "after", "failure", "error"), _LATE)
def test_each_deadline_fails_the_job(
    kept: Kept,
    plan: dict[str, Any],
    started: bool,
    after: float,
    failure: str,
    error: str,
) -> None:
    """A job that waits or runs too long is FAILED, and ``failure`` and ``error`` say by which limit."""
    job_id = kept.create(plan=Plan(**plan), ingestion=True)
    if started:
        kept.lease(job_id)
    let_pass(kept.database, job_id, seconds=after - 2)
    assert kept.reap(job_id) is None
    let_pass(kept.database, job_id, seconds=2)

    assert kept.reap(job_id) == failure
    row = row_of(kept.database, job_id)
    assert (row["state"], row["failure"], row["lost_leases"]) == ("FAILED", failure, 0)
    assert row["error"].startswith(error)
    assert (row["run_ms"] is not None) == started
    document = kept.document_of(job_id)
    assert (document["state"], document["last_error"]) == ("PENDING", row["error"] if started else None)


def test_deadlines_count_from_when_a_job_may_begin(kept: Kept) -> None:
    """A job that is not to begin before a time fails neither before it nor soon after it."""
    with kept.database.unit_of_work() as uow:
        begin = uow.queue.now() + dt.timedelta(days=30)
    job_id = kept.create(plan=Plan(not_before=begin))
    let_pass(kept.database, job_id, days=30, hours=23)
    assert kept.reap(job_id) is None
    kept.lease(job_id)
    let_pass(kept.database, job_id, seconds=95)
    kept.reap(job_id)

    assert row_of(kept.database, job_id)["state"] == "PENDING"


def test_a_lease_never_outlives_its_attempt(kept: Kept) -> None:
    """Lease and renewal end at the deadline of the attempt, so that no report comes in after it."""
    job_id = kept.create(plan=Plan(start_to_close_ms=60_000))
    token = kept.lease(job_id)
    row = row_of(kept.database, job_id)
    assert row["lease_expire_time"] == row["start_time"] + dt.timedelta(seconds=60)
    let_pass(kept.database, job_id, seconds=59)
    with kept.database.unit_of_work() as uow:
        report = Report(1, 1, holder=Holder(token))
        renewed, _ = actions.report_progress(uow, "-", job_id, report, percentage=1, phase="")
        uow.commit()

    assert renewed["lease_expire_time"] == renewed["start_time"] + dt.timedelta(seconds=60)
    assert renewed["due_time"] == renewed["lease_expire_time"]


def test_a_remote_job_falls_back_to_local_workers(kept: Kept) -> None:
    """After its fallback time it is PENDING and LOCAL for good, also when a lease of it is lost then."""
    job_id = kept.create(remote=True, plan=Plan(fallback_delay_ms=300_000))
    let_pass(kept.database, job_id, seconds=299)
    assert kept.reap(job_id) is None
    let_pass(kept.database, job_id, seconds=2)
    waiting = row_of(kept.database, job_id)

    assert kept.reap(job_id) == "fall back"
    row = row_of(kept.database, job_id)
    assert (row["state"], row["execution"], row["failure"]) == ("PENDING", "LOCAL", None)
    assert row["queue_time"] == waiting["queue_time"]
    assert [event["state"] for event in events_of(kept.database, job_id)] == [waiting["state"], "PENDING"]
    kept.lease(job_id)
    let_pass(kept.database, job_id, seconds=91)
    kept.reap(job_id)
    assert row_of(kept.database, job_id)["state"] == "PENDING"


@pytest.mark.parametrize("hours", [1, 100])
def test_a_lost_lease_is_no_attempt_that_took_too_long(kept: Kept, hours: float) -> None:
    """The limit that passed first counts, also where nobody looked until all others had passed."""
    job_id = kept.create()
    kept.lease(job_id)
    let_pass(kept.database, job_id, hours=hours)
    kept.reap(job_id)

    assert row_of(kept.database, job_id)["state"] == "PENDING"


@pytest.mark.parametrize(("leases_lost", "state"), [(1, "PENDING"), (3, "FAILED")])
def test_a_document_is_what_it_was_before(kept: Kept, leases_lost: int, state: str) -> None:
    """A lost lease puts the document back without an error, and the last one with it."""
    job_id = kept.create(ingestion=True)
    for _ in range(leases_lost):
        kept.lease(job_id)
        assert kept.document_of(job_id)["state"] == "INGESTING"
        let_pass(kept.database, job_id, minutes=3)
        kept.reap(job_id)

    row, document = row_of(kept.database, job_id), kept.document_of(job_id)
    assert (row["state"], document["state"], document["last_error"]) == (state, "PENDING", row["error"])


@pytest.mark.parametrize("leases_lost", [1, 3])
def test_a_document_that_went_its_own_way_keeps_no_job_open(kept: Kept, leases_lost: int) -> None:
    """A job comes to its end although its document is not in the state that belongs to it."""
    job_id = kept.create(ingestion=True, plan=Plan(max_attempts=leases_lost))
    kept.lease(job_id)
    with kept.database.unit_of_work() as uow:
        uow.connection.execute(
            sa.update(documents)
            .where(documents.c.id == row_of(kept.database, job_id)["document_id"])
            .values(state="PENDING")
        )
        uow.commit()
    for _ in range(2):
        let_pass(kept.database, job_id, days=8)
        kept.reap(job_id)

    assert row_of(kept.database, job_id)["state"] == "FAILED"
    assert kept.document_of(job_id)["state"] == "PENDING"


def test_a_wrong_due_time_is_put_right(kept: Kept) -> None:
    """A job that is looked at too early is looked at again when its limits say, without an event."""
    job_id = kept.create()
    right = row_of(kept.database, job_id)
    with kept.database.unit_of_work() as uow:
        early = right["due_time"] - dt.timedelta(days=3)
        uow.connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(due_time=early))
        uow.commit()
    with kept.database.unit_of_work() as uow:
        assert job_id in [row["id"] for row in uow.jobs.overdue(early, 1000)]

    assert kept.reap(job_id) is None
    assert row_of(kept.database, job_id) == right


def test_times_of_a_job_never_go_back(kept: Kept) -> None:
    """Events of a job are dated in their order, also when the clock was asked before the last was written."""
    job_id = kept.create()
    with kept.database.unit_of_work() as uow:
        ahead = uow.queue.now() + dt.timedelta(seconds=5)
        uow.connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(update_time=ahead))
        uow.commit()
    kept.lease(job_id)

    row = row_of(kept.database, job_id)
    assert row["update_time"] == row["start_time"] == ahead
    assert events_of(kept.database, job_id)[-1]["create_time"] == ahead
