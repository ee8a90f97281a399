"""Processes that migrate at the same time, wait for each other, or die half-way."""

from __future__ import annotations

import pathlib
import time

import pytest

from morag_meta.db import migrate
from morag_meta.db.migrate import MigrationLocked, State
from morag_meta.db.migration_lock import migrating
from tests.backends.databases import Backend
from tests.db import migrators
from tests.db.rows import read_all


def test_eight_starters_migrate_once(empty_url: str, later_revisions: pathlib.Path) -> None:
    """Of eight processes that migrate at once each succeeds, and each revision is applied by exactly one."""
    applied = migrators.run("together", empty_url, later_revisions, number=8)
    assert len(applied) == 8
    assert all(isinstance(each, list) for each in applied), applied
    pending = [*(each.id for each in reversed(migrate.history())), "9001", "9002"]
    assert sorted(revision for each in applied for revision in each) == pending
    assert migrate.status(empty_url, migrations=later_revisions).state is State.CURRENT


def test_eight_that_go_back_undo_once(empty_url: str, later_revisions: pathlib.Path) -> None:
    """Of eight processes that undo at once each revision is undone by exactly one."""
    done = migrate.upgrade(empty_url, migrations=later_revisions)
    undone = migrators.run("together", empty_url, later_revisions, "base", 8)
    assert sorted(revision for each in undone for revision in each) == done
    assert migrate.current(empty_url) is None


def test_a_starter_waits_no_longer_than_told(empty_url: str) -> None:
    """While another holds the lock a migration gives up after its wait, in a line that says why."""
    migrate.upgrade(empty_url)
    with migrating(empty_url):
        started = time.monotonic()
        with pytest.raises(MigrationLocked, match="another process has held the migration lock") as said:
            migrate.downgrade(empty_url, "base", wait=0.5)
        assert 0.4 < time.monotonic() - started < 20
        assert "\n" not in str(said.value)
    assert migrate.status(empty_url).state is State.CURRENT


def test_a_current_schema_takes_no_lock(empty_url: str) -> None:
    """Where nothing is to do, starting does not wait for a migration lock that another holds."""
    migrate.upgrade(empty_url)
    with migrating(empty_url):
        assert migrate.upgrade(empty_url, wait=0.1) == []
        assert migrate.status(empty_url).state is State.CURRENT


def test_databases_of_one_server_do_not_wait_for_each_other(backend: Backend, empty_url: str) -> None:
    """The lock is of one database: another of the same server migrates meanwhile."""
    other = backend.new_empty_url()
    with migrating(empty_url):
        assert migrate.upgrade(other, wait=0.5) != []
    backend.drop(other)


def test_killed_after_each_change(backend: Backend, empty_url: str, later_revisions: pathlib.Path) -> None:
    """A migration killed after any of its changes ends well when run again, forth and back.

    MariaDB keeps what was done, so each run gets one change further; the others keep nothing of a run.
    """
    if backend.name == "mariadb":
        assert 40 < migrators.run("steps", empty_url, later_revisions) < 200
        assert 15 < migrators.run("steps", empty_url, later_revisions, "base") < 200
        assert migrate.upgrade(empty_url, migrations=later_revisions) != []
    else:
        for change in (1, 12, 40):
            migrators.run("killed", empty_url, later_revisions, number=change)
            assert migrate.current(empty_url) is None
        assert migrate.upgrade(empty_url, migrations=later_revisions) != []
    migrate.downgrade(empty_url, migrate.head(), migrations=later_revisions)
    assert migrate.check_differences(empty_url) == []
    assert read_all(empty_url)["auth_epoch"] == [(1, 1)]


def test_killed_at_random_moments(empty_url: str, later_revisions: pathlib.Path) -> None:
    """A migration killed at random moments ends well when it is run again."""
    migrators.run("moments", empty_url, later_revisions, number=12)
    assert migrate.status(empty_url, migrations=later_revisions).state is State.CURRENT
    migrate.downgrade(empty_url, migrate.head(), migrations=later_revisions)
    assert migrate.check_differences(empty_url) == []
