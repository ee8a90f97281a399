"""Turns: how many wake together, in which order, and what those hold up who do not finish."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.principal import ANONYMOUS, Role
from morag_meta.rpc.access import Access
from morag_meta.rpc.stream import Stream, StreamOptions
from morag_meta.rpc.turns import AT_ONCE, PATIENCE_SECONDS, Turns

CROWD = 10 * AT_ONCE


class _Sleepers:
    """Tasks that sleep until their turn, and what was seen of them."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.woken: list[int] = []
        self.awake = 0
        self.most_awake = 0

    async def sleep(self, number: int, passes: int = 1, *, finishes: bool = True) -> None:
        """Ask for a turn, keep it for some passes of the event loop, and leave it, or never do."""
        sleeper = asyncio.get_running_loop().create_future()
        self.turns.ask(sleeper)
        await sleeper
        turn = self.turns.round
        self.woken.append(number)
        self.awake += 1
        self.most_awake = max(self.most_awake, self.awake)
        for _ in range(passes):
            await asyncio.sleep(0)
        self.awake -= 1
        if finishes:
            self.turns.end(turn)


def test_a_crowd_wakes_a_few_at_a_time_and_in_its_order() -> None:
    """All of a crowd have their turn, in the order of asking, and never more than so many together."""

    async def wake() -> _Sleepers:
        sleepers = _Sleepers(Turns(patience=30.0))
        await asyncio.wait_for(asyncio.gather(*map(sleepers.sleep, range(CROWD))), 20)
        return sleepers

    sleepers = asyncio.run(wake())
    assert sleepers.woken == list(range(CROWD))
    assert sleepers.most_awake == AT_ONCE


def test_other_work_runs_between_the_turns_of_a_crowd() -> None:
    """Work that needs as many passes of the event loop as a call does is done before a crowd is through."""

    async def wake() -> int:
        sleepers = _Sleepers(Turns(patience=30.0))
        crowd = asyncio.gather(*map(sleepers.sleep, range(CROWD)))
        for _ in range(6):
            await asyncio.sleep(0)
        through = len(sleepers.woken)
        await crowd
        return through

    assert asyncio.run(wake()) <= 3 * AT_ONCE


def test_whoever_does_not_finish_holds_the_others_up_for_a_moment_only() -> None:
    """Those who keep their turns are given up, a round at a time; the rest still has its turn."""

    async def wake() -> tuple[_Sleepers, float]:
        sleepers = _Sleepers(Turns())
        stuck = [sleepers.sleep(number, finishes=False) for number in range(3 * AT_ONCE)]
        rest = [sleepers.sleep(number) for number in range(len(stuck), CROWD)]
        started = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*stuck, *rest), 20)
        return sleepers, time.monotonic() - started

    sleepers, seconds = asyncio.run(wake())
    assert sleepers.woken == list(range(CROWD))
    assert seconds >= 3 * PATIENCE_SECONDS * 0.9


def test_a_turn_that_was_given_up_is_not_ended_in_a_later_round() -> None:
    """Whoever comes back late makes no room beyond the limit for the turns that are given now."""

    async def wake() -> int:
        turns = Turns(at_once=1, patience=30.0)
        loop = asyncio.get_running_loop()
        sleepers = [loop.create_future() for _ in range(3)]
        for sleeper in sleepers:
            turns.ask(sleeper)
        await sleepers[0]
        late = turns.round
        turns._give_up()  # noqa: SLF001 - as it does itself when the time is over, but now and once
        await sleepers[1]
        turns.end(late)
        await asyncio.sleep(0)
        return sum(sleeper.done() for sleeper in sleepers)

    assert asyncio.run(wake()) == 2


def test_a_sleeper_who_left_takes_no_turn() -> None:
    """Who was cancelled before the turn came is passed over, and keeps nobody from waking."""

    async def wake() -> list[int]:
        sleepers = _Sleepers(Turns(at_once=2, patience=30.0))
        tasks = [asyncio.create_task(sleepers.sleep(number)) for number in range(8)]
        await asyncio.sleep(0)
        for task in tasks[:6]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        return sleepers.woken

    assert asyncio.run(wake())[-2:] == [6, 7]


def test_a_stream_that_is_cancelled_when_its_turn_comes_gives_it_back() -> None:
    """Who leaves between being woken and waking leaves the turn to others, and not to their patience."""

    async def wake() -> None:
        turns = Turns(at_once=1, patience=30.0)
        access = Access(public=True, minimum_role=Role.VIEWER, scopes=())
        stream = Stream(None, StreamOptions(), turns, ANONYMOUS, access, "")
        task = asyncio.create_task(stream.wait())
        await asyncio.sleep(0)
        stream.wake()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        stream.end_turn()
        other = asyncio.get_running_loop().create_future()
        turns.ask(other)
        await asyncio.wait_for(other, 5)

    asyncio.run(wake())


@given(
    at_once=st.integers(1, 5),
    crowd=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40),
    again=st.integers(0, 10),
)
def test_everybody_has_one_turn_for_each_asking(
    at_once: int, crowd: list[tuple[int, bool]], again: int
) -> None:
    """However long turns last, whether they are left or kept, and when more ask: nobody is forgotten."""

    async def wake() -> list[int]:
        sleepers = _Sleepers(Turns(at_once, patience=0.0005))
        first = [sleepers.sleep(n, passes, finishes=ends) for n, (passes, ends) in enumerate(crowd)]
        tasks = [asyncio.create_task(sleep) for sleep in first]
        for number in range(again):
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(sleepers.sleep(len(crowd) + number)))
        if tasks:
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
        return sleepers.woken

    woken = asyncio.run(wake())
    assert sorted(woken) == list(range(len(crowd) + again))
