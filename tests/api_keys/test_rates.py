"""Limits to the rate of calls, over the wire: of keys, and of addresses that need no credential."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from morag_meta.auth.principal import Role
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import jobs_pb2, users_pb2
from tests.api_keys.calls import ME, create, get, rotate, update
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Channel, Service, User, serving

_SLOW = pb.RateLimit(per_second=0.1, burst=3)


def _calls(channel: Channel, count: int) -> list[str]:
    ends = []
    for _ in range(count):
        try:
            channel.users.GetUser(ME)
        except grpc.RpcError as error:
            ends.append(error.code().name)
        else:
            ends.append("OK")
    return ends


def _retry_seconds(error: Any) -> float:
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    for detail in status.details:
        retry = RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToMilliseconds() / 1000
    raise AssertionError("no RetryInfo")


def test_limited_key_is_told_when_to_come_again(service: Service, user: User) -> None:
    """Beyond its burst a key is RESOURCE_EXHAUSTED with the limit and the delay, other keys are not."""
    made = create(user.channel, rate_limit=_SLOW)
    assert made.api_key.rate_limit == _SLOW
    channel = service.channel(api_key=made.secret)
    assert _calls(channel, 3) == ["OK"] * 3
    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED") as refusal:
        channel.users.GetUser(ME)
    assert refusal.metadata == {"per_second": "0.1", "burst": "3"}
    with pytest.raises(grpc.RpcError) as caught:
        channel.users.GetUser(ME)
    assert 5 < _retry_seconds(caught.value) <= 10
    assert _calls(user.channel, 20) == ["OK"] * 20


def test_told_delay_is_enough(service: Service, user: User) -> None:
    """Who waits for the delay that was told is let through."""
    made = create(user.channel, rate_limit=pb.RateLimit(per_second=0.25, burst=1))
    channel = service.channel(api_key=made.secret)
    channel.users.GetUser(ME)
    with pytest.raises(grpc.RpcError) as caught:
        channel.users.GetUser(ME)
    time.sleep(_retry_seconds(caught.value))
    channel.users.GetUser(ME)


def test_streams_and_refused_calls_count(service: Service, user: User) -> None:
    """What a key is recognized for counts, whatever comes of it: a stream, and a call beyond its scopes."""
    made = create(user.channel, scopes=["jobs:read"], rate_limit=_SLOW)
    channel = service.channel(api_key=made.secret)
    stream = channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest())
    next(iter(stream))
    for _ in range(2):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            channel.users.GetUser(ME)
    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED"):
        channel.users.GetUser(ME)
    stream.cancel()


def test_burst_is_by_default_the_calls_of_a_second(user: User) -> None:
    """Without a burst it is the rate, rounded up; a successor has the same, and a cleared one is gone."""
    for rate, burst in ((7.5, 8), (0.001, 1), (100_000, 100_000)):
        key = create(user.channel, f"{rate}", rate_limit=pb.RateLimit(per_second=rate)).api_key
        assert key.rate_limit == pb.RateLimit(per_second=rate, burst=burst)
        assert get(user.channel, key.id) == key
    assert rotate(user.channel, key.id).api_key.rate_limit == key.rate_limit
    key = create(user.channel, "cleared", rate_limit=_SLOW).api_key
    assert not update(user.channel, key.id, "rate_limit").HasField("rate_limit")


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        (pb.RateLimit(), "per_second"),
        (pb.RateLimit(per_second=0.0001), "per_second"),
        (pb.RateLimit(per_second=100_001), "per_second"),
        (pb.RateLimit(per_second=-1), "per_second"),
        (pb.RateLimit(per_second=float("nan")), "per_second"),
        (pb.RateLimit(per_second=1, burst=-1), "burst"),
        (pb.RateLimit(per_second=1, burst=1_000_001), "burst"),
    ],
)
def test_bad_limits_are_named(user: User, limit: pb.RateLimit, field: str) -> None:
    """A rate or burst beyond its bounds is INVALID_ARGUMENT, in a creation and a change."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"api_key.rate_limit.{field}"):
        create(user.channel, rate_limit=limit)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"api_key.rate_limit.{field}"):
        update(user.channel, user.key_id, "rate_limit", rate_limit=limit)


