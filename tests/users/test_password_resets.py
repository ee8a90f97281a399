"""Forgotten passwords: asking tells nothing, a token works once and ends every session, and few are given."""

from __future__ import annotations

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import password_resets
from moragmeta.v1 import api_keys_pb2, jobs_pb2, options_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Channel, Service
from tests.users.conftest import PASSWORD, NewPerson, Person, new_email
from tests.users.resetting import NEW, ask, create, login, reset, reset_refused, take

ME = pb.GetUserRequest(id="me")


@pytest.fixture(scope="module")
def deliverer(service: Service) -> Channel:
    """Give the stubs of a service that delivers tokens: an ADMIN's key of this scope alone."""
    made = service.admin.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(
            api_key=api_keys_pb2.ApiKey(name="deliverer", scopes=["users:reset"])
        )
    )
    return service.channel(api_key=made.secret)


def test_who_forgot_the_password_gets_a_new_one(service: Service, deliverer: Channel, person: Person) -> None:
    """Asked for in any spelling, taken once and used: the new password logs in, the old one does not."""
    ask(service, f"{person.email.upper()}")
    given = take(deliverer)[person.email]
    assert (given.user_id, given.name, len(given.token)) == (person.id, "Test User", 43)
    assert 3590 < given.expire_time.seconds - time.time() < 3610
    assert person.email not in take(deliverer)
    reset(service, given.token)
    assert login(service, person.email, NEW).user.id == person.id
    with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
        login(service, person.email, PASSWORD)


def test_a_reset_ends_every_session_and_stream(service: Service, deliverer: Channel, person: Person) -> None:
    """Access and refresh tokens of before are refused and streams end at once; API keys stay."""
    job = person.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = person.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    reset(service, create(deliverer, person.email))
    ended = time.monotonic()
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        person.channel.users.GetUser(ME)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        request = pb.RefreshTokenRequest(refresh_token=person.login.refresh_token)
        service.channel().users.RefreshToken(request)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        list(stream)
    assert time.monotonic() - ended < 1.0 + 2.0  # which a busy machine may add
    assert service.channel(api_key=person.key).users.GetUser(ME).id == person.id


def test_asking_tells_nothing(service: Service, deliverer: Channel, new_person: NewPerson) -> None:
    """For a user, a deactivated one and nobody the answer is the same; only the user's is delivered."""
    person, gone, nobody = new_person(), new_person(), new_email(service)
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    answers = [ask(service, email) for email in (person.email, gone.email, nobody)]
    assert answers == [pb.RequestPasswordResetResponse()] * 3
    taken = take(deliverer)
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
    token = create(deliverer, person.email)
    reset(service, token)
    assert reset_refused(service, token) == reset_refused(service, "x" * 43)
    assert login(service, person.email, NEW).user.id == person.id


def test_a_newer_token_replaces_the_one_before(service: Service, deliverer: Channel, person: Person) -> None:
    """Of two tokens of one user only the newer one works."""
    older, newer = create(deliverer, person.email), create(deliverer, person.email)
    reset_refused(service, older)
    reset(service, newer)


def test_a_token_ends_with_its_time(service: Service, deliverer: Channel, person: Person) -> None:
    """After its time, by the database's clock, a token is refused."""
    token = create(deliverer, person.email)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with service.database.engine.connect() as connection:
        found = password_resets.c.owner_id == person.id
        connection.execute(sa.update(password_resets).where(found).values(expire_time=past))
    reset_refused(service, token)
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
    token = create(deliverer, person.email)
    change(service, person)
    reset_refused(service, token)


def test_a_reset_repeated_under_its_request_id_succeeds(
    service: Service, deliverer: Channel, person: Person
) -> None:
    """Who lost the answer repeats the request, and is told that it was done."""
    token = create(deliverer, person.email)
    request = pb.ResetPasswordRequest(token=token, new_password=NEW, request_id=f"reset-{person.id}")
    stub = service.channel().users.ResetPassword
    stub(request)
    session = login(service, person.email, NEW)
    _, call = stub.with_call(request)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert service.channel(token=session.access_token).users.GetUser(ME).id == person.id


def test_two_who_use_a_token_at_once_are_one(service: Service, deliverer: Channel, person: Person) -> None:
    """Of several resets with one token one succeeds, and its password is the one that counts."""
    token = create(deliverer, person.email)
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
    assert login(service, person.email, f"new password {outcomes.index('OK')}").user.id == person.id


def test_two_deliverers_share_the_requests(
    service: Service, new_person: NewPerson, deliverer: Channel
) -> None:
    """However many take at once, each request is given to one of them."""
    take(deliverer)
    people = [new_person() for _ in range(4)]
    for person in people:
        ask(service, person.email)
    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(lambda _: list(take(deliverer)), range(3)))
    given = sorted(email for emails in taken for email in emails)
    assert given == sorted(person.email for person in people)


@pytest.mark.parametrize("password", ["seven77", "x" * 73, "ä" * 37, "nul\x00nul-nul"])
def test_a_bad_new_password_is_named_and_keeps_the_token(
    service: Service, deliverer: Channel, person: Person, password: str
) -> None:
    """A new password keeps the limits of a first one, and the token is not used up by a bad one."""
    token = create(deliverer, person.email)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "new_password"):
        reset(service, token, password)
    reset(service, token)


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
            take(channel)
        with refused("PERMISSION_DENIED", reason):
            create(channel, person.email)
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        deliverer.users.GetUser(pb.GetUserRequest(id=person.id))


def test_nobody_gets_no_token(service: Service, deliverer: Channel, new_person: NewPerson) -> None:
    """An email of nobody, and of a deactivated user, is NOT_FOUND to the deliverer."""
    gone = new_person()
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    for email in (new_email(service), gone.email):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            create(deliverer, email)


def test_a_user_without_password_can_be_given_one(service: Service, deliverer: Channel) -> None:
    """Who called with API keys alone, as the first ADMIN does, can log in after a reset."""
    user = service.new_user()
    reset(service, create(deliverer, user.email))
    assert login(service, user.email, NEW).user.password_set


def test_only_hashes_of_tokens_are_kept(service: Service, deliverer: Channel, person: Person) -> None:
    """The token stands in no column of its row."""
    token = create(deliverer, person.email)
    with service.database.engine.connect() as connection:
        found = sa.select(password_resets).where(password_resets.c.owner_id == person.id)
        assert token not in str(connection.execute(found).mappings().one())
