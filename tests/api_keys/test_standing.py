"""Keys that are disabled and enabled, and keys that are replaced: which of them lets in, and for how long."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from morag_meta.db.unit import Row
from morag_meta.rpc.times import from_timestamp
from moragmeta.v1 import api_keys_pb2 as pb
from tests.api_keys.calls import ME, create, get, names_of, rotate, seconds_from_now, update
from tests.refusals import refused
from tests.service import Channel, Service, User

_HOUR = dt.timedelta(hours=1)


def _disable(channel: Channel, id: str, **fields: Any) -> pb.ApiKey:
    return channel.api_keys.DisableApiKey(pb.DisableApiKeyRequest(id=id, **fields))


def _enable(channel: Channel, id: str, **fields: Any) -> pb.ApiKey:
    return channel.api_keys.EnableApiKey(pb.EnableApiKeyRequest(id=id, **fields))


def _revoke(channel: Channel, id: str) -> pb.ApiKey:
    return channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=id))


def _lets_in(service: Service, secret: str) -> bool:
    try:
        service.channel(api_key=secret).users.GetUser(ME)
    except grpc.RpcError:
        return False
    return True


def test_disabled_key_is_refused_until_it_is_enabled(service: Service, user: User) -> None:
    """From the call on a disabled key is refused, also cached, and from the other on it works as before."""
    made = create(user.channel)
    channel, id = service.channel(api_key=made.secret), made.api_key.id
    channel.users.GetUser(ME)
    for _ in range(2):
        disabled = _disable(user.channel, id)
        assert (disabled.state, disabled.HasField("disable_time")) == (pb.API_KEY_STATE_DISABLED, True)
        assert _disable(user.channel, id) == disabled
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            channel.users.GetUser(ME)
        assert "new" in names_of(user.channel)
        enabled = _enable(user.channel, id)
        assert (enabled.state, enabled.HasField("disable_time")) == (pb.API_KEY_STATE_ACTIVE, False)
        assert _enable(user.channel, id) == enabled
        channel.users.GetUser(ME)


def test_state_tells_what_cannot_be_mended_first(user: User) -> None:
    """Revoked comes before disabled, and disabled before expired; what is enabled then may be expired."""
    end = seconds_from_now(5)
    id = create(user.channel, expire_time=end).api_key.id
    _disable(user.channel, id)
    time.sleep(max(0.0, (from_timestamp(end) - dt.datetime.now(dt.UTC)).total_seconds() + 0.1))
    assert get(user.channel, id).state == pb.API_KEY_STATE_DISABLED
    assert _enable(user.channel, id).state == pb.API_KEY_STATE_EXPIRED
    _disable(user.channel, id)
    assert _revoke(user.channel, id).state == pb.API_KEY_STATE_REVOKED
    for change in (_disable, _enable):
        with refused("FAILED_PRECONDITION", "INVALID_STATE") as refusal:
            change(user.channel, id)
        assert refusal.metadata == {"resource_type": "api_key", "state": "REVOKED"}


def test_key_may_end_but_not_enable_what_it_could_not_make(service: Service, user: User) -> None:
    """By way of a bounded key a stronger one is disabled, but neither enabled nor rotated."""
    bounded = create(user.channel, "bounded", scopes=["api_keys:write"], expire_time=seconds_from_now(60))
    wide = create(user.channel, "wide").api_key.id
    channel = service.channel(api_key=bounded.secret)
    for forbidden in (_enable, rotate):
        with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
            forbidden(channel, wide)
    assert _disable(channel, wide).state == pb.API_KEY_STATE_DISABLED
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        _enable(channel, wide)
    longer = create(user.channel, "longer", scopes=["api_keys:write"]).api_key.id
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "expire_time"):
        rotate(channel, longer)


def test_rotated_key_and_its_successor_work_side_by_side(service: Service, user: User) -> None:
    """The new key does what the old one does under its name; the old one ends after 24 hours by default."""
    end = seconds_from_now(7 * 86_400)
    made = create(user.channel, "deploy", description="ci", scopes=["users:read"], expire_time=end)
    rotated = rotate(user.channel, made.api_key.id)
    new, old = rotated.api_key, rotated.predecessor
    assert rotated.secret not in ("", made.secret)
    assert not rotated.replayed
    assert (new.name, new.description, list(new.scopes)) == ("deploy", "ci", ["users:read"])
    assert (new.expire_time, new.predecessor_id, new.successor_id) == (end, made.api_key.id, "")
    assert (old.id, old.name, old.successor_id) == (made.api_key.id, "deploy", new.id)
    grace = from_timestamp(old.expire_time) - from_timestamp(new.create_time)
    assert grace == 24 * _HOUR
    assert (new.use_count, new.state, old.state) == (0, pb.API_KEY_STATE_ACTIVE, pb.API_KEY_STATE_ACTIVE)
    assert get(user.channel, new.id) == new
    assert get(user.channel, old.id) == old
    assert _lets_in(service, made.secret)
    assert _lets_in(service, rotated.secret)


@pytest.mark.parametrize(("life", "grace", "ends"), [(60, 3600, 60), (7200, 3600, 3600), (None, 3600, 3600)])
def test_grace_never_outlives_the_old_key(user: User, life: float | None, grace: float, ends: float) -> None:
    """The old key ends with its grace or at its own end, whichever comes first."""
    fields: dict[str, Any] = {} if life is None else {"expire_time": seconds_from_now(life)}
    made = create(user.channel, **fields).api_key
    old = rotate(user.channel, made.id, grace).predecessor
    seconds = (from_timestamp(old.expire_time) - dt.datetime.now(dt.UTC)).total_seconds()
    assert ends - 5 < seconds <= ends


def test_end_of_grace_ends_the_old_key_alone(service: Service, user: User) -> None:
    """When the grace has passed, the old key is EXPIRED and refused, the new one goes on."""
    made = create(user.channel)
    rotated = rotate(user.channel, made.api_key.id, 3)
    assert _lets_in(service, made.secret)
    time.sleep(3.1)
    assert not _lets_in(service, made.secret)
    assert get(user.channel, made.api_key.id).state == pb.API_KEY_STATE_EXPIRED
    assert _lets_in(service, rotated.secret)


def test_rotation_without_grace_ends_the_old_key_at_once(service: Service, user: User) -> None:
    """With a grace of 0 the next call with the old key is refused; a key may so replace itself."""
    made = create(user.channel)
    channel = service.channel(api_key=made.secret)
    rotated = rotate(channel, made.api_key.id, 0)
    assert rotated.predecessor.state == pb.API_KEY_STATE_EXPIRED
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        channel.users.GetUser(ME)
    assert _lets_in(service, rotated.secret)


def test_replaced_key_can_only_be_ended(service: Service, user: User) -> None:
    """A key with a successor is not changed or rotated; it is disabled, enabled, and its grace revoked."""
    made = create(user.channel)
    id = made.api_key.id
    new = rotate(user.channel, id).api_key
    for fields in ({"name": "other"}, {"expire_time": seconds_from_now(1e7)}, {"scopes": ["jobs:read"]}):
        with refused("FAILED_PRECONDITION", "INVALID_STATE"):
            update(user.channel, id, *fields, **fields)
    with refused("FAILED_PRECONDITION", "INVALID_STATE"):
        rotate(user.channel, id)
    _disable(user.channel, id)
    assert not _lets_in(service, made.secret)
    _enable(user.channel, id)
    assert _lets_in(service, made.secret)
    _revoke(user.channel, id)
    assert not _lets_in(service, made.secret)
    assert get(user.channel, new.id).state == pb.API_KEY_STATE_ACTIVE
    assert rotate(user.channel, new.id, 60).api_key.name == "new"


def test_only_a_key_that_works_is_rotated(user: User) -> None:
    """What is disabled, expired or revoked has no successor."""
    disabled, expired, revoked = (
        create(user.channel, name, expire_time=seconds_from_now(3)).api_key.id for name in "abc"
    )
    _disable(user.channel, disabled)
    _revoke(user.channel, revoked)
    time.sleep(3.1)
    for id, state in ((disabled, "DISABLED"), (expired, "EXPIRED"), (revoked, "REVOKED")):
        with refused("FAILED_PRECONDITION", "INVALID_STATE") as refusal:
            rotate(user.channel, id)
        assert refusal.metadata["state"] == state


def test_name_belongs_to_the_successor(user: User) -> None:
    """After a rotation the name is the new key's: taken while that lives, free once it is revoked."""
    new = rotate(user.channel, create(user.channel, "deploy").api_key.id).api_key
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        create(user.channel, "deploy")
    _revoke(user.channel, new.id)
    create(user.channel, "deploy")
    assert names_of(user.channel, show_revoked=True).count("deploy") == 3


