"""A process whose clock is an hour off: what users are given lasts as long as elsewhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.auth.passwords import hash_password
from morag_meta.db.requests import KEPT
from morag_meta.db.schema import request_records, reset_requests, sessions
from morag_meta.db.unit import Unit
from moragmeta.v1 import servers_pb2, users_pb2
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, User, serving
from tests.users.conftest import PASSWORD
from tests.users.resetting import NEW, ask, login, reset, take

HOUR = dt.timedelta(hours=1)
HALF = HOUR / 2
TOLERANCE = dt.timedelta(minutes=1)


@pytest.fixture(params=[-HOUR, HOUR], ids=["an hour late", "an hour early"])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the units of work of this process, and so of the server in it, have a clock that is wrong."""
    offset = request.param
    monkeypatch.setattr(Unit, "now", property(lambda _: dt.datetime.now(dt.UTC) + offset))


@pytest.fixture
def guarded(backend: Backend) -> Iterator[Service]:
    """Give a server with a narrow bound of log-ins."""
    with serving(backend, login_failures=3) as started:
        yield started


@pytest.mark.usefixtures("wrong")
def test_a_reset_token_works_for_its_hour(service: Service) -> None:
    """It says an hour, no sweep takes it before, nor the request for one, and it opens the account."""
    user = service.new_user()
    request = users_pb2.CreatePasswordResetRequest(email=user.email)
    made = service.admin.channel.users.CreatePasswordReset(request)
    assert _is_near(made.expire_time, HOUR)
    with service.database.unit_of_work() as uow:
        uow.resets.sweep()
        uow.commit()
    reset(service, made.token)
    assert login(service, user.email, NEW).user.id == user.id


@pytest.mark.usefixtures("wrong")
def test_who_asks_for_a_token_waits_an_hour_at_most(service: Service) -> None:
    """A request that was just made is there after a sweep, and one that is older than an hour is not."""
    users = [service.new_user() for _ in range(2)]
    for user in users:
        ask(service, user.email)
    with service.database.unit_of_work() as uow:
        statement = sa.update(reset_requests).where(reset_requests.c.email == users[0].email)
        uow.run(statement.values(ask_time=dt.datetime.now(dt.UTC) - HOUR - HALF))
        uow.resets.sweep_requests(HOUR)
        uow.commit()
    taken = take(service.admin.channel)
    assert [user.email in taken for user in users] == [False, True]


@pytest.mark.usefixtures("wrong")
def test_a_session_lasts_as_long_as_configured(service: Service) -> None:
    """It says so, is listed and goes on until then, and no longer."""
    user = service.new_user(password_hash=hash_password(PASSWORD, 4))
    opened = login(service, user.email, PASSWORD)
    assert _is_near(opened.session_expire_time, dt.timedelta(hours=service.settings.jwt_expiration_hours))
    listed = _listed(user)
    assert len(listed) == 1
    assert _is_near(listed[0].create_time, dt.timedelta())

    _end_session(service, user, HALF)
    refreshed = _refresh(service, opened.refresh_token)
    assert len(_listed(user)) == 1

    _end_session(service, user, -HALF)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(service, refreshed.refresh_token)
    assert not _listed(user)


@pytest.mark.usefixtures("wrong")
def test_what_was_guessed_stays_held_against_an_account(guarded: Service) -> None:
    """A process that sweeps by a wrong clock gives nobody another guess."""
    user = guarded.new_user(password_hash=hash_password(PASSWORD, 4))
    for number in range(3):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
            login(guarded, user.email, f"wrong horse {number}")
    with guarded.database.unit_of_work() as uow:
        uow.tries.sweep()
        uow.commit()
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES"):
        login(guarded, user.email, PASSWORD)


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(("left", "kept"), [(HALF, True), (-HALF, False)])
def test_a_request_id_is_kept_for_a_day(service: Service, user: User, left: dt.timedelta, kept: bool) -> None:
    """Its record has the database's time, and by that a repeat is one for 24 hours."""
    made, _ = _create(user, "first")
    with service.database.unit_of_work() as uow:
        mine = request_records.c.owner_id == user.id
        row = uow.one(sa.select(request_records.c.create_time).where(mine))
        uow.run(sa.update(request_records).where(mine).values(create_time=_in(left - KEPT)))
        uow.commit()
    assert row is not None
    assert abs(row["create_time"] - _in(dt.timedelta())) < TOLERANCE
    again, call = _create(user, "first" if kept else "second")
    replayed = dict(call.trailing_metadata()).get("morag-replayed") == "true"
    assert (again.id == made.id, replayed) == (kept, kept)


def _in(span: dt.timedelta) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + span


def _is_near(told: Timestamp, span: dt.timedelta) -> bool:
    return abs(told.ToDatetime(dt.UTC) - _in(span)) < TOLERANCE


def _listed(user: User) -> list[users_pb2.Session]:
    return list(user.channel.users.ListSessions(users_pb2.ListSessionsRequest()).sessions)


def _refresh(service: Service, token: str) -> users_pb2.RefreshTokenResponse:
    request = users_pb2.RefreshTokenRequest(refresh_token=token)
    answer: users_pb2.RefreshTokenResponse = service.channel().users.RefreshToken(request)
    return answer


def _end_session(service: Service, user: User, left: dt.timedelta) -> None:
    with service.database.unit_of_work() as uow:
        statement = sa.update(sessions).where(sessions.c.owner_id == user.id)
        uow.run(statement.values(expire_time=_in(left)))
        uow.commit()


def _create(user: User, name: str) -> tuple[servers_pb2.Server, Any]:
    kind = servers_pb2.SERVER_KIND_QDRANT
    server = servers_pb2.Server(name=name, kind=kind, host="h", port=1)
    request = servers_pb2.CreateServerRequest(server=server, request_id="clock")
    made: tuple[servers_pb2.Server, Any] = user.channel.servers.CreateServer.with_call(request)
    return made
