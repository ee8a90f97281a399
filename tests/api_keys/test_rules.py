"""What holds for API keys, without a database: scopes, ends and states."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.api_keys.rules import (
    EVERY_SCOPE,
    Grantor,
    Policy,
    check_end,
    check_name,
    check_not_revoked,
    check_scopes,
    check_within,
    state_of,
)
from morag_meta.auth.principal import Rate, Role
from morag_meta.auth.standing import columns_of
from morag_meta.errors import Forbidden, Invalid, Reason, WrongState
from morag_meta.rpc.access import known_scopes

_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_KNOWN = known_scopes()
_SCOPES = st.sampled_from(sorted(_KNOWN))
_ASKED = st.lists(_SCOPES | st.just(EVERY_SCOPE), max_size=8)
_ROLES = st.sampled_from(list(Role))
_OF_EVERYBODY = ("jobs:work:all", "api_keys:verify:all")


def _key(
    scopes: list[str], end: dt.datetime | None = None, addresses: list[str] | None = None
) -> dict[str, Any]:
    limit = columns_of(None)
    return {"scopes": scopes, "expire_time": end, "allowed_addresses": addresses, **limit}


def _check(asked: list[str], role: Role = Role.ADMIN) -> list[str]:
    return check_scopes(asked, known=_KNOWN, owner_role=role, field="api_key.scopes")


def test_service_knows_its_scopes() -> None:
    """The scopes are those that the protos name: verb by resource, and those of who works or verifies."""
    resources = ("users", "servers", "databases", "grants", "documents", "jobs", "api_keys", "quotas")
    reads, writes = ({f"{resource}:{verb}" for resource in resources} for verb in ("read", "write"))
    own = {"jobs:work": Role.VIEWER, "jobs:work:all": Role.ADMIN, "users:reset": Role.ADMIN}
    own |= {"api_keys:verify": Role.VIEWER, "api_keys:verify:all": Role.ADMIN}
    own |= {"quotas:write": Role.ADMIN, "audit:read": Role.ADMIN}
    own |= dict.fromkeys(("users:write", "grants:write"), Role.VIEWER)  # to end own sessions, and own grants
    assert dict.fromkeys(reads, Role.VIEWER) | dict.fromkeys(writes, Role.USER) | own == _KNOWN


@given(_ASKED, _ROLES)
def test_granted_scopes_are_those_asked_for_and_never_beyond_the_role(asked: list[str], role: Role) -> None:
    """What is granted is what was asked, sorted and once each, or everything; or it is refused whole."""
    if not asked or EVERY_SCOPE in asked:
        assert _check(asked, role) == [EVERY_SCOPE]
    elif all(_KNOWN[scope] <= role or scope in _OF_EVERYBODY for scope in asked):
        assert _check(asked, role) == sorted(set(asked))
    else:
        with pytest.raises(Forbidden) as caught:
            _check(asked, role)
        assert caught.value.reason == Reason.SCOPE_NOT_ALLOWED
        assert _KNOWN[caught.value.metadata["scope"]] > role


@given(_ASKED, _ASKED)
def test_no_key_grants_more_than_it_holds(held: list[str], asked: list[str]) -> None:
    """A chain of keys never widens: what a bounded key grants is contained in what it holds."""
    holder, wanted = _check(held), _check(asked)
    grantor = Grantor(Role.ADMIN, None if EVERY_SCOPE in holder else frozenset(holder))
    if EVERY_SCOPE in holder or set(wanted) <= set(holder):
        check_within(_key(wanted), grantor=grantor, path="")
    else:
        with pytest.raises(Forbidden) as caught:
            check_within(_key(wanted), grantor=grantor, path="")
        assert caught.value.metadata["scope"] in set(wanted) - set(holder)


@given(_ASKED, _ROLES)
def test_only_an_admin_grants_what_reaches_everybody(asked: list[str], role: Role) -> None:
    """A scope of everybody's rows is refused to every other role, whatever else is asked for."""
    wanted = _check(asked)
    if not set(wanted) & set(_OF_EVERYBODY) or role is Role.ADMIN:
        check_within(_key(wanted), grantor=Grantor(role), path="")
        return
    with pytest.raises(Forbidden) as caught:
        check_within(_key(wanted), grantor=Grantor(role), path="")
    assert caught.value.reason == Reason.SCOPE_NOT_ALLOWED
    assert caught.value.metadata["scope"] in _OF_EVERYBODY


@given(st.text(max_size=64).filter(lambda text: text not in _KNOWN and text != EVERY_SCOPE))
def test_unknown_scope_is_refused(scope: str) -> None:
    """A scope that no method asks for is a mistake, which the caller is told with the known ones."""
    with pytest.raises(Invalid) as caught:
        _check(["jobs:read", scope])
    assert [violation.field for violation in caught.value.violations] == ["api_key.scopes"]


@given(
    st.none() | st.integers(-100, 100).map(lambda hours: _NOW + dt.timedelta(hours=hours)),
    st.none() | st.integers(1, 100).map(lambda hours: _NOW + dt.timedelta(hours=hours)),
)
def test_key_ends_in_the_future_and_not_after_its_maker(
    end: dt.datetime | None, maker_end: dt.datetime | None
) -> None:
    """An end is allowed exactly when it lies ahead and not behind that of the key that makes it."""

    def check() -> None:
        check_end(end, now=_NOW, field="expire_time")
        check_within(_key([], end), grantor=Grantor(Role.USER, None, maker_end), path="")

    if (end is None or end > _NOW) and (maker_end is None or (end is not None and end <= maker_end)):
        check()
    else:
        with pytest.raises(Invalid) as caught:
            check()
        assert [violation.field for violation in caught.value.violations] == ["expire_time"]


