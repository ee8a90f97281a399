"""Open streams of who loses access: they end soon, in this process and in others of the same database."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.auth.keys import new_key, prefix_of
from morag_meta.auth.principal import Role
from morag_meta.rpc.times import to_timestamp
from moragmeta.v1 import api_keys_pb2, jobs_pb2, options_pb2, users_pb2
from tests.refusals import refused
from tests.rpc.conftest import Pair
from tests.service import Channel, User

HERE_SECONDS, THERE_SECONDS = 1.0, 5.0
SLACK = 2.0  # what a busy machine may add


class Watching:
    """A job of a user, watched through both servers."""

    def __init__(self, pair: Pair, user: User, key: str) -> None:
        job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
        self._channels = [Channel(server.target, (("x-api-key", key),)) for server in (pair.here, pair.there)]
        self._streams = [
            channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id)) for channel in self._channels
        ]
        for stream in self._streams:
            assert next(stream).event.sequence == 1

    def ends(self, code: str, reason: str, change: Callable[[], Any]) -> None:
        """Make a change, and expect the streams to end with a code and reason, each in its time."""
        change()
        changed = time.monotonic()
        for stream, seconds in zip(self._streams, (HERE_SECONDS, THERE_SECONDS), strict=True):
            with refused(code, reason):
                list(stream)
            assert time.monotonic() - changed < seconds + SLACK
        self.close()

    def go_on(self, seconds: float) -> None:
        """Expect the streams to stay open for so long, and leave."""
        time.sleep(seconds)
        self.goes_on()
        self.close()

    def goes_on(self) -> None:
        """Expect the streams to be open."""
        assert all(stream.is_active() for stream in self._streams)

    def close(self) -> None:
        """Disconnect."""
        for channel in self._channels:
            channel.close()


def _second_key(pair: Pair, user: User, *scopes: str, seconds: float | None = None) -> tuple[str, str]:
    """Write another key of a user; give its id and secret."""
    key = new_key()
    with pair.here.database.unit_of_work() as uow:
        row = uow.api_keys.add(
            user.id,
            name=f"second {key[-6:]}",
            description="",
            key_hash=pair.here.hasher.digest(key),
            key_prefix=prefix_of(key),
            scopes=list(scopes),
            expire_time=None if seconds is None else uow.now + dt.timedelta(seconds=seconds),
        )
        uow.commit()
    return row["id"], key


def test_a_revoked_key_ends_its_streams(pair: Pair) -> None:
    """Streams of a revoked key end with UNAUTHENTICATED, here within 1 s, elsewhere within 5 s."""
    user = pair.here.new_user()
    watching = Watching(pair, user, user.key)
    revoke = api_keys_pb2.RevokeApiKeyRequest(id=user.key_id)
    watching.ends("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: user.channel.api_keys.RevokeApiKey(revoke))


def test_a_disabled_key_ends_its_streams(pair: Pair) -> None:
    """Streams of a key that was disabled end, and it watches again once it is enabled."""
    user = pair.here.new_user()
    key_id, key = _second_key(pair, user, "*")
    watching = Watching(pair, user, key)
    disable = api_keys_pb2.DisableApiKeyRequest(id=key_id)
    keys = user.channel.api_keys
    watching.ends("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: keys.DisableApiKey(disable))
    keys.EnableApiKey(api_keys_pb2.EnableApiKeyRequest(id=key_id))
    Watching(pair, user, key).close()


def test_the_end_of_a_grace_ends_the_streams_of_the_old_key(pair: Pair) -> None:
    """Streams of a replaced key go on for the grace, and end with it in either process."""
    user = pair.here.new_user()
    key_id, key = _second_key(pair, user, "*")
    watching = Watching(pair, user, key)

    def replace() -> None:
        request = api_keys_pb2.RotateApiKeyRequest(id=key_id, grace=Duration(seconds=6))
        user.channel.api_keys.RotateApiKey(request)
        time.sleep(3)
        watching.goes_on()
        time.sleep(3)

    watching.ends("UNAUTHENTICATED", "CREDENTIAL_INVALID", replace)


def test_a_narrowed_list_of_addresses_ends_the_streams(pair: Pair) -> None:
    """Streams of a key that is bound to other addresses end, those to which theirs still belongs go on."""
    user = pair.here.new_user()
    key_id, key = _second_key(pair, user, "*")

    def bind(*ranges: str) -> None:
        changed = api_keys_pb2.ApiKey(id=key_id, allowed_addresses=ranges)
        mask = FieldMask(paths=["allowed_addresses"])
        request = api_keys_pb2.UpdateApiKeyRequest(api_key=changed, update_mask=mask)
        user.channel.api_keys.UpdateApiKey(request)

    watching = Watching(pair, user, key)
    bind("127.0.0.1", "10.0.0.0/8")
    time.sleep(2)
    watching.goes_on()
    watching.ends("PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED", lambda: bind("10.0.0.0/8"))


def test_a_changed_role_ends_the_users_streams(pair: Pair) -> None:
    """Streams of a user whose role was changed end with PERMISSION_DENIED, though the new role may watch."""
    user = pair.here.new_user()
    watching = Watching(pair, user, user.key)
    change = users_pb2.SetUserRoleRequest(id=user.id, role=options_pb2.ROLE_VIEWER)
    watching.ends(
        "PERMISSION_DENIED", "ROLE_TOO_LOW", lambda: pair.here.admin.channel.users.SetUserRole(change)
    )


def test_a_deactivated_users_streams_end(pair: Pair) -> None:
    """Streams of a user who was deactivated end with UNAUTHENTICATED."""
    user = pair.here.new_user()
    watching = Watching(pair, user, user.key)
    change = users_pb2.DeactivateUserRequest(id=user.id)
    watching.ends(
        "UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: pair.here.admin.channel.users.DeactivateUser(change)
    )


def test_a_key_that_lost_the_scope_ends_its_streams(pair: Pair) -> None:
    """Streams of a key whose scopes no longer hold the method's end with PERMISSION_DENIED."""
    user = pair.here.new_user()
    key_id, key = _second_key(pair, user, "jobs:read", "servers:read")
    watching = Watching(pair, user, key)
    change = api_keys_pb2.UpdateApiKeyRequest(
        api_key=api_keys_pb2.ApiKey(id=key_id, scopes=["servers:read"]),
        update_mask=FieldMask(paths=["scopes"]),
    )
    watching.ends("PERMISSION_DENIED", "SCOPE_MISSING", lambda: user.channel.api_keys.UpdateApiKey(change))


