"""Random histories of jobs: whatever is done in whatever order, time alone brings every job to its end."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import documents, jobs
from morag_meta.errors import MetaError
from morag_meta.ids import new_id
from morag_meta.jobs import actions, leases, reaper
from morag_meta.jobs.actions import Plan, Report
from morag_meta.jobs.limits import Backoff
from morag_meta.jobs.rules import FINAL_STATES, Holder
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.jobs.later import events_of, let_pass, row_of

STEPS, HISTORIES = 40, 3
_LEDGER = ("state", "attempt", "percentage", "phase", "summary", "error", "worker_id", "failure")


class History:
    """The jobs of one user, and what is done to them by chance."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self._chance = random.Random(seed)  # noqa: S311 - an order of deeds that can be repeated
        self.tokens: dict[str, str] = {}
        with database.unit_of_work() as uow:
            self.owner_id = str(create_user(uow, name="Owner", email=f"{new_id()}@histories.test")["id"])
            uow.commit()
        self.ids: list[str] = []

    def step(self) -> None:
        """Do something, whether or not it is allowed."""
        deeds: list[Callable[[], None]] = [self._create, self._pass_time]
        if self.ids:
            deeds += [self._reap, self._reap, self._pass_time]
            deeds += [self._to_a_job(deed) for deed in _DEEDS]
        self._chance.choice(deeds)()

    def pass_time_until_all_has_ended(self) -> None:
        """Let nothing happen but time, and what the reaper does."""
        for _ in range(12):
            for job_id in self._open():
                let_pass(self.database, job_id, hours=30)
                self._reap_one(job_id)

    def _create(self) -> None:
        remote, limit = self._chance.random() < 0.4, self._chance.choice((60_000, 600_000, 86_400_000))
        plan = Plan(
            max_attempts=self._chance.randint(1, 3), start_to_close_ms=limit, schedule_to_start_ms=limit
        )
        with self.database.unit_of_work() as uow:
            kind, document_id = "X", None
            if self._chance.random() < 0.7:
                kind = "INGESTION"
                document_id = uow.documents.add(self.owner_id, {"name": new_id(), "type": "pdf"})["id"]
            row = actions.create_job(
                uow, self.owner_id, kind=kind, document_id=document_id, remote=remote, plan=plan
            )
            uow.commit()
        self.ids.append(str(row["id"]))

    def _pass_time(self) -> None:
        for job_id in self._open():
            let_pass(self.database, job_id, seconds=self._chance.choice((1, 40, 100, 400, 4000)))

    def _open(self) -> list[str]:
        wanted = sa.select(jobs.c.id).where(jobs.c.owner_id == self.owner_id, jobs.c.end_time.is_(None))
        with self.database.engine.connect() as connection:
            return list(connection.execute(wanted.order_by(jobs.c.id)).scalars())

    def _reap(self) -> None:
        self._reap_one(self._chance.choice(self.ids))

    def _reap_one(self, job_id: str) -> None:
        with self.database.unit_of_work() as uow:
            reaper.handle(uow, job_id, Backoff(), self._chance.random())
            uow.commit()

    def _to_a_job(self, deed: Callable[[UnitOfWork, History, str], Any]) -> Callable[[], None]:
        def do() -> None:
            job_id = self._chance.choice(self.ids)
            with contextlib.suppress(MetaError), self.database.unit_of_work() as uow:
                deed(uow, self, job_id)
                uow.commit()

        return do


def _lease(uow: UnitOfWork, history: History, job_id: str) -> None:
    row = leases.lease(uow, actions.lock_with_document(uow, "-", job_id), worker_id=history.owner_id)
    history.tokens[job_id] = row["lease_token"]


def _report_of(uow: UnitOfWork, history: History, job_id: str) -> Report:
    row = uow.jobs.get("-", job_id)
    return Report(
        row["attempt"], row["report_number"] + 1, "done", Holder(history.tokens.get(job_id, "none"))
    )


def _report(uow: UnitOfWork, history: History, job_id: str) -> None:
    report = _report_of(uow, history, job_id)
    actions.report_progress(uow, "-", job_id, report, percentage=report.number, phase="embed")


