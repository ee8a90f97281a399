"""Log-ins for one account from many addresses: guesses are bounded, and the owner's address stays open."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from morag_meta.auth.passwords import Passwords, hash_password
from morag_meta.auth.sessions import Device
from morag_meta.auth.throttle import KNOWN, Limit, Limits, Throttle
from morag_meta.auth.tokens import Tokens
from morag_meta.errors import Exhausted, Reason, Unauthenticated
from morag_meta.ids import new_id
from morag_meta.users.sessions import Session, Sessions
from tests.service import Service, User
from tests.users.conftest import PASSWORD, nobody

HOUR = dt.timedelta(hours=1)
OWNERS, STRANGERS = "192.0.2.1", [f"198.51.100.{number}" for number in range(1, 9)]
LIMITS = Limits(of_account_at_address=Limit(3, HOUR), of_account=Limit(6, HOUR), of_address=Limit(50, HOUR))


@pytest_asyncio.fixture
async def sessions(service: Service) -> AsyncIterator[Sessions]:
    """What opens sessions, with narrow bounds."""
    passwords = Passwords(4)
    throttle = Throttle(new_id().encode(), LIMITS)
    yield Sessions(service.database, passwords, Tokens(bytes(64), bytes(32)), throttle)
    passwords.close()


@pytest.fixture
def owner(service: Service) -> User:
    """Give somebody with a password."""
    return service.new_user(password_hash=hash_password(PASSWORD, 4))


async def _open(sessions: Sessions, email: str, address: str, password: str = PASSWORD) -> Session:
    return await sessions.open(email, password, Device(address), nobody())


async def _guess(sessions: Sessions, email: str, addresses: list[str] = STRANGERS) -> int:
    """Guess twice from each stranger's address; give how many guesses were looked at."""
    looked_at = 0
    for address in addresses:
        for number in range(2):
            try:
                await _open(sessions, email, address, f"wrong horse {number}")
            except (Unauthenticated, Exhausted) as refusal:
                looked_at += refusal.reason == Reason.LOGIN_FAILED
    return looked_at


async def test_guesses_from_many_addresses_are_bounded(sessions: Sessions, owner: User) -> None:
    """However many addresses guess at one account, six guesses in all are looked at; alike for nobody's."""
    assert await _guess(sessions, owner.email) == 6
    assert await _guess(sessions, f"{new_id()}@example.org") == 6


async def test_the_owner_is_not_shut_out_where_they_were_before(sessions: Sessions, owner: User) -> None:
    """While strangers guess on, the owner logs in from an address of a former log-in, errors included."""
    await _open(sessions, owner.email, OWNERS)
    await _guess(sessions, owner.email)
    with pytest.raises(Unauthenticated):
        await _open(sessions, owner.email, OWNERS, "wrong horse")
    assert (await _open(sessions, owner.email, OWNERS)).user["id"] == owner.id
    with pytest.raises(Exhausted):
        await _open(sessions, owner.email, "203.0.113.9")


async def test_the_owners_login_gives_strangers_no_more_guesses(sessions: Sessions, owner: User) -> None:
    """A success at one address takes nothing back of what failed at others."""
    await _open(sessions, owner.email, OWNERS)
    assert await _guess(sessions, owner.email) == 6
    await _open(sessions, owner.email, OWNERS)
    assert await _guess(sessions, owner.email) == 0


async def test_a_login_from_a_new_address_gives_strangers_no_more_guesses(
    sessions: Sessions, owner: User
) -> None:
    """An owner who logs in elsewhere than before takes back that one try, and not those of others."""
    assert await _guess(sessions, owner.email, STRANGERS[:2]) == 4
    await _open(sessions, owner.email, "203.0.113.9")
    assert await _guess(sessions, owner.email, STRANGERS[2:]) == 2


async def test_a_stranger_with_an_account_gains_nothing_by_it(sessions: Sessions, service: Service) -> None:
    """Logging in to one's own account takes back nothing held against another at the same address."""
    victim, stranger = (service.new_user(password_hash=hash_password(PASSWORD, 4)) for _ in "ab")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await _open(sessions, victim.email, STRANGERS[0], "wrong horse")
    await _open(sessions, stranger.email, STRANGERS[0])
    with pytest.raises(Exhausted):
        await _open(sessions, victim.email, STRANGERS[0], "wrong horse")


async def test_a_known_address_is_bounded_by_itself(sessions: Sessions, owner: User) -> None:
    """Where the owner has logged in, guesses are bounded as strictly as anywhere."""
    await _open(sessions, owner.email, OWNERS)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await _open(sessions, owner.email, OWNERS, "wrong horse")
    with pytest.raises(Exhausted) as caught:
        await _open(sessions, owner.email, OWNERS)
    assert 1100 < (caught.value.retry_after or 0) <= 1201


async def test_what_was_tried_is_swept_when_it_is_over(
    sessions: Sessions, owner: User, service: Service
) -> None:
    """A sweep leaves what is held against somebody and addresses that are known, and removes the rest."""
    await _open(sessions, owner.email, OWNERS)
    now = dt.datetime.now(dt.UTC)
    with pytest.raises(Unauthenticated):
        await _open(sessions, owner.email, STRANGERS[0], "wrong horse")
    counts = sessions._throttle.login(owner.email, OWNERS)  # noqa: SLF001
    with service.database.unit_of_work() as uow:
        uow.tries.sweep()
        row = uow.tries.find(counts[2].key)
        assert row is not None
        assert now < row["known_until"] - KNOWN + dt.timedelta(seconds=5)
        uow.tries.change(counts[2].key, now, now - dt.timedelta(seconds=1))
        assert uow.tries.sweep() >= 1
        assert uow.tries.find(counts[2].key) is None
        uow.commit()
