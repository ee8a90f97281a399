"""Requests and tokens of password resets: how many are let through, and what is swept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from morag_meta.db.schema import password_resets, reset_requests
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, serving
from tests.users.conftest import new_email
from tests.users.resetting import NEW, ask, create, login, reset, reset_refused, take


@pytest.fixture
def fresh(backend: Backend) -> Iterator[Service]:
    """Give a server with narrow bounds, at which nobody has tried anything."""
    with serving(backend, login_failures=3, login_address_failures=6) as started:
        yield started


def test_requests_are_bounded(fresh: Service) -> None:
    """Beyond three of one email nothing happens, without a word; beyond six of one address they wait."""
    user = fresh.new_user()
    delivered = 0
    for _ in range(5):
        ask(fresh, user.email)
        delivered += len(take(fresh.admin.channel))
    assert delivered == 3
    ask(fresh, new_email(fresh))
    for email in (user.email, new_email(fresh)):
        with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES") as refusal:
            ask(fresh, email)
        assert refusal.retry


def test_wrong_tokens_are_bounded(fresh: Service) -> None:
    """After six wrong tokens from an address no token is looked at; a right one in between counts not."""
    user = fresh.new_user()
    for number in range(3):
        reset_refused(fresh, f"{number}" * 43)
    reset(fresh, create(fresh.admin.channel, user.email))
    for number in range(3):
        reset_refused(fresh, f"{number}" * 43)
    token = create(fresh.admin.channel, user.email)
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES"):
        reset(fresh, token)


def test_a_reset_opens_an_account_that_was_guessed_at(fresh: Service) -> None:
    """An owner whose account is held by wrong guesses from the same address gets in by a reset."""
    user = fresh.new_user()
    reset(fresh, create(fresh.admin.channel, user.email))
    for number in range(3):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
            login(fresh, user.email, f"wrong horse {number}")
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES"):
        login(fresh, user.email, NEW)
    reset(fresh, create(fresh.admin.channel, user.email), "a third horse")
    assert login(fresh, user.email, "a third horse").user.id == user.id


def test_what_is_over_is_swept(fresh: Service) -> None:
    """Tokens go after their time, and requests that nobody took after an hour; others stay."""
    users = [fresh.new_user() for _ in range(2)]
    for user in users:
        create(fresh.admin.channel, user.email)
        ask(fresh, user.email)
    with fresh.database.unit_of_work() as uow:
        past = uow.now - dt.timedelta(hours=2)
        old_token = password_resets.c.owner_id == users[0].id
        uow.connection.execute(sa.update(password_resets).where(old_token).values(expire_time=past))
        old_request = reset_requests.c.email == users[0].email
        uow.connection.execute(sa.update(reset_requests).where(old_request).values(ask_time=past))
        uow.commit()
    with fresh.database.unit_of_work() as uow:
        assert (uow.resets.sweep(), uow.resets.sweep_requests(dt.timedelta(hours=1))) == (1, 1)
        assert uow.resets.lock(users[0].id) is None
        assert uow.resets.lock(users[1].id) is not None
        assert [row["email"] for row in uow.resets.take_requests(10)] == [users[1].email]