def test_verification_tells_what_is_left(service: Service, user: User) -> None:
    """VerifyApiKey tells the limit and the calls that are left of it, and takes none."""
    made = create(user.channel, rate_limit=_SLOW)
    channel = service.channel(api_key=made.secret)
    request = pb.VerifyApiKeyRequest(key=made.secret)
    for left in (3, 2, 1):
        for _ in range(2):
            answer = user.channel.api_keys.VerifyApiKey(request)
            assert (answer.verdict, answer.remaining_calls) == (pb.API_KEY_VERDICT_VALID, left)
            assert answer.rate_limit == _SLOW
        channel.users.GetUser(ME)
    answer = user.channel.api_keys.VerifyApiKey(request)
    assert (answer.verdict, answer.remaining_calls) == (pb.API_KEY_VERDICT_RATE_LIMITED, 0)
    free = user.channel.api_keys.VerifyApiKey(pb.VerifyApiKeyRequest(key=user.key))
    assert (free.HasField("rate_limit"), free.remaining_calls) == (False, 0)


def test_key_made_by_a_limited_key_is_limited(service: Service, user: User) -> None:
    """By way of a limited key nobody makes one that calls faster."""
    slow = create(user.channel, "slow", rate_limit=pb.RateLimit(per_second=1, burst=50))
    channel = service.channel(api_key=slow.secret)
    for fields in ({}, {"rate_limit": pb.RateLimit(per_second=2, burst=1)}):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.rate_limit"):
            create(channel, "faster", **fields)  # type: ignore[arg-type]
    create(channel, "as slow", rate_limit=pb.RateLimit(per_second=1, burst=50))


@pytest.fixture(scope="module")
def limited(backend: Backend) -> Iterator[tuple[Service, Service]]:
    """Two processes of one database, that limit keys and public calls."""
    limits: dict[str, Any] = {"api_key_rate": 0.1, "api_key_burst": 10, "public_rate": 0.1, "public_burst": 4}
    with serving(backend, **limits) as here:
        there = Service(here.url, here.kind, **limits)
        yield here, there
        there.close()


def test_each_process_counts_by_itself(limited: tuple[Service, Service]) -> None:
    """Over two processes a key gets at most twice its burst: each lets through as much, and no more."""
    here, there = limited
    user = here.new_user()
    assert _calls(here.channel(api_key=user.key), 12) == ["OK"] * 10 + ["RESOURCE_EXHAUSTED"] * 2
    assert _calls(there.channel(api_key=user.key), 12) == ["OK"] * 10 + ["RESOURCE_EXHAUSTED"] * 2


def test_installation_limits_keys_and_an_admin_lifts_it(limited: tuple[Service, Service]) -> None:
    """Above the limit that the settings give to every key only an ADMIN goes, for anybody's key."""
    here, _ = limited
    user, admin = here.new_user(), here.new_user(Role.ADMIN)
    fast = pb.RateLimit(per_second=1000, burst=1000)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        create(user.channel, rate_limit=fast)
    made = create(admin.channel, owner_id=user.id, rate_limit=fast)
    assert _calls(here.channel(api_key=made.secret), 50) == ["OK"] * 50


def test_public_calls_are_limited_by_address(limited: tuple[Service, Service]) -> None:
    """Whoever calls without a credential is limited by address; what is not valid counts for nothing."""
    _, there = limited
    anybody = there.channel()
    for _ in range(10):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "refresh_token"):
            anybody.users.RefreshToken(users_pb2.RefreshTokenRequest())
    for _ in range(4):
        with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
            anybody.users.RefreshToken(users_pb2.RefreshTokenRequest(refresh_token="x"))
    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED") as refusal:
        there.channel().users.RefreshToken(users_pb2.RefreshTokenRequest(refresh_token="x"))
    assert refusal.metadata == {"per_second": "0.1", "burst": "4"}
    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED"):
        there.channel().users.Login(users_pb2.LoginRequest(email="a@b.c", password="correct horse"))
