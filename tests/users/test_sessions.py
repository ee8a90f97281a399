"""Registration, log-in, and what ends a session, over the wire."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.auth.principal import Role
from moragmeta.v1 import options_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, serving
from tests.users.conftest import PASSWORD, NewPerson, Person, new_email

ME = pb.GetUserRequest(id="me")


def _register(service: Service, email: str, **fields: str) -> pb.User:
    given = {"name": "New Person", "password": PASSWORD, **fields}
    return service.channel().users.RegisterUser(pb.RegisterUserRequest(email=email, **given))


def _login(service: Service, email: str, password: str = PASSWORD) -> pb.LoginResponse:
    return service.channel().users.Login(pb.LoginRequest(email=email, password=password))


def test_registered_user_logs_in_and_is_somebody(service: Service) -> None:
    """Who registers gets the default role and settings, logs in by the password, and is ``me``."""
    email = new_email(service)
    made = _register(service, email)
    assert (made.email, made.role, made.active, made.password_set) == (
        email,
        options_pb2.ROLE_USER,
        True,
        True,
    )
    login = _login(service, email)
    assert login.user == made
    channel = service.channel(token=login.access_token)
    assert channel.users.GetUser(ME) == made
    assert channel.users.GetUserSettings(pb.GetUserSettingsRequest()).owner_id == made.id


def test_email_is_one_whatever_its_spelling(service: Service) -> None:
    """The email is kept in its normal form; another spelling is taken, and logs in all the same."""
    email = new_email(service)
    made = _register(service, "Zoe\u0308." + email.upper())
    assert made.email == "zo\u00eb." + email
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        _register(service, "ZO\u00cb." + email)
    assert refusal.metadata == {"resource_type": "user", "field": "email"}
    assert _login(service, "  ZO\u00cb." + email).user.id == made.id


def test_registration_repeated_under_its_request_id_makes_one_user(service: Service) -> None:
    """A repeat answers the same user and says that it is a repeat; another body under the id is refused."""
    email = new_email(service)
    request = pb.RegisterUserRequest(name="New Person", email=email, password=PASSWORD, request_id=email)
    first, call = service.channel().users.RegisterUser.with_call(request)
    assert "morag-replayed" not in dict(call.trailing_metadata())
    second, call = service.channel().users.RegisterUser.with_call(request)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert first == second
    request.password = PASSWORD + "!"
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        service.channel().users.RegisterUser(request)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x"),
        ("name", "x" * 256),
        ("email", ""),
        ("email", "nobody"),
        ("email", "a@" + "b" * 254),
        ("password", ""),
        ("password", "seven77"),
        ("password", "x" * 73),
        ("password", "ä" * 37),
        ("password", "with\x00nul-inside"),
    ],
)
def test_bad_registration_names_the_field(service: Service, field: str, value: str) -> None:
    """Each wrong field is INVALID_ARGUMENT with its name, and no password stands in the answer."""
    given = {"name": "New Person", "email": new_email(service), "password": PASSWORD, field: value}
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", field) as refusal:
        service.channel().users.RegisterUser(pb.RegisterUserRequest(**given))
    assert not value or field != "password" or value not in refusal.message


def test_registration_follows_its_switches(backend: Backend) -> None:
    """Switched off, registration is PERMISSION_DENIED; on, it gives the configured role."""
    with (
        serving(backend, enable_user_registration=False) as closed,
        refused("PERMISSION_DENIED", "REGISTRATION_DISABLED"),
    ):
        _register(closed, "a@b.org")
    with serving(backend, default_user_role="VIEWER") as opened:
        assert _register(opened, "a@b.org").role == options_pb2.ROLE_VIEWER


def test_failed_logins_are_alike(service: Service, new_person: NewPerson) -> None:
    """An unknown email, a wrong password, no password and a deactivated user get one and the same answer."""
    person, gone = new_person(), new_person()
    keyed = service.new_user()
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    messages = set()
    for email, password in (
        (new_email(service), PASSWORD),
        (person.email, "wrong horse"),
        (keyed.email, PASSWORD),
        (gone.email, PASSWORD),
        ("no email at all", PASSWORD),
    ):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED") as refusal:
            _login(service, email, password)
        messages.add((refusal.message, tuple(refusal.metadata)))
    assert len(messages) == 1


def test_unknown_email_takes_as_long_as_a_wrong_password(service: Service) -> None:
    """A log-in of nobody does the work of a real one: the best times of both are alike."""
    email = new_email(service)
    _register(service, email)
    taken: dict[str, list[float]] = {email: [], new_email(service): []}
    for _ in range(9):
        for who, times in taken.items():
            started = time.perf_counter()
            with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
                _login(service, who, "wrong horse")
            times.append(time.perf_counter() - started)
    known, unknown = (min(times) for times in taken.values())
    assert 0.5 < known / unknown < 2


def test_too_long_password_is_refused_and_not_cut(service: Service, person: Person) -> None:
    """A password that bcrypt would cut is a field violation, also at a log-in."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "password"):
        _login(service, person.email, PASSWORD + "ä" * 36)


