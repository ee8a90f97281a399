"""How the databases find users, keys and sessions: by the index that is meant for it, without a scan."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.store import StandingStore
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import api_keys, sessions, users
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork
from tests.backends.databases import Backend
from tests.plans import Plan, Work, analyze

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
PEOPLE = 6000


@dataclass(frozen=True)
class Crowd:
    """A database with many users, each with a key and a session; ``ids`` are the users'."""

    database: Database
    ids: list[str]


@pytest.fixture(scope="module")
def crowd(backend: Backend) -> Iterator[Crowd]:
    """Fill a database, and bring its statistics up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    ids = [new_id() for _ in range(PEOPLE)]
    with database.unit_of_work() as uow:
        _fill(uow, ids)
        uow.commit()
    for table in ("users", "api_keys", "sessions"):
        analyze(database, table)
    yield Crowd(database, ids)
    database.close()
    backend.drop(url)


def _fill(uow: UnitOfWork, ids: list[str]) -> None:
    people, keys, opened = [], [], []
    for number, id in enumerate(ids):
        stamps = {"revision": 1, "update_time": START, "create_time": START + dt.timedelta(seconds=number)}
        role = "ADMIN" if number % 500 == 0 else "USER"
        person = {"id": id, "name": f"n{number}", "email": f"{number}@x.org", "role": role, "active": True}
        people.append({**person, **stamps, "password_hash": None, "avatar": None})
        key = {"id": new_id(), "owner_id": ids[number % 24], "name": f"k{number}", "key_hash": f"h{number}"}
        empty = dict.fromkeys(("expire_time", "revoke_time", "last_used_time"))
        more = {"description": "", "key_prefix": "p", "scopes": ["*"], "use_count": 0}
        keys.append({**key, **stamps, **empty, **more})
        times = {"create_time": stamps["create_time"], "refresh_time": START, "end_time": None}
        session = {"id": id, "owner_id": ids[number % 24], "refresh_hash": f"r{number}"}
        opened.append({**session, **times, "expire_time": END + dt.timedelta(seconds=number)})
    uow.run_many(sa.insert(users), people)
    uow.run_many(sa.insert(api_keys), keys)
    uow.run_many(sa.insert(sessions), opened)


def _after(following: bool) -> dict[str, Any] | None:
    return {"create_time": START + dt.timedelta(seconds=PEOPLE // 2), "id": new_id()} if following else None


def _read_whole(plan: Plan) -> set[str]:
    """Give the tables that a plan reads from end to end."""
    rows: list[dict[str, Any]] = json.loads(plan.text)
    nodes = [row["QUERY PLAN"][0]["Plan"] for row in rows if "QUERY PLAN" in row]
    found = {row["detail"].split()[1] for row in rows if row.get("detail", "").startswith("SCAN")}
    found |= {row["table"] for row in rows if row.get("type") == "ALL"}
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Node Type"] == "Seq Scan":
            found.add(node["Relation Name"])
    return found


@pytest.mark.parametrize("kind", ["key_hash", "key", "session"])
def test_standing_reads_no_table_from_end_to_end(crowd: Crowd, kind: str) -> None:
    """Key or session and its user are each one probe of an index; only the epoch's one row needs none."""
    works: dict[str, Work] = {
        "key_hash": lambda uow: StandingStore(uow).of_key("h7"),
        "key": lambda uow: StandingStore(uow).of_key_id(crowd.ids[7]),
        "session": lambda uow: StandingStore(uow).of_session(crowd.ids[7]),
    }
    plan = Plan(crowd.database, works[kind])
    assert _read_whole(plan) <= {"auth_epoch"}, plan.text
    assert kind in plan.text


def test_user_is_found_by_email(crowd: Crowd) -> None:
    """A log-in finds its user by the unique index over emails."""
    plan = Plan(crowd.database, lambda uow: uow.users.find_by_email("7@x.org"))
    assert "email" in plan.text
    assert not plan.scans


def test_a_refresh_finds_its_session_by_id(crowd: Crowd) -> None:
    """A refresh token names its session, which is found and locked without reading another."""
    for work in (
        lambda uow: uow.sessions.find(crowd.ids[7]),
        lambda uow: uow.sessions.lock(crowd.ids[7], crowd.ids[7]),
    ):
        plan = Plan(crowd.database, work)
        assert not plan.scans, plan.text
        assert not any("owner" in index or "time" in index for index in plan.indexes), plan.text


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("everyone", [False, True])
def test_sessions_are_listed_in_the_order_of_an_index(crowd: Crowd, everyone: bool, following: bool) -> None:
    """A page of sessions, of one owner or of all, comes from the index of their times."""
    owner = "-" if everyone else crowd.ids[3]
    plan = Plan(crowd.database, lambda uow: uow.sessions.page(owner, _after(following), 51))
    expected = "ix_sessions__create_time_id" if everyone else "ix_sessions__owner_id_create_time_id"
    assert plan.indexes == {expected}, plan.text
    assert not plan.scans
    assert not (everyone and plan.sorts)  # those of one owner are few, and may be sorted


@pytest.mark.parametrize("following", [False, True])
def test_users_are_listed_in_the_order_of_an_index(crowd: Crowd, following: bool) -> None:
    """A page of all users is read from the index of their times, and not sorted."""
    plan = Plan(
        crowd.database,
        lambda uow: uow.users.page("-", _after(following), 51, role="", active=None, text=""),
    )
    assert plan.indexes == {"ix_users__create_time_id"}, plan.text
    assert not plan.scans
    assert not plan.sorts


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("everyone", [False, True])
def test_keys_are_listed_in_the_order_of_an_index(crowd: Crowd, everyone: bool, following: bool) -> None:
    """A page of keys, of one owner or of all, is read from the index of their times, and not sorted."""
    owner = "-" if everyone else crowd.ids[3]
    plan = Plan(
        crowd.database, lambda uow: uow.api_keys.page(owner, _after(following), 51, show_revoked=True)
    )
    expected = "ix_api_keys__create_time_id" if everyone else "ix_api_keys__owner_id_create_time_id"
    assert plan.indexes == {expected}, plan.text
    assert not plan.scans
    assert not plan.sorts


def test_sessions_of_a_user_are_ended_by_index(crowd: Crowd) -> None:
    """Ending a user's sessions touches that user's alone, and the sweep reads by the time of the end."""
    ended = Plan(crowd.database, lambda uow: uow.sessions.end_all(crowd.ids[3]))
    assert ended.indexes == {"ix_sessions__owner_id_create_time_id"}, ended.text
    assert not ended.scans
    swept = Plan(crowd.database, lambda uow: uow.sessions.sweep(10), number=1)  # after the clock
    assert "ix_sessions__expire_time" in swept.indexes, swept.text
    assert not swept.sorts
