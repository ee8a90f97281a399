"""Refresh tokens over the wire: each is used once, a lost answer is made good, and a copy ends all."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import jwt
import pytest
import sqlalchemy as sa
import structlog

from morag_meta.db.schema import sessions
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, serving
from tests.users.conftest import PASSWORD, NewPerson, Person

ME = pb.GetUserRequest(id="me")


def _refresh(service: Service, token: str) -> pb.RefreshTokenResponse:
    return service.channel().users.RefreshToken(pb.RefreshTokenRequest(refresh_token=token))


def _session_id(token: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})["sid"])


def _let_pass(service: Service, person: Person, seconds: float) -> None:
    """Let so much time pass since the last rotation of a person's session, by the database's clock."""
    found = sessions.c.id == _session_id(person.login.access_token)
    with service.database.engine.connect() as connection:
        rotated = connection.execute(sa.select(sessions.c.rotate_time).where(found)).scalar_one()
        earlier = rotated - dt.timedelta(seconds=seconds)
        connection.execute(sa.update(sessions).where(found).values(rotate_time=earlier))


def _assert_over(service: Service, person: Person, *refresh_tokens: str) -> None:
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        person.channel.users.GetUser(ME)
    for token in refresh_tokens:
        with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
            _refresh(service, token)


def test_a_refresh_token_is_replaced(service: Service, person: Person) -> None:
    """Each refresh gives another refresh token and an access token of the same session, again and again."""
    seen = [person.login.refresh_token]
    for _ in range(4):
        answer = _refresh(service, seen[-1])
        assert answer.session_expire_time == person.login.session_expire_time
        assert _session_id(answer.access_token) == _session_id(person.login.access_token)
        assert service.channel(token=answer.access_token).users.GetUser(ME).id == person.id
        seen.append(answer.refresh_token)
    assert len(set(seen)) == 5
    assert person.channel.users.GetUser(ME).id == person.id


def test_a_repeat_gives_the_same_successor(service: Service, person: Person) -> None:
    """Who lost the answer sends the token again: the same new refresh token, and another access token."""
    first = _refresh(service, person.login.refresh_token)
    again = _refresh(service, person.login.refresh_token)
    assert again.refresh_token == first.refresh_token
    assert again.access_token != first.access_token
    for answer in (first, again):
        assert service.channel(token=answer.access_token).users.GetUser(ME).id == person.id
    assert _refresh(service, first.refresh_token).refresh_token != first.refresh_token


def test_a_repeat_is_accepted_for_thirty_seconds(service: Service, person: Person) -> None:
    """A little before 30 s have passed the one just before still works, and does not gain time by that."""
    first = _refresh(service, person.login.refresh_token)
    _let_pass(service, person, 20)
    assert _refresh(service, person.login.refresh_token).refresh_token == first.refresh_token
    _let_pass(service, person, 10.1)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(service, person.login.refresh_token)
    _assert_over(service, person, first.refresh_token)


def test_the_one_before_the_last_ends_the_session_at_once(service: Service, person: Person) -> None:
    """A token older than the one just before ends everything, however fast: only a copy can be that old."""
    first = _refresh(service, person.login.refresh_token)
    second = _refresh(service, first.refresh_token)
    callers = [person.channel, service.channel(token=second.access_token)]
    for caller in callers:
        caller.users.GetUser(ME)  # so that the service remembers whose tokens these are
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(service, person.login.refresh_token)
    _assert_over(service, person, first.refresh_token, second.refresh_token)
    for caller in callers:
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            caller.users.GetUser(ME)


def test_a_copied_token_ends_nobody_elses_session(service: Service, new_person: NewPerson) -> None:
    """What ends with a copied token is its own session: others of the same user, and keys, go on."""
    person = new_person()
    other = service.channel().users.Login(pb.LoginRequest(email=person.email, password=PASSWORD))
    first = _refresh(service, person.login.refresh_token)
    _refresh(service, first.refresh_token)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(service, person.login.refresh_token)
    assert service.channel(token=other.access_token).users.GetUser(ME).id == person.id
    assert service.channel(api_key=person.key).users.GetUser(ME).id == person.id
    _refresh(service, other.refresh_token)


@contextmanager
def _logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_a_copied_token_is_logged_once_and_not_shown(service: Service, person: Person) -> None:
    """The end of the session is a warning that names user, session and address, and no token."""
    first = _refresh(service, person.login.refresh_token)
    second = _refresh(service, first.refresh_token)
    with _logged() as lines:
        for token in (person.login.refresh_token, person.login.refresh_token, first.refresh_token):
            with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
                _refresh(service, token)
    warnings = [line for line in lines if line["log_level"] == "warning" and "session_id" in line]
    session_id = _session_id(person.login.access_token)
    assert [(line["user_id"], line["session_id"], line["address"]) for line in warnings] == [
        (person.id, session_id, "127.0.0.1")
    ]
    for token in (person.login.refresh_token, first.refresh_token, second.refresh_token):
        assert token not in str(lines)


def test_a_copied_token_ends_the_sessions_streams(service: Service, person: Person) -> None:
    """A stream that was opened with an access token of the session ends within a second."""
    job = person.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = person.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    _refresh(service, _refresh(service, person.login.refresh_token).refresh_token)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(service, person.login.refresh_token)
    ended = time.monotonic()
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        list(stream)
    assert time.monotonic() - ended < 1.0 + 2.0  # which a busy machine may add


def test_a_copied_token_ends_the_session_in_another_process(backend: Backend) -> None:
    """Another server on the same database, which had cached the access token, refuses it within 5 s."""
    with serving(backend) as here:
        there = Service(here.url, here.kind)
        try:
            _end_from_afar(here, there)
        finally:
            there.close()


def _end_from_afar(here: Service, there: Service) -> None:
    email = "traveller@example.org"
    here.channel().users.RegisterUser(pb.RegisterUserRequest(name="Jo", email=email, password=PASSWORD))
    login = here.channel().users.Login(pb.LoginRequest(email=email, password=PASSWORD))
    mine = there.channel(token=login.access_token)
    job = mine.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = mine.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    _refresh(there, _refresh(here, login.refresh_token).refresh_token)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(here, login.refresh_token)
    ended = time.monotonic()
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        list(stream)
    assert time.monotonic() - ended < 5 + 2
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        mine.users.GetUser(ME)


def _at_once(number: int, call: Callable[[int], Any]) -> list[Any]:
    """Run calls side by side; give what each gave, or the name of the code that it ended with."""

    def safe(index: int) -> Any:
        try:
            return call(index)
        except grpc.RpcError as caught:
            error: Any = caught
            return error.code().name

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(safe, range(number)))


@pytest.mark.parametrize("round_", range(3))
def test_two_who_refresh_at_once_go_on_with_one_token(
    service: Service, new_person: NewPerson, round_: int
) -> None:
    """Of any number of refreshes at once one replaces the token, and all are given the same successor."""
    person = new_person()
    channels = [service.channel() for _ in range(6)]
    request = pb.RefreshTokenRequest(refresh_token=person.login.refresh_token)
    answers = _at_once(6, lambda index: channels[index].users.RefreshToken(request))
    assert not [answer for answer in answers if isinstance(answer, str)]
    assert len({answer.refresh_token for answer in answers}) == 1
    assert len({answer.access_token for answer in answers}) == 6
    for answer in answers:
        assert service.channel(token=answer.access_token).users.GetUser(ME).id == person.id
    assert _refresh(service, answers[0].refresh_token).refresh_token != answers[0].refresh_token


def test_two_holders_who_take_turns_are_found_out(service: Service, person: Person) -> None:
    """When a thief and the owner each go on with the shared token, whoever comes second ends both."""
    shared = _refresh(service, person.login.refresh_token).refresh_token
    thief = _refresh(service, shared)
    _let_pass(service, person, 31)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        _refresh(service, shared)
    _assert_over(service, person, thief.refresh_token, shared)


def _send(stubs: list[Any], requests: list[Any], index: int) -> Any:
    return stubs[index](requests[index])


def test_old_and_present_token_at_once_end_the_session(service: Service, new_person: NewPerson) -> None:
    """However a copied old token and the present one meet, the session is over afterwards."""
    for order in itertools.permutations((0, 1)):
        person = new_person()
        first = _refresh(service, person.login.refresh_token)
        second = _refresh(service, first.refresh_token)
        tokens = (person.login.refresh_token, second.refresh_token)
        stubs = [service.channel().users.RefreshToken for _ in tokens]
        sent = [pb.RefreshTokenRequest(refresh_token=tokens[which]) for which in order]
        answers = _at_once(2, functools.partial(_send, stubs, sent))
        assert answers[order.index(0)] == "UNAUTHENTICATED"
        present = answers[order.index(1)]
        left = [second.refresh_token] if isinstance(present, str) else [present.refresh_token]
        _assert_over(service, person, *left)


@pytest.mark.parametrize("number", range(1, 4))
def test_a_session_that_is_over_stays_so(service: Service, person: Person, number: int) -> None:
    """After a log-out every token of the session is refused, and no warning is made of it."""
    chain = [person.login.refresh_token]
    for _ in range(number):
        chain.append(_refresh(service, chain[-1]).refresh_token)
    person.channel.users.Logout(pb.LogoutRequest())
    with _logged() as lines:
        _assert_over(service, person, *chain)
    assert not [line for line in lines if line["log_level"] == "warning" and "session_id" in line]


def test_only_hashes_of_refresh_tokens_are_kept(service: Service, person: Person) -> None:
    """Neither the present token nor the one before stands in the session's row."""
    answer = _refresh(service, person.login.refresh_token)
    with service.database.engine.connect() as connection:
        found = sa.select(sessions).where(sessions.c.owner_id == person.id)
        row = dict(connection.execute(found).mappings().one())
    text = str(row)
    assert row["previous_hash"] != row["refresh_hash"]
    assert answer.refresh_token not in text
    assert person.login.refresh_token not in text