def test_access_token_lasts_fifteen_minutes_in_a_session_of_a_day(person: Person) -> None:
    """The token says its user, session and role, ends after 15 minutes, and its session after 24 hours."""
    claims = jwt.decode(person.login.access_token, options={"verify_signature": False})
    assert (claims["sub"], claims["role"]) == (person.id, "USER")
    assert {"sid", "jti", "iat", "iss", "aud"} < set(claims)
    assert claims["exp"] - claims["iat"] == 900
    assert person.login.access_token_expire_time == Timestamp(seconds=claims["exp"])
    assert abs(person.login.session_expire_time.seconds - claims["iat"] - 86_400) <= 1


def test_refresh_gives_another_token_for_the_same_session(service: Service, person: Person) -> None:
    """A refreshed access token works, the one before does too, and the session's end stays."""
    request = pb.RefreshTokenRequest(refresh_token=person.login.refresh_token)
    again = service.channel().users.RefreshToken(request)
    assert again.access_token != person.login.access_token
    assert again.session_expire_time == person.login.session_expire_time
    assert service.channel(token=again.access_token).users.GetUser(ME).id == person.id
    assert person.channel.users.GetUser(ME).id == person.id
    once_more = service.channel().users.RefreshToken(
        pb.RefreshTokenRequest(refresh_token=again.refresh_token)
    )
    assert service.channel(token=once_more.access_token).users.GetUser(ME).id == person.id


@pytest.mark.parametrize("token", ["made-up", "x" * 43, "x" * 128])
def test_unknown_refresh_token_is_refused(service: Service, token: str) -> None:
    """A refresh token that no session has is UNAUTHENTICATED with its own reason."""
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        service.channel().users.RefreshToken(pb.RefreshTokenRequest(refresh_token=token))


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_an_unknown_refresh_token_waits_for_no_writer(service: Service) -> None:
    """While somebody holds SQLite's one writer, a made-up refresh token is refused at once all the same."""
    request = pb.RefreshTokenRequest(refresh_token="made-up")
    with service.database.unit_of_work() as uow:
        uow.epoch.lock()
        with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
            service.channel().users.RefreshToken(request, timeout=5)


def _assert_over(service: Service, login: pb.LoginResponse) -> None:
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        service.channel(token=login.access_token).users.GetUser(ME)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        service.channel().users.RefreshToken(pb.RefreshTokenRequest(refresh_token=login.refresh_token))


def test_logout_ends_this_session_alone(service: Service, person: Person) -> None:
    """After a log-out both tokens of the session are refused at once; another session goes on."""
    second = _login(service, person.email)
    person.channel.users.GetUser(ME)
    person.channel.users.Logout(pb.LogoutRequest())
    _assert_over(service, person.login)
    assert service.channel(token=second.access_token).users.GetUser(ME).id == person.id
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        person.channel.users.Logout(pb.LogoutRequest())


def test_session_needs_no_api_key_and_a_key_no_session(service: Service, person: Person) -> None:
    """A log-out and a new password need a session's token; an API key is told so."""
    keyed = service.channel(api_key=person.key)
    with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
        keyed.users.Logout(pb.LogoutRequest())
    with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
        keyed.users.ChangePassword(
            pb.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse")
        )


