"""The use of keys: counted without a statement, written in batches, kept when it cannot be written."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
from typing import Any

from morag_meta.auth.usage import KeyUsage
from morag_meta.db.statements import EVERYONE
from tests.auth.conftest import Process, eventually


def _row(process: Process, key_id: str) -> Any:
    with process.database.unit_of_work() as uow:
        return dict(uow.api_keys.get(EVERYONE, key_id))


async def test_uses_are_counted_and_written_together(process: Process) -> None:
    """Accepted calls are counted per key, and one flush writes the sums and the last times."""
    user = process.add_user()
    keys = [process.add_key(user) for _ in range(3)]
    started = dt.datetime.now(dt.UTC)
    for number, (_, key) in enumerate(keys):
        for _ in range(number):
            await process.authenticator.authenticate({"x-api-key": key})
    with process.counted() as statements:
        await process.usage.flush()
    assert sum(statement.startswith("BEGIN") for statement in statements) == 1
    for number, (key_id, _) in enumerate(keys):
        row = _row(process, key_id)
        assert row["use_count"] == number
        assert (row["last_used_time"] is not None) == (number > 0)
        assert row["last_used_time"] is None or row["last_used_time"] >= started
        assert row["revision"] == 1


async def test_nothing_used_writes_nothing(process: Process) -> None:
    """A flush without uses sends no statement."""
    with process.counted() as statements:
        await process.usage.flush()
    assert statements == []


async def test_last_use_never_goes_back(process: Process) -> None:
    """A batch of an older use adds to the count and leaves the later time."""
    key_id, _ = process.add_key(process.add_user())
    now = time.time()
    for used in (now, now - 100):
        process.usage.note(key_id, used)
        await process.usage.flush()
    row = _row(process, key_id)
    assert row["use_count"] == 2
    assert abs(row["last_used_time"].timestamp() - now) < 0.001


async def test_failed_write_is_kept_and_repeated(lonely: Process) -> None:
    """What could not be written is added to what was counted meanwhile, and written later."""
    key_id, _ = lonely.add_key(lonely.add_user())
    now = time.time()
    lonely.usage.note(key_id, now)
    lonely.execute("ALTER TABLE api_keys RENAME TO lost")
    await lonely.usage.flush()
    lonely.execute("ALTER TABLE lost RENAME TO api_keys")
    lonely.usage.note(key_id, now - 50)
    await lonely.usage.flush()
    row = _row(lonely, key_id)
    assert row["use_count"] == 2
    assert abs(row["last_used_time"].timestamp() - now) < 0.001


async def test_failed_write_stays_within_the_bound(lonely: Process) -> None:
    """When more keys were used meanwhile than fit beside the kept ones, the bound holds."""
    usage = KeyUsage(lonely.database, most_keys=2)
    ids = sorted(lonely.add_key(lonely.add_user())[0] for _ in range(3))
    for key_id in ids[:2]:
        usage.note(key_id, time.time())
    lonely.away = True
    flush = asyncio.create_task(usage.flush())
    await asyncio.sleep(0)  # the batch is on its way
    usage.note(ids[2], time.time())
    await flush
    lonely.away = False
    await usage.flush()
    assert [_row(lonely, key_id)["use_count"] for key_id in ids] == [1, 0, 1]


async def test_deleted_key_does_not_stop_the_others(process: Process) -> None:
    """The use of a key that is gone by now is dropped, and the others' is written."""
    key_id, _ = process.add_key(process.add_user())
    process.usage.note("00000000-0000-7000-8000-000000000000", time.time())
    process.usage.note(key_id, time.time())
    await process.usage.flush()
    assert _row(process, key_id)["use_count"] == 1


async def test_what_is_counted_is_bounded(process: Process) -> None:
    """While nothing can be written no more keys are counted than the bound, and counted ones go on."""
    usage = KeyUsage(process.database, most_keys=2)
    ids = [process.add_key(process.add_user())[0] for _ in range(3)]
    for key_id in (*ids, ids[0]):
        usage.note(key_id, time.time())
    await usage.flush()
    assert [_row(process, key_id)["use_count"] for key_id in ids] == [2, 1, 0]


async def test_run_writes_at_intervals_and_at_the_end(process: Process) -> None:
    """The background task writes every interval, and once more when it is told to stop."""
    usage = KeyUsage(process.database, interval=0.05)
    key_id, _ = process.add_key(process.add_user())
    stop = asyncio.Event()
    task = asyncio.create_task(usage.run(stop))
    usage.note(key_id, time.time())
    await eventually(lambda: _row(process, key_id)["use_count"] == 1)
    usage.note(key_id, time.time())
    stop.set()
    await asyncio.wait_for(task, 5)
    assert _row(process, key_id)["use_count"] == 2


async def test_many_keys_are_written_in_batches(process: Process) -> None:
    """More keys than one batch takes are all written, in more than one transaction."""
    user = process.add_user()
    ids = [process.add_key(user)[0] for _ in range(3)]
    for number in range(1100):
        process.usage.note(f"{number:08d}-0000-7000-8000-000000000000", time.time())
    for key_id in ids:
        process.usage.note(key_id, time.time())
    with process.counted() as statements:
        await process.usage.flush()
    assert sum(statement.startswith("BEGIN") for statement in statements) == 3
    assert all(_row(process, key_id)["use_count"] == 1 for key_id in ids)


async def test_a_batch_is_bounded_by_what_its_keys_did(process: Process) -> None:
    """Keys that called many methods are written a few at a time, and so not locked for long."""
    for key, method in itertools.product(range(40), range(40)):
        process.usage.note_call(f"key {key}", f"Service.Method{method}", time.time(), 0.1, failed=False)
    with process.counted() as statements:
        await process.usage.flush()
    assert sum(statement.startswith("BEGIN") for statement in statements) == 4
