"""How often a key was used, over the wire."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

from morag_meta.auth.usage import KeyUsage
from morag_meta.db.database import Database
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import users_pb2
from tests.api_keys.calls import ME, create
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, User, serving

MISSING = "00000000-0000-7000-8000-000000000000"


def test_use_is_counted_behind_the_calls(backend: Backend) -> None:
    """Calls are counted, and shown a little later, and the key keeps its etag."""
    with serving(backend, api_key_usage_interval=0.1) as service:
        user, admin = service.new_user(), service.admin.channel
        before = admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
        for _ in range(7):
            user.channel.users.GetUser(ME)
        deadline = time.monotonic() + 20
        while True:
            after = admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
            if after.use_count == 7 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    assert after.use_count == 7
    assert after.last_used_time.ToNanoseconds() >= before.create_time.ToNanoseconds()
    assert after.etag == before.etag


def test_drain_writes_what_was_counted(backend: Backend) -> None:
    """An orderly end writes the last uses, however long the interval is."""
    url = backend.new_url()
    service = Service(url, backend.name, api_key_usage_interval=3600)
    user = service.new_user()
    user.channel.users.GetUser(ME)
    service.close()
    database = Database.open(url)
    with database.unit_of_work() as uow:
        assert uow.api_keys.get(user.id, user.key_id)["use_count"] == 1
    database.close()
    backend.drop(url)


def _usage(service: Service, user: User, days: int = 0) -> pb.ApiKeyUsage:
    service.on_loop(service.app._usage.flush())  # noqa: SLF001 - instead of waiting for it
    return service.admin.channel.api_keys.GetApiKeyUsage(pb.GetApiKeyUsageRequest(id=user.key_id, days=days))


def test_calls_are_summed_up_by_method_and_day(service: Service, user: User) -> None:
    """Calls, errors and times are told by method and by day, whatever came of the calls."""
    began = time.time()
    for _ in range(3):
        user.channel.users.GetUser(ME)
    for _ in range(2):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=MISSING))
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        user.channel.users.ListUsers(users_pb2.ListUsersRequest())
    took = time.time() - began
    for _ in range(2):  # a batch without anything new adds nothing
        usage = _usage(service, user)
    seen = {each.method: (each.figures.call_count, each.figures.error_count) for each in usage.methods}
    assert seen == {
        "ApiKeyService.GetApiKey": (2, 2),
        "UserService.GetUser": (3, 0),
        "UserService.ListUsers": (1, 1),
    }
    assert [each.method for each in usage.methods] == sorted(seen)
    assert (usage.total.call_count, usage.total.error_count) == (6, 3)
    assert sum(day.figures.call_count for day in usage.days) == 6
    assert all(day.day.seconds % 86_400 == 0 for day in usage.days)
    mean, longest = (
        span.ToMicroseconds() / 1e6 for span in (usage.total.mean_latency, usage.total.max_latency)
    )
    assert 0 < mean <= longest < took
    user.channel.users.GetUser(ME)
    assert _usage(service, user).total.call_count == 7


def test_usage_goes_back_as_many_days_as_asked(service: Service, user: User) -> None:
    """Calls of earlier days are told when they are asked after, and swept after 92 days."""
    for days_ago in (0, 1, 29, 30, 91, 93):
        service.on_loop(_note(service, user.key_id, time.time() - days_ago * 86_400))
    for days, count in ((1, 1), (2, 2), (0, 3), (30, 3), (31, 4), (92, 5)):
        assert _usage(service, user, days).total.call_count == count
    with service.database.unit_of_work() as uow:
        row = uow.api_keys.get(user.id, user.key_id)
        assert uow.api_keys.sweep_calls(dt.timedelta(days=92), 1000) >= 1
        kept = uow.api_keys.calls_by_day(row, uow.now - dt.timedelta(days=1000), uow.now)
        uow.commit()
    assert len(kept) == 5


async def _note(service: Service, key_id: str, at: float) -> None:
    service.app._usage.note_call(key_id, "JobService.GetJob", at, 0.001, failed=False)  # noqa: SLF001


def test_usage_is_the_owners_to_see_and_goes_with_the_key(service: Service, user: User) -> None:
    """Another's key is NOT_FOUND, a deleted key takes its calls along, and late ones of it are dropped."""
    made = create(user.channel, "used")
    service.channel(api_key=made.secret).users.GetUser(ME)
    assert _usage(service, user).total.call_count >= 1
    request = pb.GetApiKeyUsageRequest(id=made.api_key.id)
    assert user.channel.api_keys.GetApiKeyUsage(request).total.call_count == 1
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        service.new_user().channel.api_keys.GetApiKeyUsage(request)
    service.on_loop(_note(service, made.api_key.id, time.time()))
    user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=made.api_key.id))
    assert _usage(service, user).total.call_count >= 1
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        user.channel.api_keys.GetApiKeyUsage(request)


def test_processes_that_write_at_once_lose_no_call(service: Service, user: User) -> None:
    """Batches of two processes about the same keys, on the same day, add up."""
    database = Database.open(service.url)
    others = [KeyUsage(service.database), KeyUsage(database)]

    async def both() -> None:
        for _ in range(10):
            for usage in others:
                usage.note_call(user.key_id, "JobService.GetJob", time.time(), 0.001, failed=True)
            await asyncio.gather(*(usage.flush() for usage in others))

    asyncio.run(both())
    database.close()
    (figures,) = [
        each.figures for each in _usage(service, user).methods if each.method == "JobService.GetJob"
    ]
    assert (figures.call_count, figures.error_count) == (20, 20)
