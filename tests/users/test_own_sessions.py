"""Sessions as their users see them: where they are used, which one is calling, and ending one."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import sessions
from morag_meta.ids import new_id
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Channel, Service
from tests.users.conftest import PASSWORD, NewPerson, Person

ME = pb.GetUserRequest(id="me")
MINE = pb.ListSessionsRequest()


def _login(service: Service, person: Person) -> pb.LoginResponse:
    return service.channel().users.Login(pb.LoginRequest(email=person.email, password=PASSWORD))


def _listed(channel: Channel, **asked: Any) -> list[pb.Session]:
    return list(channel.users.ListSessions(pb.ListSessionsRequest(**asked)).sessions)


def _current(channel: Channel) -> str:
    (current,) = [session.id for session in _listed(channel) if session.current]
    return current


def test_a_session_says_when_and_from_where_it_is_used(service: Service, person: Person) -> None:
    """A list shows log-in, last refresh, end, address and user agent, and marks the calling session."""
    second = _login(service, person)
    newest, oldest = _listed(person.channel)
    assert (newest.current, oldest.current) == (False, True)
    assert newest.owner_id == oldest.owner_id == person.id
    assert oldest.expire_time == person.login.session_expire_time
    assert newest.create_time == newest.last_used_time
    assert {session.address for session in (newest, oldest)} == {"127.0.0.1"}
    assert all(session.user_agent.startswith("grpc-python/") for session in (newest, oldest))
    assert _current(service.channel(token=second.access_token)) == newest.id


def test_a_refresh_moves_the_time_of_use(service: Service, person: Person) -> None:
    """A refresh is a use of the session: its time moves, and login and end stay."""
    (before,) = _listed(person.channel)
    service.channel().users.RefreshToken(pb.RefreshTokenRequest(refresh_token=person.login.refresh_token))
    (after,) = _listed(person.channel)
    assert after.last_used_time.ToNanoseconds() > before.last_used_time.ToNanoseconds()
    assert (after.id, after.create_time, after.expire_time) == (
        before.id,
        before.create_time,
        before.expire_time,
    )


def test_a_user_agent_is_kept_at_a_bounded_length(service: Service, person: Person) -> None:
    """However long a client's name for itself is, 256 characters of it are kept."""
    login = pb.LoginRequest(email=person.email, password=PASSWORD)
    channel = service.channel()
    token = channel.users.Login(login, metadata=(("user-agent", "x" * 1000),)).access_token
    (mine,) = [each for each in _listed(service.channel(token=token)) if each.current]
    assert 3 < len(mine.user_agent) <= 256


def test_what_is_over_is_not_listed(service: Service, person: Person) -> None:
    """Sessions that were ended are gone from the list, and an API key sees the others and is in none."""
    ended = _login(service, person)
    service.channel(token=ended.access_token).users.Logout(pb.LogoutRequest())
    (left,) = _listed(service.channel(api_key=person.key))
    assert not left.current
    assert left.id == _current(person.channel)


def test_sessions_are_paged(service: Service, person: Person) -> None:
    """Page by page every session comes once, newest first."""
    for _ in range(4):
        _login(service, person)
    seen: list[str] = []
    request = pb.ListSessionsRequest(page_size=2)
    while True:
        page = person.channel.users.ListSessions(request)
        seen += [session.id for session in page.sessions]
        if not page.next_page_token:
            break
        assert len(page.sessions) == 2
        request.page_token = page.next_page_token
    assert seen == [session.id for session in _listed(person.channel)]
    assert len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)


def test_sessions_of_others_are_for_an_admin(service: Service, new_person: NewPerson) -> None:
    """A USER names nobody else, and an ADMIN lists one user's sessions or everybody's, none current."""
    person, other = new_person(), new_person()
    for owner in (person.id, "-"):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            _listed(other.channel, owner_id=owner)
    admin = service.admin.channel
    (session,) = _listed(admin, owner_id=person.id)
    assert (session.owner_id, session.current) == (person.id, False)
    everybody = {each.owner_id for each in _listed(admin, owner_id="-", page_size=1000)}
    assert {person.id, other.id} <= everybody


def test_ending_a_session_ends_its_tokens_and_streams(service: Service, person: Person) -> None:
    """Access token, refresh token and streams of the ended session end, and the ending one goes on."""
    lost = _login(service, person)
    away = service.channel(token=lost.access_token)
    job = away.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = away.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    lost_id = _current(away)
    person.channel.users.EndSession(pb.EndSessionRequest(id=lost_id))
    ended = time.monotonic()
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        away.users.GetUser(ME)
    with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
        service.channel().users.RefreshToken(pb.RefreshTokenRequest(refresh_token=lost.refresh_token))
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        list(stream)
    assert time.monotonic() - ended < 1.0 + 2.0  # which a busy machine may add
    assert [session.id for session in _listed(person.channel)] == [_current(person.channel)]
    person.channel.users.EndSession(pb.EndSessionRequest(id=lost_id))


def test_the_calling_session_may_end_itself(person: Person) -> None:
    """Ending the current session is a log-out."""
    person.channel.users.EndSession(pb.EndSessionRequest(id=_current(person.channel)))
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        person.channel.users.GetUser(ME)


def test_another_ones_session_does_not_exist(service: Service, new_person: NewPerson) -> None:
    """Another user's session is NOT_FOUND in the words of a missing one, and goes on; an ADMIN ends it."""
    person, other = new_person(), new_person()
    session_id, none = _current(person.channel), new_id()
    words = []
    for id_ in (session_id, none):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            other.channel.users.EndSession(pb.EndSessionRequest(id=id_))
        words.append((refusal.message.replace(id_, ""), sorted(refusal.metadata)))
    assert words[0] == words[1]
    assert person.channel.users.GetUser(ME).id == person.id
    service.admin.channel.users.EndSession(pb.EndSessionRequest(id=session_id))
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        person.channel.users.GetUser(ME)


def test_a_viewer_sees_to_the_own_sessions(service: Service, new_person: NewPerson) -> None:
    """A VIEWER lists and ends the own sessions."""
    viewer = new_person(Role.VIEWER)
    other = _login(service, viewer)
    away = service.channel(token=other.access_token)
    viewer.channel.users.EndSession(pb.EndSessionRequest(id=_current(away)))
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        away.users.GetUser(ME)


def test_an_expired_session_is_not_listed(service: Service, person: Person) -> None:
    """A session whose time is up is gone from the list, though its row is still there."""
    other = _current(service.channel(token=_login(service, person).access_token))
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with service.database.engine.connect() as connection:
        connection.execute(sa.update(sessions).where(sessions.c.id == other).values(expire_time=past))
    assert [session.current for session in _listed(person.channel)] == [True]
