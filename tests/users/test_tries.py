"""Failed log-ins and password changes are bounded, alike for everybody, and no owner is shut out for good."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.auth.passwords import hash_password
from morag_meta.db.schema import tries
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.refusals import Refusal, refused
from tests.service import Service, serving
from tests.users.conftest import PASSWORD, NewPerson, Person, new_email

MOST = 10


def _login(service: Service, email: str, password: str = PASSWORD) -> pb.LoginResponse:
    return service.channel().users.Login(pb.LoginRequest(email=email, password=password))


def _fail(service: Service, email: str, times: int) -> None:
    channel = service.channel()
    for number in range(times):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
            channel.users.Login(pb.LoginRequest(email=email, password=f"wrong horse {number}"))


def _refused(service: Service, email: str, password: str = PASSWORD) -> Refusal:
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES") as refusal:
        _login(service, email, password)
    return refusal


def _rows(service: Service) -> list[Any]:
    with service.database.engine.connect() as connection:
        return list(connection.execute(sa.select(tries).order_by(*tries.primary_key)).all())


def _let_pass(service: Service, seconds: float) -> None:
    """Let time pass for everything that is held against anybody."""
    with service.database.engine.connect() as connection:
        for row in connection.execute(sa.select(tries)).mappings().all():
            found = [column == row[column.name] for column in tries.primary_key]
            earlier = row["clear_time"] - dt.timedelta(seconds=seconds)
            connection.execute(sa.update(tries).where(*found).values(clear_time=earlier))


@pytest.fixture
def fresh(backend: Backend) -> Iterator[Service]:
    """Give a server at which nobody has failed yet."""
    with serving(backend) as started:
        yield started


def test_after_ten_failures_the_right_password_waits_too(service: Service, person: Person) -> None:
    """Ten failed log-ins are answered as such, then even the right one is told to wait six minutes."""
    _fail(service, person.email, MOST)
    refusal = _refused(service, person.email)
    assert refusal.retry is not None
    assert 300 < refusal.retry <= 361
    assert PASSWORD not in refusal.message
    assert person.channel.users.GetUser(pb.GetUserRequest(id="me")).id == person.id
    service.channel().users.RefreshToken(pb.RefreshTokenRequest(refresh_token=person.login.refresh_token))


def test_an_unknown_email_is_throttled_alike(service: Service, new_person: NewPerson) -> None:
    """Nobody's email, a deactivated user's and one without a password wait in the same words and as long."""
    person, gone, keyed = new_person(), new_person(), service.new_user()
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    said = []
    for email in (person.email, new_email(service), gone.email, keyed.email):
        _fail(service, email, MOST)
        refusal = _refused(service, email)
        assert refusal.retry is not None
        assert 300 < refusal.retry <= 361
        said.append((refusal.message, tuple(refusal.metadata)))
    assert len(set(said)) == 1


def test_a_refusal_comes_without_the_work(service: Service, person: Person) -> None:
    """Who is told to wait is told so without a comparison, and known and unknown emails take as long."""
    unknown = new_email(service)
    taken: dict[str, list[float]] = {person.email: [], unknown: []}
    for email in taken:
        _fail(service, email, MOST)
    for _ in range(20):
        for email, times in taken.items():
            started = time.perf_counter()
            _refused(service, email)
            times.append(time.perf_counter() - started)
    known, none = (min(times) for times in taken.values())
    assert 0.33 < known / none < 3


def test_one_more_is_let_through_every_six_minutes(fresh: Service) -> None:
    """After six minutes one more try passes and no second one; after an hour there are ten again."""
    email = new_email(fresh)
    _fail(fresh, email, MOST)
    _let_pass(fresh, 361)
    _fail(fresh, email, 1)
    _refused(fresh, email)
    _let_pass(fresh, 3700)
    _fail(fresh, email, MOST)
    _refused(fresh, email)


def test_a_login_that_succeeds_takes_the_failures_back(service: Service, person: Person) -> None:
    """Whoever logs in after nine failures begins anew."""
    _fail(service, person.email, MOST - 1)
    _login(service, person.email)
    _fail(service, person.email, MOST - 1)
    _login(service, person.email)


def test_what_is_refused_leaves_no_row(fresh: Service) -> None:
    """A refused try changes nothing: it neither lengthens the wait nor fills the table."""
    email = new_email(fresh)
    _fail(fresh, email, MOST)
    before = _rows(fresh)
    for _ in range(5):
        _refused(fresh, email)
    assert _rows(fresh) == before
    assert len(before) == 2  # of the account, and of the account at this address


def test_no_email_stands_in_what_is_counted(service: Service, person: Person) -> None:
    """Rows name accounts by a keyed hash."""
    _fail(service, person.email, 1)
    rows = _rows(service)
    assert rows
    assert person.email not in str(rows)


def _outcomes(services: list[Service], email: str, number: int) -> Counter[str]:
    stubs = [services[index % len(services)].channel().users.Login for index in range(number)]

    def guess(index: int) -> str:
        try:
            stubs[index](pb.LoginRequest(email=email, password=f"wrong horse {index}"))
        except grpc.RpcError as caught:
            error: Any = caught
            return str(error.code().name)
        return "OK"

    with ThreadPoolExecutor(number) as pool:
        return Counter(pool.map(guess, range(number)))


@pytest.mark.parametrize("known", [True, False])
def test_the_bound_holds_for_tries_at_once_at_two_servers(fresh: Service, known: bool) -> None:
    """Of thirty guesses at once, at two servers on one database, ten are looked at and not one more."""
    email = new_email(fresh)
    if known:
        fresh.channel().users.RegisterUser(pb.RegisterUserRequest(name="Jo", email=email, password=PASSWORD))
    other = Service(fresh.url, fresh.kind)
    try:
        outcomes = _outcomes([fresh, other], email, 30)
    finally:
        other.close()
    assert outcomes == {"UNAUTHENTICATED": MOST, "RESOURCE_EXHAUSTED": 30 - MOST}


def test_an_address_is_bounded_over_all_accounts(backend: Backend) -> None:
    """Whoever tries one password at many accounts is stopped, whoever the last account is."""
    with serving(backend, login_address_failures=5) as service:
        emails = [new_email(service) for _ in range(6)]
        for email in emails[:5]:
            _fail(service, email, 1)
        _refused(service, emails[5])


def test_bounds_can_be_switched_off(backend: Backend) -> None:
    """Without any bound nobody waits, and nothing is counted."""
    with serving(backend, login_failures=0, login_account_failures=0) as service:
        _fail(service, new_email(service), MOST + 5)
        assert _rows(service) == []


def test_a_busy_server_counts_no_failure(fresh: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told that too many passwords wait has not failed."""
    email = new_email(fresh)
    monkeypatch.setattr(fresh.app._passwords._slots, "acquire", lambda **_: False)  # noqa: SLF001
    for _ in range(MOST + 2):
        with refused("UNAVAILABLE", "SERVER_BUSY"):
            _login(fresh, email)
    monkeypatch.undo()
    _fail(fresh, email, MOST)
    _refused(fresh, email)


