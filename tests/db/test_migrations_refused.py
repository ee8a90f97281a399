"""Migrations that cannot run: what stands in their way is said in a line, and nothing is half done."""

from __future__ import annotations

import pathlib
import shutil
import sqlite3

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.migrate import MigrationError, State
from morag_meta.db.migration_lock import migrating
from morag_meta.db.schema import metadata
from morag_meta.db.url import UrlError
from tests.backends.databases import Backend
from tests.db.rows import engine_of, fill, read_all


def test_a_foreign_table_of_our_name_is_not_taken_over(empty_url: str) -> None:
    """Where another application has a table named as ours the migration fails and leaves it alone."""
    with engine_of(empty_url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE servers (theirs INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO servers VALUES (1)")
    with pytest.raises(MigrationError):
        migrate.upgrade(empty_url)
    with engine_of(empty_url).connect() as connection:
        assert connection.exec_driver_sql("SELECT theirs FROM servers").scalar() == 1
    assert migrate.current(empty_url) is None


def test_an_unknown_revision_is_one_line(empty_url: str) -> None:
    """Asking for a revision that does not exist is an error of one line."""
    with pytest.raises(MigrationError, match="nonesuch") as said:
        migrate.upgrade(empty_url, "nonesuch")
    assert "\n" not in str(said.value)


def test_sqlite_undoes_a_migration_that_leaves_orphans(
    tmp_path: pathlib.Path, later_revisions: pathlib.Path
) -> None:
    """Foreign keys are off while SQLite migrates; rows without a parent at its end undo it all."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    migrate.upgrade(url)
    fill(url)
    with (
        pytest.raises(MigrationError, match="rows without a parent in databases"),
        migrating(url) as connection,
    ):
        connection.execute(sa.delete(metadata.tables["servers"]))
    assert len(read_all(url)["servers"]) == 1
    with engine_of(url).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_reading_makes_no_file(tmp_path: pathlib.Path) -> None:
    """Asking about, undoing or resetting a SQLite database that is not there makes none."""
    path = tmp_path / "m.db"
    url = f"sqlite:///{path}"
    assert migrate.status(url).state is State.EMPTY
    assert migrate.current(url) is None
    assert migrate.downgrade(url, "base") == []
    assert migrate.reset(url) == []
    with pytest.raises(MigrationError, match="does not exist"):
        migrate.check_differences(url)
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("postgresql://me:hush@127.0.0.1:1/d", MigrationError, "the server cannot be reached"),
        ("mariadb://me:hush@127.0.0.1:1/d", MigrationError, "the server cannot be reached"),
        ("sqlite:////nonexistent/folder/m.db", UrlError, "there is no folder /nonexistent/folder"),
    ],
)
def test_a_database_out_of_reach_is_one_line(url: str, error: type[Exception], words: str) -> None:
    """A database that cannot be opened is an error of one line with its cause, without the password."""
    with pytest.raises(error, match=words) as said:
        migrate.upgrade(url)
    assert "hush" not in str(said.value)
    assert "\n" not in str(said.value)


def test_a_file_that_is_no_database_is_named_as_such(tmp_path: pathlib.Path) -> None:
    """A SQLite URL that leads to another kind of file is an error that says so."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to look like one" * 40)
    with pytest.raises(MigrationError, match="not a SQLite database"):
        migrate.upgrade(f"sqlite:///{path}")


def test_a_read_only_database_is_named_as_such(tmp_path: pathlib.Path) -> None:
    """A SQLite database opened read-only can be asked, but not migrated, and the refusal says why."""
    path = tmp_path / "m.db"
    migrate.upgrade(f"sqlite:///{path}")
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    assert migrate.upgrade(url) == []
    with pytest.raises(MigrationError, match="read-only"):
        migrate.downgrade(url, "base")


def test_a_locked_file_is_waited_for_and_named(tmp_path: pathlib.Path) -> None:
    """A SQLite file in another process's use is waited for, then refused, and migrated once it is free."""
    path = tmp_path / "m.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(MigrationError, match="locked by another process"):
        migrate.upgrade(f"sqlite:///{path}", wait=0.2)
    other.execute("ROLLBACK")
    other.execute("CREATE TABLE theirs (id)")
    other.execute("BEGIN")
    other.execute("SELECT * FROM theirs").fetchall()
    with pytest.raises(MigrationError, match="locked by another process"):
        migrate.upgrade(f"sqlite:///{path}", wait=0.2)
    other.close()
    assert migrate.upgrade(f"sqlite:///{path}") != []


def test_several_revisions_at_once_are_refused(empty_url: str) -> None:
    """A version table that names two revisions is not ours to continue from."""
    migrate.upgrade(empty_url)
    with engine_of(empty_url).begin() as connection:
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('x')")
    with pytest.raises(MigrationError, match="claims several revisions"):
        migrate.current(empty_url)


def test_revisions_that_are_missing_or_fork(tmp_path: pathlib.Path, own_revisions: pathlib.Path) -> None:
    """A folder without revisions, and one in which two follow the same, are refused."""
    with pytest.raises(MigrationError, match="missing from this installation"):
        migrate.status("sqlite:///m.db", migrations=tmp_path / "nothing")
    folder = tmp_path / "migrations"
    shutil.copytree(own_revisions, folder)
    first = migrate.revision("One way", migrations=folder)
    text = first.read_text()
    second = text.replace(f"revision = '{first.name[:4]}'", "revision = '9999'", 1)
    assert second != text
    (folder / "versions" / "9999_other.py").write_text(second)
    with pytest.raises(MigrationError, match="must end in one revision, not in 2"):
        migrate.status("sqlite:///m.db", migrations=folder)


def test_a_step_found_done_is_a_fault_but_on_mariadb(
    backend: Backend, empty_url: str, later_revisions: pathlib.Path
) -> None:
    """Where runs are undone as a whole a step never finds itself done; MariaDB passes over what is there."""
    previous = None
    for revision in migrate.status(empty_url, migrations=later_revisions).pending:
        migrate.upgrade(empty_url, revision, migrations=later_revisions)
        _claim(empty_url, previous)
        if backend.name != "mariadb":
            with pytest.raises(MigrationError):
                migrate.upgrade(empty_url, revision, migrations=later_revisions)
            return
        assert migrate.upgrade(empty_url, revision, migrations=later_revisions) == [revision]
        previous = revision
    while (at := migrate.current(empty_url)) is not None:
        migrate.downgrade(empty_url, "-1", migrations=later_revisions)
        _claim(empty_url, at)
        assert migrate.downgrade(empty_url, "-1", migrations=later_revisions) == [at]


def _claim(url: str, revision: str | None) -> None:
    """Have the database say that it is at a revision, as after a kill at the end of the next."""
    with engine_of(url).begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        if revision is not None:
            connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")


def test_a_reset_without_a_schema_drops_nothing(empty_url: str) -> None:
    """A reset of a database that was never migrated finds nothing to drop."""
    with engine_of(empty_url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
    assert migrate.reset(empty_url) == []
