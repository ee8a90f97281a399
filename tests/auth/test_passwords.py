"""Passwords: their limits, their comparison, and threads of their own with a bounded queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import bcrypt
import pytest

from morag_meta.auth.passwords import COST, Passwords, check_password, hash_password
from morag_meta.errors import Invalid, Reason, Unavailable


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """Passwords with the least cost, one thread, and two that may wait."""
    made = Passwords(4, threads=1, waiting=2)
    yield made
    made.close()


async def test_only_the_right_password_matches(passwords: Passwords) -> None:
    """A password matches its own hash, and no other password does."""
    known = await passwords.hash("correct horse")
    assert known.startswith("$2b$04$")
    assert await passwords.matches("correct horse", known)
    assert not await passwords.matches("correct hors", known)
    assert not await passwords.matches("Correct horse", known)


async def test_nobody_matches_where_there_is_no_hash(passwords: Passwords) -> None:
    """Without a hash nothing matches, the empty text included."""
    assert not await passwords.matches("anything", None)
    assert not await passwords.matches("", None)


async def test_unknown_user_takes_as_long_as_a_known_one() -> None:
    """A comparison without a hash does the same bcrypt work: the best times of both are alike."""
    passwords = Passwords(8, threads=1)
    known = await passwords.hash("correct horse")
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(9):
        for has_hash, times in taken.items():
            started = time.perf_counter()
            await passwords.matches("wrong", known if has_hash else None)
            times.append(time.perf_counter() - started)
    passwords.close()
    assert 0.5 < min(taken[True]) / min(taken[False]) < 2


async def test_every_comparison_takes_the_work_of_the_dearest_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a hash is of today's cost, a lower or a higher one, or there is none: the work is the same."""
    cheap, present, dear = (hash_password("correct horse", cost) for cost in (4, 6, 7))
    work = 0

    def count(password: bytes, known: bytes) -> bool:
        nonlocal work
        work += 2 ** int(known.split(b"$")[2])
        return bcrypt.hashpw(password, known) == known

    monkeypatch.setattr("morag_meta.auth.passwords.bcrypt.checkpw", count)
    passwords = Passwords(6, threads=1)

    async def work_of(known: str | None) -> int:
        nonlocal work
        work = 0
        for password in ("wrong", "correct horse"):
            assert await passwords.matches(password, known) is (password != "wrong" and known is not None)
        return work // 2

    assert {await work_of(known) for known in (cheap, None, present)} == {2**6}
    await work_of(dear)
    assert {await work_of(known) for known in (cheap, None, present, dear)} == {2**7}
    passwords.close()


def test_default_cost_is_twelve() -> None:
    """A hash says the cost of 2^12 unless told otherwise."""
    assert COST == 12
    assert hash_password("correct horse").startswith("$2b$12$")


@pytest.mark.parametrize("password", ["x" * 72, "ä" * 36, "passw0rd", "🔑🔑🔑🔑🔑🔑🔑🔑"])
def test_up_to_72_bytes_are_accepted(password: str) -> None:
    """Eight characters to 72 bytes of UTF-8 are a password, and all of its bytes count."""
    check_password(password, new=True)
    known = hash_password(password, 4)
    assert bcrypt.checkpw(password.encode(), known.encode())
    assert not bcrypt.checkpw(password.encode()[:-1], known.encode())


@pytest.mark.parametrize(
    "password", ["", "seven77", "x" * 73, "ä" * 37, "with\x00nul-inside", "\ud800aaaaaaa"]
)
def test_other_passwords_are_refused_by_name_only(password: str) -> None:
    """What is too short, longer than bcrypt reads, or no text is refused without being repeated."""
    with pytest.raises(Invalid) as caught:
        check_password(password, "new_password", new=True)
    assert [violation.field for violation in caught.value.violations] == ["new_password"]
    assert not password or password not in str(caught.value)


async def test_more_than_the_queue_takes_is_told_to_come_back(passwords: Passwords) -> None:
    """Beyond the threads and the bounded queue a caller gets SERVER_BUSY with a delay; others finish."""
    slow = Passwords(10, threads=1, waiting=2)
    results = await asyncio.gather(*(slow.hash("correct horse") for _ in range(6)), return_exceptions=True)
    busy = [result for result in results if isinstance(result, Unavailable)]
    assert len(busy) == 3
    assert all(error.reason == Reason.SERVER_BUSY and error.retry_after for error in busy)
    assert sum(isinstance(result, str) for result in results) == 3
    assert isinstance(await slow.hash("correct horse"), str)
    slow.close()


async def test_who_leaves_the_queue_makes_room() -> None:
    """A caller that gives up while it waits frees its place, and its work is never done."""
    slow = Passwords(10, threads=1, waiting=1)
    running = asyncio.create_task(slow.hash("correct horse"))
    waiting = asyncio.create_task(slow.hash("correct horse"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert isinstance(await slow.hash("correct horse"), str)
    await running
    slow.close()


async def test_hashing_leaves_the_loop_free() -> None:
    """While passwords are hashed the event loop goes on: it turns many times within one hash."""
    passwords = Passwords(12, threads=1)
    work = asyncio.create_task(passwords.hash("correct horse"))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1
    passwords.close()
    assert turns > 10
