"""The file of a SQLite database: who may read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.users.actions import create_user


@pytest.fixture(autouse=True)
def _open_handed() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _modes(url: str) -> dict[str, int]:
    """Write to the database, and give the modes of its files while it is open."""
    database = Database.open(url)
    with database.unit_of_work() as uow:
        create_user(uow, name="Ada", email="ada@example.org")
        uow.commit()
        folder = Path(url.removeprefix("sqlite:///")).parent
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.db*")}
    database.close()
    return modes


def test_new_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, the file and what SQLite puts beside it are made with 0600."""
    url = f"sqlite:///{tmp_path}/a.db"
    migrate.upgrade(url)
    assert _modes(url) == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}


def test_file_is_private_whoever_opens_it_first(tmp_path: Path) -> None:
    """A file that a unit of work makes, before any migration, is made with 0600 too."""
    database = Database.open(f"sqlite:///{tmp_path}/b.db")
    with database.unit_of_work() as uow:
        uow.connection.exec_driver_sql("SELECT 1")
    database.close()
    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o600


def test_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """Who opened the file to a group did so on purpose."""
    path = tmp_path / "c.db"
    path.touch()
    path.chmod(0o640)
    migrate.upgrade(f"sqlite:///{path}")
    assert _modes(f"sqlite:///{path}")["c.db"] == 0o640
