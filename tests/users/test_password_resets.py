"""Forgotten passwords: asking tells nothing, a token works once and ends every session, and few are given."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import password_resets, reset_requests
from moragmeta.v1 import api_keys_pb2, jobs_pb2, options_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Channel, Service, serving
from tests.users.conftest import PASSWORD, NewPerson, Person, new_email

ME = pb.GetUserRequest(id="me")
NEW = "another horse battery"


@pytest.fixture(scope="module")
def deliverer(service: Service) -> Channel:
    """Give the stubs of a service that delivers tokens: an ADMIN's key of this scope alone."""
    made = service.admin.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(
            api_key=api_keys_pb2.ApiKey(name="deliverer", scopes=["users:reset"])
        )
    )
    return service.channel(api_key=made.secret)


def _ask(service: Service, email: str) -> pb.RequestPasswordResetResponse:
    return service.channel().users.RequestPasswordReset(pb.RequestPasswordResetRequest(email=email))


def _take(deliverer: Channel) -> dict[str, pb.PasswordReset]:
    taken = deliverer.users.TakePasswordResets(pb.TakePasswordResetsRequest())
    return {reset.email: reset for reset in taken.resets}


def _create(deliverer: Channel, email: str) -> str:
    return deliverer.users.CreatePasswordReset(pb.CreatePasswordResetRequest(email=email)).token


def _reset(service: Service, token: str, password: str = NEW, **fields: str) -> None:
    request = pb.ResetPasswordRequest(token=token, new_password=password, **fields)
    service.channel().users.ResetPassword(request)


def _refused(service: Service, token: str) -> str:
    with refused("UNAUTHENTICATED", "RESET_TOKEN_INVALID") as refusal:
        _reset(service, token)
    assert token not in refusal.message
    return refusal.message


def _login(service: Service, email: str, password: str) -> pb.LoginResponse:
    return service.channel().users.Login(pb.LoginRequest(email=email, password=password))


def test_who_forgot_the_password_gets_a_new_one(service: Service, deliverer: Channel, person: Person) -> None:
    """Asked for in any spelling, taken once and used: the new password logs in, the old one does not."""
    _ask(service, f"{person.email.upper()}")
    reset = _take(deliverer)[person.email]
    assert (reset.user_id, reset.name, len(reset.token)) == (person.id, "Test User", 43)
    assert 3590 < reset.expire_time.seconds - time.time() < 3610
    assert person.email not in _take(deliverer)
    _reset(service, reset.token)
    assert _login(service, person.email, NEW).user.id == person.id
    with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
        _login(service, person.email, PASSWORD)


def test_a_reset_ends_every_session_and_stream(service: Service, deliverer: Channel, person: Person) -> None:
    """Access and refresh tokens of before are refused and streams end at once; API keys stay."""
    job = person.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = person.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    _reset(service, _create(deliverer, person.email))
    ended = time.monotonic()
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        person.channel.users.GetUser(ME)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        request = pb.RefreshTokenRequest(refresh_token=person.login.refresh_token)
        service.channel().users.RefreshToken(request)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        list(stream)
    assert time.monotonic() - ended < 1.5
    assert service.channel(api_key=person.key).users.GetUser(ME).id == person.id


def test_asking_tells_nothing(service: Service, deliverer: Channel, new_person: NewPerson) -> None:
    """For a user, a deactivated one and nobody the answer is the same; only the user's is delivered."""
    person, gone, nobody = new_person(), new_person(), new_email(service)
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    answers = [_ask(service, email) for email in (person.email, gone.email, nobody)]
    assert answers == [pb.RequestPasswordResetResponse()] * 3
    taken = _take(deliverer)
    assert person.email in taken
    assert not {gone.email, nobody} & taken.keys()


def test_asking_does_the_same_work_for_everybody(service: Service, person: Person) -> None:
    """The statements of a request do not depend on whether anybody has the email: users are not looked at."""
    seen: dict[str, list[str]] = {person.email: [], new_email(service): []}
    for email, statements in seen.items():
        with service.database.unit_of_work() as uow:
            engine = service.database.engine

            def note(_: Any, __: Any, text: str, *___: Any, statements: list[str] = statements) -> None:
                statements.append(text)

            sa.event.listen(engine, "before_cursor_execute", note)
            try:
                uow.resets.ask(email)
            finally:
                sa.event.remove(engine, "before_cursor_execute", note)
    first, second = seen.values()
    assert first == second
    assert not any("users" in text for text in first)


