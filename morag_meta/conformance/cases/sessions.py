"""Sessions: log-in, refresh, log-out and passwords."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import becomes_refused
from moragmeta.v1 import users_pb2 as pb

AREA = Area("sessions")
_ME = pb.GetUserRequest(id="me")


@AREA.admin_case
def a_failed_login_says_one_thing(bench: Bench) -> None:
    """A wrong password and an unknown email are refused in the same words."""
    said = []
    for email in (bench.me.email, f"{bench.name()}@example.com"):
        with refused("UNAUTHENTICATED", "LOGIN_FAILED") as refusal:
            bench.nobody.users.Login(pb.LoginRequest(email=email, password="wrong password"))  # noqa: S106
        said.append((refusal.message, refusal.metadata))
    same("what is said of an unknown email", said[1], said[0])


@AREA.admin_case
def a_login_opens_a_session(bench: Bench) -> None:
    """A log-in gives an access token, a refresh token, their ends, and the user."""
    session = bench.login(bench.me)
    holds("both tokens", fact=bool(session.access_token and session.refresh_token), seen="one is empty")
    ends = session.access_token_expire_time.seconds, session.session_expire_time.seconds
    holds("an access token that ends first", fact=0 < ends[0] <= ends[1], seen=ends)
    same("the user", session.user.email, bench.me.email)


@AREA.admin_case
def a_refresh_goes_on(bench: Bench) -> None:
    """A refresh token gives an access token that works, and does not move the session's end."""
    session = bench.login(bench.me)
    renewed = bench.nobody.users.RefreshToken(pb.RefreshTokenRequest(refresh_token=session.refresh_token))
    bench.conceal(renewed.refresh_token)
    same("the session's end", renewed.session_expire_time, session.session_expire_time)
    same("who calls", bench.bearer(renewed.access_token).users.GetUser(_ME).id, bench.me.id)


@AREA.case
def a_wrong_refresh_token_is_refused(bench: Bench) -> None:
    """A refresh token that is none is UNAUTHENTICATED."""
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        bench.nobody.users.RefreshToken(pb.RefreshTokenRequest(refresh_token="x" * 43))


@AREA.admin_case
def a_logout_ends_both_tokens(bench: Bench) -> None:
    """After a log-out the access token ends within 5 s and the refresh token at once; others go on."""
    ended, other = bench.login(bench.me), bench.login(bench.me)
    caller = bench.bearer(ended.access_token)
    caller.users.Logout(pb.LogoutRequest())
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        bench.nobody.users.RefreshToken(pb.RefreshTokenRequest(refresh_token=ended.refresh_token))
    same("who calls by the other", bench.bearer(other.access_token).users.GetUser(_ME).id, bench.me.id)


@AREA.admin_case
def a_new_password_ends_all_sessions(bench: Bench) -> None:
    """A changed password logs in, the old one does not, and all sessions of before are over."""
    member, new = bench.add_user(), bench.conceal(bench.name())
    sessions = [bench.login(member), bench.login(member)]
    caller = bench.bearer(sessions[0].access_token)
    request = pb.ChangePasswordRequest(current_password=member.password, new_password=new)
    caller.users.ChangePassword(request)
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        bench.nobody.users.RefreshToken(pb.RefreshTokenRequest(refresh_token=sessions[1].refresh_token))
    with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
        bench.login(member)
    bench.nobody.users.Login(pb.LoginRequest(email=member.email, password=new))


@AREA.admin_case
def a_wrong_current_password_changes_nothing(bench: Bench) -> None:
    """A password is changed by who knows the present one only."""
    caller = bench.bearer(bench.login(bench.me).access_token)
    wrong = pb.ChangePasswordRequest(current_password="wrong password", new_password=bench.name())  # noqa: S106
    with refused("UNAUTHENTICATED", "PASSWORD_WRONG"):
        caller.users.ChangePassword(wrong)
    bench.login(bench.me)
