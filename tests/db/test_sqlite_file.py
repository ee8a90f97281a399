"""A SQLite file that is locked, read-only, missing or full: told clearly, and served again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from morag_meta.db import engine, migrate
from morag_meta.db.database import Database
from morag_meta.errors import Unavailable
from tests.db.accounts import add, exists, made, new_email, rename

_ROOT = Path(__file__).parents[2]
_IMMEDIATE = "BEGIN IMMEDIATE"
_EXCLUSIVE = "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a migrated database's file."""
    path = tmp_path / "morag.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Open it, with a wait for other processes' locks that a test can sit out."""
    monkeypatch.setattr(engine, "SQLITE_BUSY_SECONDS", 1.0)
    opened = Database.open(f"sqlite:///{file}")
    yield opened
    opened.close()


@contextlib.contextmanager
def _locked(file: Path, how: str) -> Iterator[None]:
    """Have another process hold a lock of the file."""
    code = f"""
        import sqlite3, sys
        connection = sqlite3.connect({str(file)!r}, isolation_level=None)
        connection.executescript({how!r})
        connection.execute("UPDATE auth_epoch SET epoch = epoch")
        print("locked", flush=True)
        sys.stdin.read()
        connection.execute("COMMIT")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.communicate(timeout=10)


@contextlib.asynccontextmanager
async def _watched_loop() -> AsyncIterator[list[float]]:
    """Measure by how much the event loop is late, every ten milliseconds."""
    late: list[float] = []

    async def measure() -> None:
        while True:
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            late.append(time.monotonic() - due)

    task = asyncio.create_task(measure())
    await asyncio.sleep(0.05)
    late.clear()
    try:
        yield late
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_write_waits_for_another_process_and_then_says_so(database: Database, file: Path) -> None:
    """While another process holds the write lock a write is SERVER_BUSY, with a delay; later it succeeds."""
    id = made(database)
    with _locked(file, _IMMEDIATE):
        with pytest.raises(Unavailable) as refusal:
            await database.write(lambda uow: rename(uow, id, "new"))
        assert (refusal.value.reason, refusal.value.retry_after) == ("SERVER_BUSY", 1.0)
    assert (await database.write(lambda uow: rename(uow, id, "new")))["name"] == "new"


async def test_a_short_lock_is_waited_for(database: Database, file: Path) -> None:
    """A lock that another process gives back in time costs nothing but the wait."""
    id = made(database)
    with _locked(file, _IMMEDIATE):
        waiting = asyncio.create_task(database.write(lambda uow: rename(uow, id, "new")))
        await asyncio.sleep(0.3)
    assert (await waiting)["name"] == "new"


async def test_reads_go_on_beside_another_processs_write(database: Database, file: Path) -> None:
    """Point reads, lists and snapshots do not wait for a writer."""
    id = made(database)
    with _locked(file, _IMMEDIATE):
        for options in ({"point": True}, {}, {"snapshot": True}):
            began = time.monotonic()
            row = await database.read(lambda uow: uow.users.get("-", id), **options)
            assert row["name"] == "Ada"
            assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    ("how", "opened"),
    [(_IMMEDIATE, True), (_IMMEDIATE, False), (_EXCLUSIVE, False)],  # the last cannot be had of an open file
    ids=["writing, opened before", "writing", "exclusive"],
)
async def test_the_event_loop_never_waits_for_a_lock(
    database: Database, file: Path, how: str, opened: bool
) -> None:
    """Whatever lock another process holds, reads and writes do not make the event loop late."""
    id = made(database)
    if opened:
        await database.read(lambda uow: uow.users.get("-", id), point=True)
        await database.write(lambda uow: rename(uow, id, "before"))
    with _locked(file, how):
        async with _watched_loop() as late:
            for _ in range(2):
                await asyncio.gather(
                    database.read(lambda uow: uow.users.get("-", id), point=True),
                    database.read(lambda uow: uow.users.get("-", id)),
                    database.write(lambda uow: rename(uow, id, "new")),
                    return_exceptions=True,
                )
        assert max(late) < 0.25
    assert (await database.read(lambda uow: uow.users.get("-", id), point=True))["id"] == id
    assert (await database.write(lambda uow: rename(uow, id, "after")))["name"] == "after"


async def test_a_file_locked_whole_is_busy_and_not_empty(database: Database, file: Path) -> None:
    """While another process has the file to itself, reads are SERVER_BUSY, and are served later."""
    id = made(database)
    with _locked(file, _EXCLUSIVE):
        for point in (True, False):
            with pytest.raises(Unavailable) as refusal:
                await database.read(lambda uow: uow.users.get("-", id), point=point)
            assert refusal.value.reason == "SERVER_BUSY"
    assert (await database.read(lambda uow: uow.users.get("-", id), point=True))["id"] == id


async def test_a_full_disk_keeps_nothing_half_and_mends_itself(file: Path) -> None:
    """A write that finds the disk full is UNAVAILABLE and keeps nothing; with room again, all goes on."""
    database = Database.open(f"sqlite:///{file}")
    emails = [new_email() for _ in range(3000)]
    await database.write(lambda uow: uow.connection.exec_driver_sql("PRAGMA max_page_count = 1"))
    for _ in range(3):
        with pytest.raises(Unavailable) as refusal:
            await database.write(lambda uow: [add(uow, email) for email in emails])
        assert refusal.value.reason == "DATABASE_UNAVAILABLE"
        assert await database.read(lambda uow: uow.users.find_by_email(emails[0])) is None
    await database.write(lambda uow: uow.connection.exec_driver_sql("PRAGMA max_page_count = 1000000"))
    await database.write(lambda uow: [add(uow, email) for email in emails])
    assert exists(database, emails[-1])
    database.close()


def test_a_missing_folder_is_an_outage(tmp_path: Path) -> None:
    """A database in a folder that does not exist is UNAVAILABLE, and no folder is made for it."""
    database = Database.open(f"sqlite:///{tmp_path / 'missing' / 'morag.db'}")
    with pytest.raises(Unavailable) as refusal, database.unit_of_work():
        pytest.fail("it was opened")
    assert refusal.value.reason == "DATABASE_UNAVAILABLE"
    with pytest.raises(Unavailable):
        asyncio.run(database.read(lambda uow: uow.users.get("-", "x"), point=True))
    assert not (tmp_path / "missing").exists()
    database.close()


_READ_ONLY = """
import asyncio, contextlib, os, sys, threading
import sqlalchemy.dialects.sqlite.pysqlite, sqlite3, encodings.idna
from morag_meta.db.database import Database
from morag_meta.errors import Unavailable
from tests.db.accounts import add

