"""What a caller of long ago is now: read again after a change, many at once, and refused when it ended."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from morag_meta.auth.principal import Role
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import Unauthenticated
from morag_meta.users import actions
from tests.auth.conftest import TOKENS, Process


async def test_recheck_gives_the_present_standing(process: Process) -> None:
    """A principal of an open call is read again after a change, once, and then known."""
    user = process.add_user()
    _, key = process.add_key(user)
    _, token = process.add_session(user)
    by_key, by_token = await process.caller(key), await process.caller(token)
    for principal in (by_key, by_token):
        assert (await process.authenticator.recheck(principal)).role is Role.USER
    with process.counted() as statements:
        await process.authenticator.recheck(by_key)
        await process.authenticator.recheck(by_token)
    assert statements == []
    with process.database.unit_of_work() as uow:
        actions.set_role(uow, actions.lock_standing(uow, EVERYONE, user), Role.VIEWER)
        uow.commit()
    assert (await process.authenticator.recheck(by_key)).role is Role.VIEWER
    with pytest.raises(Unauthenticated):
        await process.authenticator.recheck(by_token)


async def test_many_are_read_ahead_at_once(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change all who are asked after are read in one unit of work, and rechecked without another."""
    key_ids, keys = zip(*(process.add_key(process.add_user()) for _ in range(20)), strict=True)
    _, token = process.add_session(process.add_user())
    callers = [await process.caller(credential) for credential in (*keys, token)]
    process.revoke(key_ids[7])
    reads = 0
    read = process.database.read

    async def counted(*given: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*given, **more)

    monkeypatch.setattr(process.database, "read", counted)
    await process.epochs.refresh()
    reads = 0
    await process.authenticator.read_ahead(callers)
    for number, caller in enumerate(callers):
        if number == 7:
            with pytest.raises(Unauthenticated):
                await process.authenticator.recheck(caller)
        else:
            assert (await process.authenticator.recheck(caller)).user_id == caller.user_id
    await process.authenticator.read_ahead(callers)
    assert reads == 1


async def test_recheck_refuses_what_ended(process: Process) -> None:
    """An open call loses its standing when its key is revoked or its access token's time is over."""
    user = process.add_user()
    key_id, key = process.add_key(user)
    session, _ = process.add_session(user)
    now = dt.datetime.now(dt.UTC)
    token, _ = TOKENS.issue(user, session, Role.USER, now=now, session_end=now + dt.timedelta(seconds=4))
    by_key, by_token = await process.caller(key), await process.caller(token)
    process.revoke(key_id)
    with pytest.raises(Unauthenticated):
        await process.authenticator.recheck(by_key)
    await asyncio.sleep(4)
    with pytest.raises(Unauthenticated):
        await process.authenticator.recheck(by_token)