@pytest.mark.parametrize("seconds", [-1, 30 * 86_400 + 1])
def test_grace_has_its_limits(user: User, seconds: float) -> None:
    """A negative grace, or one beyond 30 days, is INVALID_ARGUMENT and rotates nothing."""
    id = create(user.channel).api_key.id
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "grace"):
        rotate(user.channel, id, seconds)
    assert get(user.channel, id).successor_id == ""
    assert rotate(user.channel, id, 30 * 86_400).api_key.predecessor_id == id


def test_etags_guard_disabling_and_rotation(user: User) -> None:
    """What was changed since it was read is not disabled, enabled or rotated."""
    old = create(user.channel).api_key
    update(user.channel, old.id, "description", description="changed")
    for change in (_disable, _enable, rotate):
        with refused("ABORTED", "ETAG_MISMATCH"):
            change(user.channel, old.id, etag=old.etag)


def test_repeated_rotation_shows_no_secret(user: User) -> None:
    """A repeat answers both keys without a secret, and the new one alone once the old one is deleted."""
    id = create(user.channel).api_key.id
    first = rotate(user.channel, id, request_id="rotate-once")
    assert first.secret
    expected = pb.RotateApiKeyResponse(api_key=first.api_key, predecessor=first.predecessor, replayed=True)
    assert rotate(user.channel, id, request_id="rotate-once") == expected
    user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=id))
    expected.ClearField("predecessor")
    assert rotate(user.channel, id, request_id="rotate-once") == expected


