"""API keys that do not exist: how often an address may have the database asked for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from morag_meta.auth.keys import new_key
from morag_meta.auth.principal import Rate
from morag_meta.errors import Exhausted, Reason, Unauthenticated
from tests.auth.conftest import Process

HERE, NEAR, ELSEWHERE = "ipv6:[2001:db8::1]:5", "ipv6:[2001:db8::2]:6", "ipv4:192.0.2.7:5"
BURST = 5


@pytest.fixture
def guarded(shared_url: str) -> Iterator[Process]:
    """Open the same database as a process that lets an address try five made-up keys, and then wait long."""
    opened = Process(shared_url, strangers=Rate(0.001, BURST), cache_size=20)
    yield opened
    opened.database.close()


async def _try(process: Process, key: str, peer: str) -> str:
    try:
        await process.authenticator.authenticate({"x-api-key": key}, peer)
    except (Unauthenticated, Exhausted) as error:
        return str(error.reason)
    return "OK"


async def test_an_address_asks_for_so_many_made_up_keys(guarded: Process) -> None:
    """Beyond its burst an address is RATE_LIMITED without a statement; its whole network is, and no other."""
    with guarded.counted() as statements:
        told = [await _try(guarded, new_key(), HERE) for _ in range(BURST + 20)]
        assert len(statements) == BURST
    assert told == [Reason.CREDENTIAL_INVALID] * BURST + [Reason.RATE_LIMITED] * 20
    assert await _try(guarded, new_key(), NEAR) == Reason.RATE_LIMITED
    assert await _try(guarded, new_key(), ELSEWHERE) == Reason.CREDENTIAL_INVALID


async def test_who_waits_may_try_again(guarded: Process) -> None:
    """The refusal says how long to wait."""
    for _ in range(BURST):
        await _try(guarded, new_key(), HERE)
    with pytest.raises(Exhausted) as caught:
        await guarded.authenticator.authenticate({"x-api-key": new_key()}, HERE)
    assert 900 < (caught.value.retry_after or 0) <= 1000


async def test_keys_that_exist_cost_nothing(process: Process, guarded: Process) -> None:
    """Any number of real keys comes from an address; one that came before goes on where made-up ones came."""
    user = process.add_user()
    keys = [process.add_key(user)[1] for _ in range(BURST * 2)]
    assert [await _try(guarded, key, HERE) for key in keys] == ["OK"] * len(keys)
    for _ in range(BURST):
        assert await _try(guarded, new_key(), HERE) == Reason.CREDENTIAL_INVALID
    assert [await _try(guarded, key, HERE) for key in keys] == ["OK"] * len(keys)
    with process.database.unit_of_work() as uow:  # whoever is known must be looked up again
        uow.epoch.lock()
        uow.epoch.bump()
        uow.commit()
    await guarded.epochs.refresh()
    assert await _try(guarded, keys[0], HERE) == "OK"


async def test_what_is_remembered_of_made_up_keys_is_bounded(guarded: Process) -> None:
    """A flood of made-up keys from many addresses fills a bounded room, and drives no known key out."""
    for number in range(100):
        await _try(guarded, new_key(), f"ipv4:192.0.2.{number}:1")
    assert len(guarded.authenticator._refusals._entries) == 20  # noqa: SLF001 - how much is kept shows nowhere
    assert len(guarded.authenticator._principals._entries) == 0  # noqa: SLF001


async def test_one_key_tried_again_and_again_counts_once_in_a_while(guarded: Process) -> None:
    """A key that was deleted and is still sent is remembered as unknown, and each try is no new question."""
    key = new_key()
    assert {await _try(guarded, key, HERE) for _ in range(BURST * 4)} == {Reason.CREDENTIAL_INVALID}
    assert await _try(guarded, new_key(), HERE) == Reason.CREDENTIAL_INVALID
