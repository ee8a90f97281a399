"""Sessions: log-in, refresh, log-out and passwords."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import Caller
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import becomes_refused, missing_id
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


def _refreshed(bench: Bench, token: str) -> pb.RefreshTokenResponse:
    answer = bench.nobody.users.RefreshToken(pb.RefreshTokenRequest(refresh_token=token))
    for secret in (answer.access_token, answer.refresh_token):
        bench.conceal(secret)
    return answer


@AREA.admin_case
def a_refresh_token_is_replaced(bench: Bench) -> None:
    """A refresh gives another refresh token, and a repeat of it the same one once more."""
    session = bench.login(bench.me)
    first, again = (_refreshed(bench, session.refresh_token) for _ in range(2))
    holds("another refresh token", fact=first.refresh_token != session.refresh_token, seen="the same")
    holds("the same successor", fact=first.refresh_token == again.refresh_token, seen="another")
    for answer in (first, again):
        same("who calls", bench.bearer(answer.access_token).users.GetUser(_ME).id, bench.me.id)


@AREA.admin_case
def a_copied_refresh_token_ends_the_session(bench: Bench) -> None:
    """A refresh token from before the last one ends its session, with the tokens that replaced it."""
    session = bench.login(bench.me)
    second = _refreshed(bench, _refreshed(bench, session.refresh_token).refresh_token)
    for token in (session.refresh_token, second.refresh_token):
        with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
            _refreshed(bench, token)
    caller = bench.bearer(second.access_token)
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))


def _current(caller: Caller) -> pb.Session:
    listed = caller.users.ListSessions(pb.ListSessionsRequest()).sessions
    current = [session for session in listed if session.current]
    same("current sessions in a list", len(current), 1)
    return current[0]


@AREA.admin_case
def sessions_are_listed_and_ended(bench: Bench) -> None:
    """A list names the calling session and others; one that is ended is gone, with its tokens."""
    ended, mine = bench.login(bench.me), bench.login(bench.me)
    caller, lost = bench.bearer(mine.access_token), bench.bearer(ended.access_token)
    ids = [_current(each).id for each in (caller, lost)]
    holds("two sessions", fact=ids[0] != ids[1], seen="one")
    caller.users.EndSession(pb.EndSessionRequest(id=ids[1]))
    caller.users.EndSession(pb.EndSessionRequest(id=ids[1]))
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: lost.users.GetUser(_ME))
    left = {one.id for one in caller.users.ListSessions(pb.ListSessionsRequest()).sessions}
    holds(
        "the calling session in the list, and not the ended one", fact=ids[0] in left and ids[1] not in left
    )


@AREA.admin_case
def another_ones_session_does_not_exist(bench: Bench) -> None:
    """Another user's session is NOT_FOUND to end, like one that is not there, and is not listed."""
    caller = bench.bearer(bench.login(bench.me).access_token)
    mine = _current(caller)
    for id_ in (mine.id, missing_id()):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="session", resource_id=id_):
            bench.other.caller.users.EndSession(pb.EndSessionRequest(id=id_))
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        bench.other.caller.users.ListSessions(pb.ListSessionsRequest(owner_id=bench.me.id))
    same("who calls", caller.users.GetUser(_ME).id, bench.me.id)


@AREA.admin_case
def a_reset_token_works_once(bench: Bench) -> None:
    """A token sets a new password once, ends all sessions, and a newer token replaces it."""
    member, new = bench.add_user(), bench.secret()
    caller = bench.bearer(bench.login(member).access_token)
    asked = pb.CreatePasswordResetRequest(email=member.email)
    older, newer = (bench.conceal(bench.admin.users.CreatePasswordReset(asked).token) for _ in range(2))
    with refused("UNAUTHENTICATED", "RESET_TOKEN_INVALID"):
        bench.nobody.users.ResetPassword(pb.ResetPasswordRequest(token=older, new_password=new))
    bench.nobody.users.ResetPassword(pb.ResetPasswordRequest(token=newer, new_password=new))
    with refused("UNAUTHENTICATED", "RESET_TOKEN_INVALID"):
        bench.nobody.users.ResetPassword(pb.ResetPasswordRequest(token=newer, new_password=new))
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    bench.nobody.users.Login(pb.LoginRequest(email=member.email, password=new))


@AREA.admin_case
def asking_for_a_reset_tells_nothing(bench: Bench) -> None:
    """A request is answered the same for anybody, and only an ADMIN makes a token or is told of nobody."""
    nobody = f"{bench.name()}@example.com".lower()
    for email in (bench.me.email, nobody):
        bench.nobody.users.RequestPasswordReset(pb.RequestPasswordResetRequest(email=email))
    asked = pb.CreatePasswordResetRequest(email=nobody)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW", required_role="ADMIN"):
        bench.mine.users.CreatePasswordReset(asked)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="user"):
        bench.admin.users.CreatePasswordReset(asked)


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
    member, new = bench.add_user(), bench.secret()
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
    wrong = pb.ChangePasswordRequest(current_password="wrong password", new_password=bench.secret())  # noqa: S106
    with refused("UNAUTHENTICATED", "PASSWORD_WRONG"):
        caller.users.ChangePassword(wrong)
    bench.login(bench.me)
