"""Keys that are bound to addresses, and ends that an installation asks for, over the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moragmeta.v1 import api_keys_pb2 as pb
from tests.api_keys.calls import ME, create, get, rotate, seconds_from_now, update
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, User, serving

_ELSEWHERE = ["192.0.2.0/24", "2001:db8::/32", "unix"]


def test_bound_key_is_let_in_from_its_addresses_alone(service: Service, user: User) -> None:
    """A key is refused from an address that is not in its list, and told which; else it is let in."""
    bound = create(user.channel, "here", allowed_addresses=["127.0.0.0/8", "::1"])
    assert list(bound.api_key.allowed_addresses) == ["127.0.0.0/8", "::1/128"]
    service.channel(api_key=bound.secret).users.GetUser(ME)
    away = create(user.channel, "away", allowed_addresses=_ELSEWHERE)
    for channel in (service.channel(api_key=away.secret), service.channel(token=away.secret)):
        with refused("PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED") as refusal:
            channel.users.GetUser(ME)
        assert refusal.metadata == {"address": "127.0.0.1"}


def test_named_address_of_a_header_is_not_believed(service: Service, user: User) -> None:
    """Headers in which proxies name another address do not let anybody in."""
    away = create(user.channel, allowed_addresses=["192.0.2.0/24"])
    for header in ("x-forwarded-for", "x-real-ip", "forwarded"):
        with refused("PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED"):
            service.channel(api_key=away.secret).users.GetUser(ME, metadata=((header, "192.0.2.7"),))


def test_change_of_addresses_holds_at_once(service: Service, user: User) -> None:
    """A list that is narrowed, widened or cleared holds from the next call on."""
    made = create(user.channel)
    channel, id = service.channel(api_key=made.secret), made.api_key.id
    channel.users.GetUser(ME)
    for ranges, allowed in ((["10.0.0.0/8"], False), (["10.0.0.0/8", "127.0.0.1"], True), (["unix"], False)):
        update(user.channel, id, "allowed_addresses", allowed_addresses=ranges)
        if allowed:
            channel.users.GetUser(ME)
        else:
            with refused("PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED"):
                channel.users.GetUser(ME)
    assert list(update(user.channel, id, "allowed_addresses").allowed_addresses) == []
    channel.users.GetUser(ME)


def test_addresses_are_kept_in_one_spelling(user: User) -> None:
    """What is answered is canonical, sorted and without repeats, and a successor has the same."""
    written = ["unix", "::ffff:10.0.0.0/104", "192.0.2.7", "2001:DB8::/32", "10.0.0.0/8"]
    kept = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "unix"]
    key = create(user.channel, allowed_addresses=written).api_key
    assert list(key.allowed_addresses) == kept
    assert get(user.channel, key.id) == key
    assert list(rotate(user.channel, key.id).api_key.allowed_addresses) == kept


@pytest.mark.parametrize(
    ("ranges", "field"),
    [
        (["10.0.0.0/8", "10.0.0.1/8"], "api_key.allowed_addresses[1]"),
        (["localhost"], "api_key.allowed_addresses[0]"),
        ([""], "api_key.allowed_addresses[0]"),
        (["10.0.0.1"] * 51, "api_key.allowed_addresses"),
    ],
)
def test_bad_addresses_are_named(user: User, ranges: list[str], field: str) -> None:
    """What is no range, and more than 50 of them, is INVALID_ARGUMENT naming its place."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", field):
        create(user.channel, allowed_addresses=ranges)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", field):
        update(user.channel, user.key_id, "allowed_addresses", allowed_addresses=ranges)


def test_key_made_by_a_bound_key_is_bound_within_it(service: Service, user: User) -> None:
    """By way of a bound key nobody makes, changes, enables or rotates one that is used from elsewhere."""
    bound = create(user.channel, "bound", allowed_addresses=["127.0.0.0/8"])
    free = create(user.channel, "free").api_key.id
    channel = service.channel(api_key=bound.secret)
    within = create(channel, "within", allowed_addresses=["127.0.0.1"]).api_key.id
    wider: list[Callable[[], Any]] = [
        lambda: create(channel, "unbound"),
        lambda: create(channel, "elsewhere", allowed_addresses=["127.0.0.1", "10.0.0.1"]),
        lambda: update(channel, within, "allowed_addresses"),
        lambda: update(channel, free, "expire_time", expire_time=seconds_from_now(60)),
    ]
    for attempt in wider:
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.allowed_addresses"):
            attempt()
    user.channel.api_keys.DisableApiKey(pb.DisableApiKeyRequest(id=free))
    for attempt in (
        lambda: channel.api_keys.EnableApiKey(pb.EnableApiKeyRequest(id=free)),
        lambda: rotate(channel, free),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "allowed_addresses"):
            attempt()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_installation_may_ask_for_ends(backend: Backend) -> None:
    """Where ends are required and bounded, no key is made or changed without, and old ones go on."""
    with serving(backend, api_key_longest_life=3600) as service:
        user = service.new_user()  # whose key, made below the wire, has no end
        ends: list[dict[str, Any]] = [{}, {"expire_time": seconds_from_now(3700)}]
        for fields in ends:
            with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
                create(user.channel, **fields)
        made = create(user.channel, expire_time=seconds_from_now(3500)).api_key
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
            update(user.channel, made.id, "expire_time")
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
            rotate(user.channel, user.key_id)
        assert update(user.channel, user.key_id, "name", name="renamed").name == "renamed"
    with serving(backend, api_key_require_expiry=True) as service:
        user = service.new_user()
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
            create(user.channel)
        create(user.channel, expire_time=seconds_from_now(10**8))