def test_new_password_ends_every_session(service: Service, person: Person) -> None:
    """After a change the old password and all sessions are refused, the new one logs in, and keys stay."""
    second = _login(service, person.email)
    person.channel.users.ChangePassword(
        pb.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse")
    )
    _assert_over(service, person.login)
    _assert_over(service, second)
    with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
        _login(service, person.email)
    assert _login(service, person.email, "another horse").user.id == person.id
    assert service.channel(api_key=person.key).users.GetUser(ME).id == person.id


def test_new_password_needs_the_current_one(service: Service, person: Person) -> None:
    """A wrong current password changes nothing, and the sessions go on."""
    with refused("UNAUTHENTICATED", "PASSWORD_WRONG"):
        person.channel.users.ChangePassword(
            pb.ChangePasswordRequest(current_password="wrong horse", new_password="another horse")
        )
    assert person.channel.users.GetUser(ME).id == person.id
    assert _login(service, person.email).user.id == person.id


@pytest.mark.parametrize("password", ["seven77", "x" * 73, "ä" * 37, "nul\x00nul-nul"])
def test_bad_new_password_is_named(person: Person, password: str) -> None:
    """A new password keeps the limits of a first one."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "new_password"):
        person.channel.users.ChangePassword(
            pb.ChangePasswordRequest(current_password=PASSWORD, new_password=password)
        )


def test_password_change_repeated_under_its_request_id_succeeds(service: Service, person: Person) -> None:
    """From a new session the same request is a replay, although the current password in it is the old one."""
    request = pb.ChangePasswordRequest(
        current_password=PASSWORD, new_password="another horse", request_id="change-once"
    )
    person.channel.users.ChangePassword(request)
    again = service.channel(token=_login(service, person.email, "another horse").access_token)
    _, call = again.users.ChangePassword.with_call(request)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert again.users.GetUser(ME).id == person.id


def test_viewer_changes_the_own_password_and_nothing_else(service: Service, new_person: NewPerson) -> None:
    """A VIEWER may see to the own sessions and password; every other write is refused."""
    viewer = new_person(Role.VIEWER)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        viewer.channel.users.UpdateUser(pb.UpdateUserRequest(user=pb.User(id="me", name="Other")))
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        viewer.channel.users.UpdateUserSettings(
            pb.UpdateUserSettingsRequest(settings=pb.UserSettings(language="de"))
        )
    viewer.channel.users.ChangePassword(
        pb.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse")
    )
    _login(service, viewer.email, "another horse")


def test_role_change_and_deactivation_end_sessions(service: Service, new_person: NewPerson) -> None:
    """Another role, or none at all, ends a user's sessions; API keys follow the new role."""
    admin = service.admin.channel.users
    moved, gone = new_person(), new_person()
    admin.SetUserRole(pb.SetUserRoleRequest(id=moved.id, role=options_pb2.ROLE_VIEWER))
    admin.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    for person in (moved, gone):
        _assert_over(service, person.login)
    assert service.channel(api_key=moved.key).users.GetUser(ME).role == options_pb2.ROLE_VIEWER
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        service.channel(api_key=gone.key).users.GetUser(ME)


def test_eight_logins_do_not_delay_other_calls(backend: Backend) -> None:
    """While eight log-ins at full cost are under way, other calls are answered as if there were none."""
    with serving(backend, bcrypt_cost=12) as service:
        email = new_email(service)
        _register(service, email)
        user = service.new_user()

        def call_times(busy: threading.Event | None) -> list[float]:
            times: list[float] = []
            while len(times) < 50 or (busy is not None and not busy.is_set()):
                started = time.perf_counter()
                user.channel.users.GetUser(ME)
                times.append(time.perf_counter() - started)
            return times

        quiet = statistics.median(call_times(None))
        done = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            logins = [pool.submit(_login, service, email) for _ in range(8)]
            logins[-1].add_done_callback(lambda _: done.set())
            times = call_times(done)
        assert len({login.result().access_token for login in logins}) == 8
        # One log-in takes about 0.3 s, so a call behind any of them would show.
        assert statistics.median(times) < max(quiet * 4, 0.2)
