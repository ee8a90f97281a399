"""Who calls: which credentials are accepted, what is remembered of them, and what makes it forgotten."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import pytest

from morag_meta.api_keys.actions import lock_key, revoke
from morag_meta.auth.keys import new_key
from morag_meta.auth.principal import Principal, Role
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import Reason, Unauthenticated, Unavailable
from morag_meta.users import actions
from tests.auth.conftest import TOKENS, Process, eventually


async def _refused(process: Process, **metadata: str) -> Reason:
    sent = {name.replace("_", "-"): value for name, value in metadata.items()}
    with pytest.raises(Unauthenticated) as caught:
        await process.authenticator.authenticate(sent)
    return caught.value.reason


def _deactivate(process: Process, user_id: str, *, active: bool = False) -> None:
    with process.database.unit_of_work() as uow:
        row = actions.lock_standing(uow, EVERYONE, user_id)
        if active:
            actions.reactivate(uow, row)
        else:
            actions.deactivate(uow, row)
        uow.commit()


async def test_key_proves_its_owner(process: Process) -> None:
    """A key gives its owner, the owner's role, the key's id and scopes, by either header."""
    user = process.add_user(Role.ADMIN)
    end = dt.datetime.now(dt.UTC).replace(microsecond=5) + dt.timedelta(hours=1)
    key_id, key = process.add_key(user, scopes=["jobs:read", "users:read"], expire_time=end)
    expected = Principal(user, Role.ADMIN, frozenset({"jobs:read", "users:read"}), key_id, "", end)
    authenticate = process.authenticator.authenticate
    assert await authenticate({"x-api-key": key}) == expected
    assert await authenticate({"authorization": f"Bearer {key}"}) == expected
    assert await authenticate({"authorization": f"bearer  {key} "}) == expected


async def test_key_without_scopes_holds_every_scope(process: Process) -> None:
    """A key that was made without scopes is not bounded by any, today's or tomorrow's."""
    _, key = process.add_key(process.add_user())
    assert (await process.caller(key)).scopes is None


async def test_access_token_proves_its_session(process: Process) -> None:
    """An access token gives its user with the role of the row, its session and the token's own end."""
    user = process.add_user(Role.VIEWER)
    session, token = process.add_session(user)
    principal = await process.authenticator.authenticate({"authorization": f"Bearer {token}"})
    assert (principal.user_id, principal.role, principal.session_id) == (user, Role.VIEWER, session)
    assert (principal.key_id, principal.scopes) == ("", None)
    assert principal.expire_time == TOKENS.verify(token).expire_time
    assert await process.authenticator.authenticate({"x-api-key": token}) == principal


async def test_no_credential_is_told_apart_from_a_wrong_one(process: Process) -> None:
    """Nothing sent is CREDENTIAL_MISSING; whatever else proves nobody is CREDENTIAL_INVALID."""
    assert await _refused(process) == Reason.CREDENTIAL_MISSING
    assert await _refused(process, x_api_key="") == Reason.CREDENTIAL_MISSING
    for wrong in (new_key(), "morag_short", "garbage", "a.b.c", "ä" * 50, "x" * 5000):
        assert await _refused(process, x_api_key=wrong) == Reason.CREDENTIAL_INVALID
        assert await _refused(process, authorization=f"Bearer {wrong}") == Reason.CREDENTIAL_INVALID
    assert await _refused(process, authorization="Basic dXNlcjpwYXNz") == Reason.CREDENTIAL_INVALID
    assert await _refused(process, authorization="Bearer") == Reason.CREDENTIAL_INVALID


async def test_what_has_no_credentials_form_reaches_no_database(process: Process) -> None:
    """Garbage and forged tokens are refused without a statement."""
    with process.counted() as statements:
        await _refused(process, x_api_key="garbage")
        await _refused(process, x_api_key="a.b.c")
    assert statements == []


async def test_known_key_costs_one_statement_once(process: Process) -> None:
    """The first use of a key is one statement; the next thousand are none, and nothing is written."""
    _, key = process.add_key(process.add_user())
    with process.counted() as statements:
        await process.caller(key)
    assert len(statements) == 1
    assert statements[0].startswith("SELECT")
    with process.counted() as statements:
        for _ in range(1000):
            await process.caller(key)
    assert statements == []


async def test_unknown_key_is_remembered_as_such_for_a_while(process: Process) -> None:
    """A key that does not exist is looked up once in a while, not at each try."""
    key = new_key()
    with process.counted() as statements:
        for _ in range(20):
            await _refused(process, x_api_key=key)
    assert len(statements) == 1


async def test_revoked_key_is_refused_at_once_where_it_was_revoked(process: Process) -> None:
    """In the process that revokes it a cached key is refused from the commit on, with no watch running."""
    key_id, key = process.add_key(process.add_user())
    await process.caller(key)
    process.revoke(key_id)
    with process.counted() as statements:
        for _ in range(5):
            assert await _refused(process, x_api_key=key) == Reason.CREDENTIAL_INVALID
    assert len(statements) == 1


async def test_revoked_key_is_refused_elsewhere_within_five_seconds(process: Process, other: Process) -> None:
    """Another process that has the key cached, and whose watch runs, refuses it within 5 seconds."""
    key_id, key = process.add_key(process.add_user())
    stop = asyncio.Event()
    watch = asyncio.create_task(other.epochs.run(stop))
    await other.caller(key)
    process.revoke(key_id)
    deadline = time.monotonic() + 5 + 2  # of which the latter are a busy machine's
    while time.monotonic() < deadline:
        try:
            await other.caller(key)
        except Unauthenticated:
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the key was still accepted after 5 seconds and more")
    stop.set()
    await watch