def test_a_token_works_once(service: Service, deliverer: Channel, person: Person) -> None:
    """A used token is refused in the words of a made-up one."""
    token = _create(deliverer, person.email)
    _reset(service, token)
    assert _refused(service, token) == _refused(service, "x" * 43)
    assert _login(service, person.email, NEW).user.id == person.id


def test_a_newer_token_replaces_the_one_before(service: Service, deliverer: Channel, person: Person) -> None:
    """Of two tokens of one user only the newer one works."""
    older, newer = _create(deliverer, person.email), _create(deliverer, person.email)
    _refused(service, older)
    _reset(service, newer)


def test_a_token_ends_with_its_time(service: Service, deliverer: Channel, person: Person) -> None:
    """After its time, by the database's clock, a token is refused."""
    token = _create(deliverer, person.email)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with service.database.engine.connect() as connection:
        found = password_resets.c.owner_id == person.id
        connection.execute(sa.update(password_resets).where(found).values(expire_time=past))
    _refused(service, token)
    assert person.channel.users.GetUser(ME).id == person.id


def _change_password(service: Service, person: Person) -> None:
    request = pb.ChangePasswordRequest(current_password=PASSWORD, new_password="a third horse")
    person.channel.users.ChangePassword(request)


def _change_email(service: Service, person: Person) -> None:
    change = pb.User(id="me", email=new_email(service))
    person.channel.users.UpdateUser(pb.UpdateUserRequest(user=change))


def _change_role(service: Service, person: Person) -> None:
    request = pb.SetUserRoleRequest(id=person.id, role=options_pb2.ROLE_VIEWER)
    service.admin.channel.users.SetUserRole(request)


def _deactivate_and_back(service: Service, person: Person) -> None:
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=person.id))
    service.admin.channel.users.ReactivateUser(pb.ReactivateUserRequest(id=person.id))


@pytest.mark.parametrize("change", [_change_password, _change_email, _change_role, _deactivate_and_back])
def test_what_changes_the_account_voids_its_token(
    service: Service, deliverer: Channel, person: Person, change: Any
) -> None:
    """Another password, email, role or standing makes a token that is under way worthless."""
    token = _create(deliverer, person.email)
    change(service, person)
    _refused(service, token)


def test_a_reset_repeated_under_its_request_id_succeeds(
    service: Service, deliverer: Channel, person: Person
) -> None:
    """Who lost the answer repeats the request, and is told that it was done."""
    token = _create(deliverer, person.email)
    request = pb.ResetPasswordRequest(token=token, new_password=NEW, request_id=f"reset-{person.id}")
    stub = service.channel().users.ResetPassword
    stub(request)
    session = _login(service, person.email, NEW)
    _, call = stub.with_call(request)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert service.channel(token=session.access_token).users.GetUser(ME).id == person.id


def test_two_who_use_a_token_at_once_are_one(service: Service, deliverer: Channel, person: Person) -> None:
    """Of several resets with one token one succeeds, and its password is the one that counts."""
    token = _create(deliverer, person.email)
    stubs = [service.channel().users.ResetPassword for _ in range(4)]

    def use(number: int) -> str:
        request = pb.ResetPasswordRequest(token=token, new_password=f"new password {number}")
        try:
            stubs[number](request)
        except grpc.RpcError as caught:
            error: Any = caught
            return str(error.code().name)
        return "OK"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(use, range(4)))
    assert sorted(outcomes) == ["OK"] + ["UNAUTHENTICATED"] * 3
    assert _login(service, person.email, f"new password {outcomes.index('OK')}").user.id == person.id


def test_two_deliverers_share_the_requests(
    service: Service, new_person: NewPerson, deliverer: Channel
) -> None:
    """However many take at once, each request is given to one of them."""
    _take(deliverer)
    people = [new_person() for _ in range(4)]
    for person in people:
        _ask(service, person.email)
    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(lambda _: list(_take(deliverer)), range(3)))
    given = sorted(email for emails in taken for email in emails)
    assert given == sorted(person.email for person in people)


