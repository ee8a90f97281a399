"""Who of those who wait is told of a job: on a database, but without calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from morag_meta.db.database import Database
from morag_meta.errors import Unavailable
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.store import TOPIC
from morag_meta.rpc.places import Places
from morag_meta.rpc.streams import draining
from morag_meta.workers.openings import Openings
from morag_meta.workers.rules import Appetite
from morag_meta.workers.ticket import Ticket
from tests.service import Service, User

_SECONDS = 10.0


@pytest.fixture
async def openings(service: Service) -> AsyncIterator[Openings]:
    """Give openings of a process of its own, which hears of nobody's commits."""
    database = Database.open(service.url)
    opened = Openings(database, lambda: None, Places(1000))
    opened.start()
    running = asyncio.create_task(opened.run())
    yield opened
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    database.close()


def _taking(user: User, *kinds: str) -> Appetite:
    return Appetite(user.id, ("PENDING",), kinds)


def _make(service: Service, user: User, kind: str = "A") -> str:
    with service.database.unit_of_work() as uow:
        job = create_job(uow, user.id, kind=kind)
        uow.commit()
    return str(job["id"])


async def _told(ticket: Ticket) -> list[str]:
    """Wait, and give what the ticket was told of."""
    await ticket.wait(_SECONDS)
    return list(ticket.told)


async def test_a_hint_tells_the_longest_waiting_alone(
    service: Service, user: User, openings: Openings
) -> None:
    """One job is told to one: the first of those who take it; the second job goes to the second."""
    with (
        openings.ticket(user.id, _taking(user, "B")) as picky,
        openings.ticket(user.id, _taking(user)) as first,
        openings.ticket(user.id, None) as never,
        openings.ticket(user.id, _taking(user)) as second,
    ):
        one = _make(service, user)
        openings.hint([TOPIC + one, "something/else"])
        assert await _told(first) == [one]
        two = _make(service, user)
        openings.hint([TOPIC + one, TOPIC + two])
        assert await _told(second) == [two]
        assert not picky.told
        assert not never.told


async def test_who_leaves_untried_passes_it_on(service: Service, user: User, openings: Openings) -> None:
    """Who was told and is cancelled, while sleeping or while trying, leaves the job to the next one."""
    for trying, kind in ((False, "A"), (True, "B")):
        job = _make(service, user, kind)
        with contextlib.ExitStack() as leaving, contextlib.ExitStack() as staying:
            first = leaving.enter_context(openings.ticket(user.id, _taking(user, kind)))
            second = staying.enter_context(openings.ticket(user.id, _taking(user, kind)))
            assert await _told(first) == [job]
            if trying:
                first.set_out()
            assert not second.told
            leaving.close()
            assert list(second.told) == [job]
            second.set_out()
            second.got([job])


async def test_who_got_a_job_tells_nobody_of_it(service: Service, user: User, openings: Openings) -> None:
    """What was leased is not passed on, and what else the leaver was told of is."""
    with openings.ticket(user.id, _taking(user)) as second:
        with openings.ticket(user.id, _taking(user, "A")) as first:
            second.set_out()  # busy
            second.trying = {"x": {}}
            jobs = [_make(service, user), _make(service, user)]
            openings.hint([TOPIC + jobs[0]])
            assert await _told(first) == [jobs[0]]
            first.told[jobs[1]] = {**first.told[jobs[0]], "id": jobs[1]}
            first.set_out()
            first.got(jobs[:1])
            second.trying = {}
        assert list(second.told) == [jobs[1]]


async def test_without_any_hint_everybody_is_looked_after(
    service: Service, user: User, openings: Openings
) -> None:
    """A job that nobody told of is found by the look of each second, and told to one of its takers."""
    with (
        openings.ticket(user.id, _taking(user, "A")) as first,
        openings.ticket(user.id, _taking(user, "B")) as second,
    ):
        await asyncio.sleep(0.1)
        job = _make(service, user, "B")
        assert await _told(second) == [job]
        assert not first.told


async def test_a_lease_stirs_the_repeats_of_its_worker(user: User, openings: Openings) -> None:
    """Calls that may be the same one are told when their worker got a lease; others are not."""
    event = {"job_id": "j", "state": "PROCESSING", "previous_state": "PENDING", "worker_id": "w"}
    openings.note_event(event)
    with (
        openings.ticket(user.id, _taking(user), "w") as same,
        openings.ticket(user.id, _taking(user), "v") as other,
        openings.ticket(user.id, _taking(user)) as unnamed,
    ):
        openings.note_event({**event, "previous_state": "PROCESSING"})
        openings.note_event({**event, "worker_id": None})
        assert not same.leased
        openings.note_event(event)
        assert await same.wait(_SECONDS)
        assert not other.leased
        assert not unnamed.leased


async def test_the_end_wakes_everybody(user: User, openings: Openings) -> None:
    """At the end of the process all who wait learn it at once, and so do those who come to wait."""
    with openings.ticket(user.id, _taking(user)) as early, openings.ticket(user.id, _taking(user)) as late:
        waiting = asyncio.create_task(early.wait(600))
        await asyncio.sleep(0)
        openings.end(draining)
        for call in (waiting, late.wait(600), late.wait(0)):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(call, _SECONDS)


async def test_a_fault_of_one_look_ends_nobodys_wait(
    service: Service, user: User, openings: Openings
) -> None:
    """Where a look for all fails for a reason of our own, those who are told by a hint are told still."""
    unforeseen: Any = object()  # which no driver can send
    with (
        openings.ticket(user.id, _taking(user, unforeseen)),
        openings.ticket(user.id, _taking(user)) as ticket,
    ):
        await asyncio.sleep(1.2)
        job = _make(service, user)
        openings.hint([TOPIC + job])
        assert await _told(ticket) == [job]


async def test_a_database_that_is_away_ends_nobodys_wait(user: User, tmp_path: Path) -> None:
    """While nothing can be read those who wait go on waiting, and whoever looks for them goes on looking."""
    database = Database.open(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    openings = Openings(database, lambda: None, Places(1000))
    openings.start()
    running = asyncio.create_task(openings.run())
    with openings.ticket(user.id, _taking(user)) as ticket:
        assert not await ticket.wait(1.5)
        assert not running.done()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    database.close()