@pytest.mark.parametrize(
    ("maker", "asked", "within"),
    [
        ((), None, True),
        ((), ["10.0.0.0/8"], True),
        (("10.0.0.0/8",), None, False),
        (("10.0.0.0/8",), ["10.1.0.0/16", "10.0.0.0/8"], True),
        (("10.0.0.0/8",), ["10.1.0.0/16", "11.0.0.0/8"], False),
        (("10.0.0.0/8",), ["0.0.0.0/0"], False),
        (("10.0.0.0/8",), ["unix"], False),
        (("unix", "2001:db8::/32"), ["unix", "2001:db8:1::/48"], True),
        (("::/0",), ["10.0.0.0/8"], False),
    ],
)
def test_key_is_used_from_where_its_maker_is(
    maker: tuple[str, ...], asked: list[str] | None, within: bool
) -> None:
    """A key that a bound key makes is bound to addresses within that one's."""
    with contextlib.nullcontext() if within else pytest.raises(Invalid) as caught:
        check_within(_key([], None, asked), grantor=Grantor(Role.USER, addresses=maker), path="api_key.")
    if caught is not None:
        assert [violation.field for violation in caught.value.violations] == ["api_key.allowed_addresses"]


@pytest.mark.parametrize(
    ("maker", "asked", "within"),
    [
        (None, None, True),
        (None, Rate(5, 5), True),
        (Rate(5, 10), None, False),
        (Rate(5, 10), Rate(5, 10), True),
        (Rate(5, 10), Rate(0.001, 1), True),
        (Rate(5, 10), Rate(5.001, 1), False),
        (Rate(5, 10), Rate(1, 11), False),
    ],
)
def test_key_calls_no_faster_than_its_maker(maker: Rate | None, asked: Rate | None, *, within: bool) -> None:
    """A key that a limited key makes has a limit, and none that lets through more."""
    key = _key([]) | columns_of(asked)
    with contextlib.nullcontext() if within else pytest.raises(Invalid):
        check_within(key, grantor=Grantor(Role.USER, limit=maker), path="api_key.")


def test_only_an_admin_goes_beyond_the_limit_of_the_installation() -> None:
    """Where keys are limited by default, others than an ADMIN may only give less."""
    policy = Policy(limit=Rate(10, 20))
    for own in (None, Rate(10, 20), Rate(1, 1)):
        policy.check_limit(own, Role.USER)
    for own in (Rate(11, 20), Rate(10, 21)):
        policy.check_limit(own, Role.ADMIN)
        Policy().check_limit(own, Role.USER)
        with pytest.raises(Forbidden) as caught:
            policy.check_limit(own, Role.USER)
        assert caught.value.metadata == {"required_role": "ADMIN"}


@pytest.mark.parametrize(
    ("policy", "hours", "allowed"),
    [
        (Policy(), None, True),
        (Policy(needs_end=True), None, False),
        (Policy(needs_end=True), 10**4, True),
        (Policy(longest_life=dt.timedelta(hours=5)), None, False),
        (Policy(longest_life=dt.timedelta(hours=5)), 5, True),
        (Policy(longest_life=dt.timedelta(hours=5)), 6, False),
    ],
)
def test_policy_asks_for_an_end_and_bounds_it(policy: Policy, hours: int | None, allowed: bool) -> None:
    """Where the policy says so, a key has an end, and one that is not too far off."""
    end = None if hours is None else _NOW + dt.timedelta(hours=hours)
    with contextlib.nullcontext() if allowed else pytest.raises(Invalid):
        policy.check(end, now=_NOW, field="end")


@pytest.mark.parametrize("name", ["", "x" * 256, "  ", "line\nbreak", "nul\x00"])
def test_names_are_checked_below_the_wire_too(name: str) -> None:
    """A name from the command line keeps the limits that the proto states."""
    with pytest.raises(Invalid):
        check_name(name, "name")
    assert check_name("x", "name") == "x"


@pytest.mark.parametrize(
    ("revoked", "disabled", "end", "state"),
    [
        (None, None, None, "ACTIVE"),
        (None, None, _NOW + dt.timedelta(microseconds=1), "ACTIVE"),
        (None, None, _NOW, "EXPIRED"),
        (None, _NOW, None, "DISABLED"),
        (None, _NOW, _NOW, "DISABLED"),
        (_NOW, None, None, "REVOKED"),
        (_NOW, _NOW, _NOW - dt.timedelta(days=1), "REVOKED"),
    ],
)
def test_state_is_derived(
    revoked: dt.datetime | None, disabled: dt.datetime | None, end: dt.datetime | None, state: str
) -> None:
    """Revoked before all, then disabled, then expired from the very moment of the end, otherwise active."""
    row: dict[str, Any] = {"revoke_time": revoked, "disable_time": disabled, "expire_time": end}
    assert state_of(row, _NOW) == state


def test_revoked_key_cannot_be_changed() -> None:
    """REVOKED is final."""
    check_not_revoked({"revoke_time": None})
    with pytest.raises(WrongState) as caught:
        check_not_revoked({"revoke_time": _NOW})
    assert caught.value.metadata == {"resource_type": "api_key", "state": "REVOKED"}