def _complete(uow: UnitOfWork, history: History, job_id: str) -> None:
    report = _report_of(uow, history, job_id)
    actions.complete_job(uow, "-", job_id, report, chunks=1, quality=0.5, metadata={})


def _fail(uow: UnitOfWork, history: History, job_id: str) -> None:
    actions.fail_job(uow, "-", job_id, _report_of(uow, history, job_id), error="broken")


def _give_back(uow: UnitOfWork, history: History, job_id: str) -> None:
    holder = Holder(history.tokens.get(job_id, "none"))
    leases.release(uow, actions.lock_with_document(uow, "-", job_id), holder)


def _cancel(uow: UnitOfWork, history: History, job_id: str) -> None:
    del history
    actions.cancel_job(uow, "-", job_id)


def _retry(uow: UnitOfWork, history: History, job_id: str) -> None:
    row = actions.retry_job(uow, "-", job_id)
    uow.after_commit(lambda: history.ids.append(row["id"]))


def _delete(uow: UnitOfWork, history: History, job_id: str) -> None:
    document_id = uow.jobs.get("-", job_id)["document_id"]
    if document_id is not None and len(history.ids) % 3 == 0:
        uow.jobs.cancel_open_ingestion(history.owner_id, document_id, summary="the document was deleted")
        row = uow.documents.lock("-", document_id)
        uow.documents.change(row, state="DELETED", state_before_delete="PENDING", live_scope=None)


_DEEDS = (_lease, _lease, _report, _complete, _fail, _give_back, _cancel, _retry, _delete)


def _check_job(database: Database, job_id: str) -> None:
    """Events are dense, dated in their order, and follow each other up to the row; attempts never fall."""
    row, told = row_of(database, job_id), events_of(database, job_id)
    assert [event["number"] for event in told] == list(range(1, row["event_number"] + 1))
    assert {name: told[-1][name] for name in _LEDGER} == {name: row[name] for name in _LEDGER}
    assert told[0]["previous_state"] is None
    for before, after in itertools.pairwise(told):
        assert after["previous_state"] == before["state"]
        assert before["state"] not in FINAL_STATES
        assert after["attempt"] - before["attempt"] == (
            after["state"] == "PROCESSING" and before["state"] != "PROCESSING"
        )
        assert before["create_time"] <= after["create_time"]
    assert told[-1]["create_time"] == row["update_time"]
    assert row["lost_leases"] <= row["max_attempts"]


def _check_documents(database: Database, owner_id: str) -> None:
    """A document is INGESTING exactly while a job that ingests it runs."""
    with database.engine.connect() as connection:
        running = connection.execute(
            sa.select(jobs.c.document_id).where(
                jobs.c.owner_id == owner_id, jobs.c.kind == "INGESTION", jobs.c.state == "PROCESSING"
            )
        ).scalars()
        ingesting = connection.execute(
            sa.select(documents.c.id).where(
                documents.c.owner_id == owner_id, documents.c.state == "INGESTING"
            )
        ).scalars()
        assert sorted(running) == sorted(ingesting)


@pytest.fixture(scope="module")
def database(backend: Backend) -> Iterator[Database]:
    """Give a database that no server serves."""
    url = backend.new_url()
    migrate.upgrade(url)
    opened = Database.open(url)
    yield opened
    opened.close()
    backend.drop(url)


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_every_job_comes_to_its_end(database: Database, seed: int) -> None:
    """After any history time alone ends every job, its events tell all of it, and its document follows."""
    history = History(database, seed)
    for number in range(STEPS):
        history.step()
        if number % 10 == 0:
            _check_documents(database, history.owner_id)
    for job_id in history.ids:
        _check_job(database, job_id)
    history.pass_time_until_all_has_ended()

    assert {row_of(database, job_id)["state"] for job_id in history.ids} <= FINAL_STATES
    for job_id in history.ids:
        _check_job(database, job_id)
    _check_documents(database, history.owner_id)
    with database.unit_of_work() as uow:
        assert uow.jobs.overdue(dt.datetime(2020, 1, 1, tzinfo=dt.UTC), 10) == []
        assert uow.queue.now() > dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