def test_wrong_current_passwords_are_bounded(service: Service, person: Person) -> None:
    """Ten wrong current passwords are told, then a change waits, also with the right one; log-ins do not."""
    for number in range(MOST):
        with refused("UNAUTHENTICATED", "PASSWORD_WRONG"):
            person.channel.users.ChangePassword(
                pb.ChangePasswordRequest(current_password=f"wrong {number}", new_password="another horse")
            )
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_TRIES") as refusal:
        person.channel.users.ChangePassword(
            pb.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse")
        )
    assert refusal.retry
    assert _login(service, person.email).user.id == person.id


def test_a_repeated_change_counts_no_failure(service: Service, person: Person) -> None:
    """Repeats of a change that was done are no tries, although their current password is the old one."""
    request = pb.ChangePasswordRequest(
        current_password=PASSWORD, new_password="another horse", request_id="once"
    )
    person.channel.users.ChangePassword(request)
    channel = service.channel(token=_login(service, person.email, "another horse").access_token)
    for _ in range(MOST + 3):
        channel.users.ChangePassword(request)


def test_what_was_tried_goes_with_its_user(fresh: Service) -> None:
    """A user who is deleted leaves nothing that was held against the account."""
    user = fresh.new_user(password_hash=hash_password(PASSWORD, 4))
    _fail(fresh, user.email, 2)
    _login(fresh, user.email)
    assert _rows(fresh)
    admin = fresh.admin.channel.users
    admin.DeactivateUser(pb.DeactivateUserRequest(id=user.id))
    admin.DeleteUser(pb.DeleteUserRequest(id=user.id))
    assert _rows(fresh) == []
