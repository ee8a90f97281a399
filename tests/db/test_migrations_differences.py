"""A database that was changed by hand: each kind of difference is found and named."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from tests.backends.databases import Backend
from tests.db.rows import engine_of, fill, read_all


@pytest.fixture
def migrated(empty_url: str) -> str:
    """Give an up-to-date database."""
    migrate.upgrade(empty_url)
    return empty_url


def _change(url: str, *statements: str) -> None:
    with engine_of(url).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _rewrite(url: str, table: str, old: str, new: str) -> None:
    """Change a SQLite table's definition in place."""
    with engine_of(url).connect() as connection:
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        changed = connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
            "WHERE type = 'table' AND name = ? AND instr(sql, ?)",
            (old, new, table, old),
        )
        assert changed.rowcount == 1
        connection.commit()


def _swap_check(backend: Backend, url: str, table: str, name: str, condition: str, instead: str) -> None:
    if backend.name == "sqlite":
        _rewrite(url, table, f"CONSTRAINT {name} CHECK ({condition})", instead)
        return
    _change(url, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    if instead:
        _change(url, f"ALTER TABLE {table} ADD {instead}")


def test_a_check_that_says_something_else(backend: Backend, migrated: str) -> None:
    """A check of the right name with another condition is a difference, and both conditions are told."""
    name = "ck_jobs__percentage"
    weaker = f"CONSTRAINT {name} CHECK (percentage BETWEEN 0 AND 1000)"
    _swap_check(backend, migrated, "jobs", name, "percentage BETWEEN 0 AND 100", weaker)
    (line,) = migrate.check_differences(migrated)
    assert line.startswith(f"check differs: {name} is ")
    assert "1000" in line


def test_a_check_that_is_missing(backend: Backend, migrated: str) -> None:
    """A dropped check is a difference."""
    name = "ck_jobs__percentage"
    always = "CONSTRAINT ck_jobs__spare CHECK (1 = 1)"
    _swap_check(backend, migrated, "jobs", name, "percentage BETWEEN 0 AND 100", always)
    assert migrate.check_differences(migrated) == [
        f"check missing: {name}",
        "check unknown: ck_jobs__spare on jobs",
    ]


def test_a_collation_that_ignores_case(backend: Backend, migrated: str) -> None:
    """A text column or index that compares otherwise than the code expects is a difference."""
    if backend.name == "sqlite":
        _rewrite(
            migrated, "users", "email VARCHAR(255) NOT NULL", "email VARCHAR(255) COLLATE NOCASE NOT NULL"
        )
    elif backend.name == "postgresql":
        _change(migrated, 'ALTER TABLE users ALTER COLUMN email TYPE VARCHAR(255) COLLATE "C"')
    else:
        _change(migrated, "ALTER TABLE users MODIFY email VARCHAR(255) COLLATE utf8mb4_general_ci NOT NULL")
    (line,) = migrate.check_differences(migrated)
    assert line.startswith("collation differs: users")


def test_times_cut_short(backend: Backend, migrated: str) -> None:
    """A time that lost its fraction of a second is a difference (SQLite keeps text, which cannot)."""
    if backend.name == "sqlite":
        return
    if backend.name == "postgresql":
        _change(migrated, "ALTER TABLE users ALTER COLUMN update_time TYPE TIMESTAMPTZ(0)")
    else:
        _change(migrated, "ALTER TABLE users MODIFY update_time DATETIME NOT NULL")
    assert "time differs: users.update_time keeps 0 digits of a second, not 6" in migrate.check_differences(
        migrated
    )


def test_a_table_without_transactions(backend: Backend, migrated: str) -> None:
    """On MariaDB a table of another engine than InnoDB is a difference."""
    if backend.name == "mariadb":
        _change(migrated, "ALTER TABLE auth_epoch ENGINE = Aria")
        (line,) = migrate.check_differences(migrated)
        assert line.startswith("table differs: auth_epoch is Aria")


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["ALTER TABLE users ADD COLUMN spare INTEGER"], "column unknown: users.spare"),
        (["CREATE INDEX ix_spare ON users (name)"], "index unknown: users.ix_spare"),
        (["DROP TABLE request_records"], "table missing: request_records"),
    ],
)
def test_what_alembic_compares(migrated: str, statements: list[str], words: str) -> None:
    """A column or index too many, or a table too few, is named."""
    _change(migrated, *statements)
    assert words in migrate.check_differences(migrated)


def test_a_column_that_may_be_null(backend: Backend, migrated: str) -> None:
    """A column that lost its NOT NULL is a difference."""
    if backend.name == "sqlite":
        _rewrite(migrated, "users", "name VARCHAR(255) NOT NULL", "name VARCHAR(255)")
    elif backend.name == "postgresql":
        _change(migrated, "ALTER TABLE users ALTER COLUMN name DROP NOT NULL")
    else:
        _change(migrated, "ALTER TABLE users MODIFY name VARCHAR(255) NULL")
    assert migrate.check_differences(migrated) == ["nullable differs: users.name is True, not False"]


def test_tables_of_others_are_left_alone(migrated: str) -> None:
    """Another application's table in the same database is no difference, and comparing keeps nothing."""
    _change(migrated, "CREATE TABLE theirs (id INTEGER PRIMARY KEY, name VARCHAR(9) CHECK (name <> ''))")
    fill(migrated)
    before = read_all(migrated)
    tables = set(sa.inspect(engine_of(migrated)).get_table_names())
    assert migrate.check_differences(migrated) == []
    assert set(sa.inspect(engine_of(migrated)).get_table_names()) == tables
    assert read_all(migrated) == before