def _race(count: int, attempt: Callable[[int], Any]) -> list[str]:
    """Run attempts at once; give how each ended."""
    together, ends = threading.Barrier(count), []

    def run(number: int) -> None:
        together.wait()
        try:
            attempt(number)
        except grpc.RpcError as error:
            ends.append(error.code().name)
        else:
            ends.append("OK")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ends)


def _live(service: Service, user: User, name: str) -> list[Row]:
    with service.database.unit_of_work() as uow:
        rows = uow.api_keys.page(user.id, None, 100, show_revoked=True)
    return [row for row in rows if row["name"] == name and row["former_name"] is None]


def test_of_those_who_make_a_name_at_once_one_does(service: Service, user: User) -> None:
    """Of eight keys of one name that are made or renamed at the same time exactly one comes to be."""
    ids = [create(user.channel, f"other {number}").api_key.id for number in range(4)]

    def attempt(number: int) -> None:
        if number < len(ids):
            update(user.channel, ids[number], "name", name="same")
        else:
            create(user.channel, "same")

    assert _race(8, attempt) == ["ALREADY_EXISTS"] * 7 + ["OK"]
    assert len(_live(service, user, "same")) == 1


def test_of_those_who_rotate_a_key_at_once_one_does(service: Service, user: User) -> None:
    """Eight rotations of one key beside creations of its name leave one successor, and one live key."""
    id = create(user.channel, "same").api_key.id

    def attempt(number: int) -> None:
        if number % 2:
            rotate(user.channel, id)
        else:
            create(user.channel, "same")

    ends = _race(8, attempt)
    assert ends == ["ALREADY_EXISTS"] * 4 + ["FAILED_PRECONDITION"] * 3 + ["OK"]
    (live,) = _live(service, user, "same")
    assert live["predecessor_id"] == id
