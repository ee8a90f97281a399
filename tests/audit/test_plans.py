"""How the databases list the audit: each filter by the index that is meant for it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from morag_meta.audit.rules import Entry
from morag_meta.audit.store import Filter
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.ids import new_id
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.plans import Plan, analyze

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
EVENTS = 6000


@pytest.fixture(scope="module")
def full(backend: Backend) -> Iterator[Database]:
    """Fill an audit: a hundred users, each with sixty events, among six thousand."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        people = [
            create_user(uow, name="Somebody", email=f"p{number}@example.org")["id"] for number in range(100)
        ]
        entries = [_entry(number, people[number % 100]) for number in range(EVENTS)]
        for start in range(0, EVENTS, 250):  # parts that a busy machine writes in time
            uow.audit.add_all(entries[start : start + 250])
        uow.commit()
    for table in ("audit_events", "audit_subjects"):
        analyze(database, table)
    yield database
    database.close()
    backend.drop(url)


def _entry(number: int, user_id: str) -> Entry:
    return Entry(
        event=f"thing.verb_{number % 60}",
        method="Thing.Verb",
        outcome="OK" if number % 50 else "PERMISSION_DENIED",
        user_id=user_id,
        credential_id=f"key-{number % 100}",
        target_id=new_id() if number % 100 else "target",
        time=START + dt.timedelta(seconds=number),
    )


def _middle(database: Database) -> Row:
    with database.unit_of_work() as uow:
        return uow.audit.page(Filter(), None, EVENTS // 2)[-1]


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("part", ["subject", "credential_id", "event", "target_id", "outcome"])
def test_each_filter_has_its_index(full: Database, part: str, descending: bool) -> None:
    """A page of one filter enters the index of that filter."""
    row = _middle(full)
    value: Any = {"outcome": "PERMISSION_DENIED", "target_id": "target"}.get(part) or row[part]
    wanted = dataclasses.replace(Filter(), **{part: value})
    plan = Plan(full, lambda uow: uow.audit.page(wanted, row, 50, descending=descending))
    assert f"ix_audit_events__{part}_time_id" in plan.indexes, plan.text


def test_a_page_of_everything_reads_no_more_than_the_page(full: Database) -> None:
    """Without a filter the page is read in the order of the primary key, and no row is sorted for it."""
    row = _middle(full)
    plan = Plan(full, lambda uow: uow.audit.page(Filter(), row, 50))
    assert plan.indexes & {"pk_audit_events", "sqlite_autoindex_audit_events_1", "PRIMARY"}, plan.text
    assert not plan.sorts, plan.text