async def test_rolled_back_revoke_forgets_nothing(process: Process) -> None:
    """A revoke that is not committed leaves the key, and the cache, as they were."""
    key_id, key = process.add_key(process.add_user())
    await process.caller(key)
    with process.database.unit_of_work() as uow:
        revoke(uow, lock_key(uow, EVERYONE, key_id))
    with process.counted() as statements:
        await process.caller(key)
    assert statements == []


async def test_reading_beside_a_revoke_is_not_kept(process: Process) -> None:
    """A key that is read while its revoke is under way is refused once the revoke is committed."""
    key_id, key = process.add_key(process.add_user())
    with process.database.unit_of_work() as uow:
        revoke(uow, lock_key(uow, EVERYONE, key_id))
        await asyncio.wait_for(process.caller(key), 5)
        uow.commit()
    assert await _refused(process, x_api_key=key) == Reason.CREDENTIAL_INVALID


async def test_role_change_holds_for_a_cached_key(process: Process) -> None:
    """A key does what its owner's role allows now, not what it allowed when the key was cached."""
    user = process.add_user(Role.USER)
    _, key = process.add_key(user)
    assert (await process.caller(key)).role is Role.USER
    with process.database.unit_of_work() as uow:
        actions.set_role(uow, actions.lock_standing(uow, EVERYONE, user), Role.VIEWER)
        uow.commit()
    assert (await process.caller(key)).role is Role.VIEWER


async def test_deactivated_user_is_refused_and_let_in_again(process: Process) -> None:
    """Deactivation refuses keys and sessions at once; reactivation lets keys in at once, sessions never."""
    user = process.add_user()
    _, key = process.add_key(user)
    _, token = process.add_session(user)
    await process.caller(key)
    await process.caller(token)
    _deactivate(process, user)
    assert await _refused(process, x_api_key=key) == Reason.CREDENTIAL_INVALID
    assert await _refused(process, x_api_key=token) == Reason.CREDENTIAL_INVALID
    _deactivate(process, user, active=True)
    assert (await process.caller(key)).user_id == user
    assert await _refused(process, x_api_key=token) == Reason.CREDENTIAL_INVALID


async def test_expiry_is_looked_at_with_each_use(process: Process) -> None:
    """A cached key and a cached access token end when their time comes, with no epoch raised for it."""
    user = process.add_user()
    _, key = process.add_key(user, expire_time=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=3))
    _, token = process.add_session(user, life=4)
    await process.caller(key)
    await process.caller(token)
    await asyncio.sleep(4)
    assert await _refused(process, x_api_key=key) == Reason.CREDENTIAL_INVALID
    assert await _refused(process, x_api_key=token) == Reason.CREDENTIAL_INVALID


async def test_session_that_ended_in_the_table_refuses_a_valid_token(process: Process) -> None:
    """A token whose signature and end are good is refused when its session's own time is over."""
    user = process.add_user()
    session, token = process.add_session(user)
    process.execute(f"UPDATE sessions SET expire_time = '2020-01-01 00:00:00.000000' WHERE id = '{session}'")
    assert await _refused(process, x_api_key=token) == Reason.CREDENTIAL_INVALID


async def test_cache_keeps_what_was_used_last(process: Process, shared_url: str) -> None:
    """At most so many principals are remembered; the one used longest ago goes, never for a refusal."""
    small = Process(shared_url, cache_size=2)
    user = process.add_user()
    first, second, third = (process.add_key(user)[1] for _ in range(3))
    for key in (first, second, first, third):
        await small.caller(key)
    for _ in range(5):
        await _refused(small, x_api_key=new_key())
    with small.counted() as statements:
        await small.caller(first)
        await small.caller(third)
        assert statements == []
        await small.caller(second)
    assert len(statements) == 1
    small.database.close()


async def test_unreadable_epoch_ends_what_is_remembered(process: Process, shared_url: str) -> None:
    """While the epoch cannot be read a cached key is believed for a while, then UNAVAILABLE, then again."""
    watching = Process(shared_url, trust=3.0)
    _, key = process.add_key(process.add_user())
    stop = asyncio.Event()
    watch = asyncio.create_task(watching.epochs.run(stop))
    await asyncio.sleep(0.2)
    await watching.caller(key)
    watching.away = True
    await watching.caller(key)
    await asyncio.sleep(3.5)
    with pytest.raises(Unavailable):
        await watching.caller(key)
    watching.away = False
    await eventually(lambda: watching.epochs.counts(watching.epochs.newest))
    assert (await watching.caller(key)).key_id
    stop.set()
    await watch
    watching.database.close()


async def test_database_that_was_never_migrated_is_unavailable(lonely: Process) -> None:
    """Without the epoch's row nobody is let in, and nobody is told that the key is wrong."""
    _, key = lonely.add_key(lonely.add_user())
    lonely.execute("DELETE FROM auth_epoch")
    with pytest.raises(Unavailable):
        await lonely.caller(key)


async def test_restored_database_does_not_stop_the_cache(lonely: Process) -> None:
    """When the epoch goes back, as after a restore, keys are read again once and remembered as before."""
    user = lonely.add_user()
    key_id, key = lonely.add_key(user)
    for _ in range(3):
        lonely.revoke(lonely.add_key(user)[0])
    await lonely.caller(key)
    lonely.execute("UPDATE auth_epoch SET epoch = 1")
    await lonely.epochs.refresh()
    await lonely.caller(key)
    with lonely.counted() as statements:
        await lonely.caller(key)
    assert statements == []
    lonely.revoke(key_id)
    assert await _refused(lonely, x_api_key=key) == Reason.CREDENTIAL_INVALID