@pytest.mark.parametrize("password", ["seven77", "x" * 73, "ä" * 37, "nul\x00nul-nul"])
def test_a_bad_new_password_is_named_and_keeps_the_token(
    service: Service, deliverer: Channel, person: Person, password: str
) -> None:
    """A new password keeps the limits of a first one, and the token is not used up by a bad one."""
    token = _create(deliverer, person.email)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "new_password"):
        _reset(service, token, password)
    _reset(service, token)


def test_tokens_are_for_who_holds_the_scope(
    service: Service, deliverer: Channel, new_person: NewPerson
) -> None:
    """No USER, no key of other scopes, takes or makes a token; the deliverer's key does nothing else."""
    person, admin = new_person(), new_person(Role.ADMIN)
    made = admin.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name="w", scopes=["users:write"]))
    )
    for channel, reason in (
        (person.channel, "ROLE_TOO_LOW"),
        (service.channel(api_key=person.key), "ROLE_TOO_LOW"),
        (service.channel(api_key=made.secret), "SCOPE_MISSING"),
    ):
        with refused("PERMISSION_DENIED", reason):
            _take(channel)
        with refused("PERMISSION_DENIED", reason):
            _create(channel, person.email)
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        deliverer.users.GetUser(pb.GetUserRequest(id=person.id))


def test_nobody_gets_no_token(service: Service, deliverer: Channel, new_person: NewPerson) -> None:
    """An email of nobody, and of a deactivated user, is NOT_FOUND to the deliverer."""
    gone = new_person()
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    for email in (new_email(service), gone.email):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            _create(deliverer, email)


def test_a_user_without_password_can_be_given_one(service: Service, deliverer: Channel) -> None:
    """Who called with API keys alone, as the first ADMIN does, can log in after a reset."""
    user = service.new_user()
    _reset(service, _create(deliverer, user.email))
    assert _login(service, user.email, NEW).user.password_set


def test_only_hashes_of_tokens_are_kept(service: Service, deliverer: Channel, person: Person) -> None:
    """The token stands in no column of its row."""
    token = _create(deliverer, person.email)
    with service.database.engine.connect() as connection:
        found = sa.select(password_resets).where(password_resets.c.owner_id == person.id)
        assert token not in str(connection.execute(found).mappings().one())


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
        _ask(fresh, user.email)
        delivered += len(_take(fresh.admin.channel))
    assert delivered == 3
    _ask(fresh, new_email(fresh))
    for email in (user.email, new_email(fresh)):
        with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES") as refusal:
            _ask(fresh, email)
        assert refusal.retry


def test_wrong_tokens_are_bounded(fresh: Service) -> None:
    """After six wrong tokens from an address no token is looked at; a right one in between counts not."""
    user = fresh.new_user()
    for number in range(3):
        _refused(fresh, f"{number}" * 43)
    _reset(fresh, _create(fresh.admin.channel, user.email))
    for number in range(3):
        _refused(fresh, f"{number}" * 43)
    token = _create(fresh.admin.channel, user.email)
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES"):
        _reset(fresh, token)


def test_a_reset_opens_an_account_that_was_guessed_at(fresh: Service) -> None:
    """An owner whose account is held by wrong guesses from the same address gets in by a reset."""
    user = fresh.new_user()
    _reset(fresh, _create(fresh.admin.channel, user.email))
    for number in range(3):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
            _login(fresh, user.email, f"wrong horse {number}")
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES"):
        _login(fresh, user.email, NEW)
    _reset(fresh, _create(fresh.admin.channel, user.email), "a third horse")
    assert _login(fresh, user.email, "a third horse").user.id == user.id


def test_what_is_over_is_swept(fresh: Service) -> None:
    """Tokens go after their time, and requests that nobody took after an hour; others stay."""
    users = [fresh.new_user() for _ in range(2)]
    for user in users:
        _create(fresh.admin.channel, user.email)
        _ask(fresh, user.email)
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