def test_an_expired_key_ends_its_streams(pair: Pair) -> None:
    """Streams of a key end when it expires, in either process, though nobody revoked it."""
    user = pair.here.new_user()
    _, key = _second_key(pair, user, "*", seconds=5)
    began = time.monotonic()
    watching = Watching(pair, user, key)

    def wait() -> None:
        time.sleep(max(0.0, 5 - (time.monotonic() - began)))

    watching.ends("UNAUTHENTICATED", "CREDENTIAL_INVALID", wait)


def test_a_key_that_is_given_an_end_ends_its_streams_then(pair: Pair) -> None:
    """An expiry that is set while a stream is open holds for it too."""
    user = pair.here.new_user()
    key_id, key = _second_key(pair, user, "*")
    watching = Watching(pair, user, key)

    def give_an_end() -> None:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=5)
        changed = api_keys_pb2.ApiKey(id=key_id, expire_time=to_timestamp(end))
        user.channel.api_keys.UpdateApiKey(
            api_keys_pb2.UpdateApiKeyRequest(api_key=changed, update_mask=FieldMask(paths=["expire_time"]))
        )
        time.sleep(max(0.0, (end - dt.datetime.now(dt.UTC)).total_seconds()))

    watching.ends("UNAUTHENTICATED", "CREDENTIAL_INVALID", give_an_end)


def test_streams_of_others_go_on(pair: Pair) -> None:
    """What one user loses ends no stream of another user, nor of another key of the same user."""
    loser, winner = pair.here.new_user(), pair.here.new_user()
    _, other = _second_key(pair, loser, "jobs:read")
    watchings = [Watching(pair, winner, winner.key), Watching(pair, loser, other)]
    loser.channel.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=loser.key_id))
    for watching, seconds in zip(watchings, (2.0, 0.0), strict=True):
        watching.go_on(seconds)


def test_an_ended_session_ends_its_streams(pair: Pair) -> None:
    """Streams that were opened with an access token end at the session's logout."""
    email, password = f"watcher@{pair.here.kind}.test", "correct horse battery"
    anybody = pair.here.channel()
    anybody.users.RegisterUser(users_pb2.RegisterUserRequest(name="Jo", email=email, password=password))
    session = anybody.users.Login(users_pb2.LoginRequest(email=email, password=password))
    mine = pair.here.channel(token=session.access_token)
    job = mine.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = mine.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    mine.users.Logout(users_pb2.LogoutRequest())
    ended = time.monotonic()
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        list(stream)
    assert time.monotonic() - ended < HERE_SECONDS + SLACK


def test_an_admins_stream_on_anothers_job_ends_with_the_role(pair: Pair) -> None:
    """An ADMIN who watches somebody's job and is made a USER sees no more of it."""
    admin, owner = pair.here.new_user(Role.ADMIN), pair.here.new_user()
    job = owner.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    stream: Any = admin.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
    next(stream)
    pair.here.admin.channel.users.SetUserRole(
        users_pb2.SetUserRoleRequest(id=admin.id, role=options_pb2.ROLE_USER)
    )
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        list(stream)
    with pytest.raises(grpc.RpcError) as caught:
        list(admin.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id)))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