async def attempts(url):
    database = Database.open(url)
    for point in (True, False):
        try:
            row = await database.read(lambda uow: uow.users.find_by_email("reader@unit.test"), point=point)
            print("read", row["name"], flush=True)
        except Unavailable as refusal:
            print("read", refusal.reason, flush=True)
    try:
        await database.write(lambda uow: add(uow, "writer@unit.test"))
        print("written")
    except Unavailable as refusal:
        print("write", refusal.reason, flush=True)
    database.close()

if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
asyncio.run(attempts(sys.argv[1]))
"""


@pytest.mark.parametrize("folder", [False, True], ids=["file", "file and folder"])
def test_a_read_only_file_refuses_writes_alone(file: Path, tmp_path: Path, folder: bool) -> None:
    """Who may not write the file reads it, and hears UNAVAILABLE at a write, not an internal error."""
    with Database.open(f"sqlite:///{file}").unit_of_work() as uow:
        add(uow, "reader@unit.test")
        uow.commit()
    home = Path(shutil.copytree(file.parent, Path("/tmp") / f"morag-read-only-{os.getpid()}"))  # noqa: S108
    try:
        for path in home.iterdir():
            path.chmod(0o444)
        home.chmod(0o555 if folder else 0o777)
        done = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, f"sqlite:///{home / file.name}"],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        home.chmod(0o777)
        shutil.rmtree(home)
    lines = done.stdout.splitlines()
    assert lines[-1:] == ["write DATABASE_UNAVAILABLE"], done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
