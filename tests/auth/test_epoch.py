"""The epoch: raised in a transaction, told after its commit, and believed for a bounded time."""

from __future__ import annotations

import asyncio
import time

import pytest

from morag_meta.auth.epoch import EpochWatch
from tests.auth.conftest import Process, eventually


async def test_bump_is_told_to_the_process_after_commit(process: Process) -> None:
    """The watch of a process knows of a raised epoch when the commit returns, and not before."""
    await process.epochs.refresh()
    before = process.epochs.newest
    with process.database.unit_of_work() as uow:
        assert uow.epoch.bump() == before + 1
        assert process.epochs.newest == before
        uow.commit()
    assert process.epochs.newest == before + 1


async def test_bump_that_is_rolled_back_is_not_told(process: Process) -> None:
    """An epoch that was not kept is not heard of."""
    await process.epochs.refresh()
    before = process.epochs.newest
    with process.database.unit_of_work() as uow:
        uow.epoch.bump()
    assert process.epochs.newest == before
    await process.epochs.refresh()
    assert process.epochs.newest == before


async def test_watch_hears_of_other_processes(process: Process, other: Process) -> None:
    """The watch of another process reads the raised epoch within its interval."""
    stop = asyncio.Event()
    watch = asyncio.create_task(other.epochs.run(stop))
    with process.database.unit_of_work() as uow:
        raised = uow.epoch.bump()
        uow.commit()
    await eventually(lambda: other.epochs.newest == raised)
    stop.set()
    await asyncio.wait_for(watch, 5)


async def test_watch_survives_what_nobody_foresaw(lonely: Process) -> None:
    """A failure that is no outage, such as a missing table, does not end the watch."""
    stop = asyncio.Event()
    watch = asyncio.create_task(lonely.epochs.run(stop))
    await eventually(lambda: lonely.epochs.counts(lonely.epochs.newest))
    lonely.execute("ALTER TABLE auth_epoch RENAME TO lost")
    await asyncio.sleep(0.3)
    lonely.execute("ALTER TABLE lost RENAME TO auth_epoch")
    lonely.execute("UPDATE auth_epoch SET epoch = 77")
    await eventually(lambda: lonely.epochs.newest == 77)
    stop.set()
    await watch


def test_nothing_counts_before_the_first_reading(process: Process) -> None:
    """A watch that has read nothing trusts nothing, and trusts what it read for its time only."""
    epochs = process.epochs
    assert not epochs.counts(epochs.newest)
    epochs.note(7, time.monotonic())
    assert epochs.counts(7)
    assert not epochs.counts(6)
    epochs.note(8, time.monotonic())
    assert epochs.counts(8)
    assert not epochs.counts(7)


def test_trust_runs_out(process: Process) -> None:
    """What was read is believed for five seconds from when its reading began, unless a test says less."""
    assert EpochWatch(process.database)._trust == 5.0  # noqa: SLF001 - the promise is this number
    for began, counts in ((20, True), (31, False)):
        epochs = EpochWatch(process.database, trust=30)
        epochs.note(7, time.monotonic() - began)
        assert epochs.counts(7) is counts


@pytest.mark.parametrize("late", [True, False])
def test_lower_epoch_counts_only_when_read_later(process: Process, late: bool) -> None:
    """A lower number from an older reading changes nothing; from a newer one it is a restored database."""
    began = time.monotonic()
    process.epochs.note(9, began)
    process.epochs.note(4, began if late else time.monotonic())
    assert process.epochs.newest == (9 if late else 4)
