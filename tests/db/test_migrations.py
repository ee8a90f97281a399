"""Revisions forth and back on every database, and what is said of where a database stands."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

import psycopg2
import pymysql
import pytest
import sqlalchemy as sa
from pymysql.constants import CLIENT

from morag_meta.db import migrate
from morag_meta.db.migrate import MigrationError, SchemaAhead, State
from morag_meta.db.schema import metadata
from morag_meta.db.url import normalize
from morag_meta.ids import new_id
from tests.backends.databases import Backend
from tests.db.rows import NOW, OTHER, columns_of, engine_of, fill, read_all, tables_of


def test_up_makes_what_the_code_says(empty_url: str) -> None:
    """After an upgrade of an empty database nothing differs from the tables, and there is one epoch."""
    assert migrate.upgrade(empty_url) == [each.id for each in reversed(migrate.history())]
    assert migrate.check_differences(empty_url) == []
    rows = read_all(empty_url)
    assert rows["auth_epoch"] == [(1, 1)]
    assert len(rows["job_log"]) == 1
    assert tables_of(empty_url) == {*metadata.tables, "alembic_version"}


def test_up_down_up_keeps_rows(empty_url: str, any_revisions: pathlib.Path) -> None:
    """Each revision after the first can be undone and done again under rows, and every row stays."""
    first, *later = migrate.status(empty_url, migrations=any_revisions).pending
    migrate.upgrade(empty_url, first, migrations=any_revisions)
    fill(empty_url, tables_of(empty_url))
    for revision in later:
        before, columns = read_all(empty_url), columns_of(empty_url)
        assert migrate.upgrade(empty_url, "+1", migrations=any_revisions) == [revision]
        assert migrate.downgrade(empty_url, "-1", migrations=any_revisions) == [revision]
        assert read_all(empty_url) == before
        assert migrate.upgrade(empty_url, "+1", migrations=any_revisions) == [revision]
        assert read_all(empty_url, columns) == before
        fill(empty_url, columns_of(empty_url).keys() - columns.keys())
    assert migrate.status(empty_url, migrations=any_revisions).state is State.CURRENT


def test_names_of_revoked_keys_are_free_after_the_upgrade(empty_url: str) -> None:
    """A key that was revoked before names were for live keys alone gives its name up, but shows it."""
    migrate.upgrade(empty_url, "0005")
    fill(empty_url, tables_of(empty_url))
    keys = metadata.tables["api_keys"]
    with engine_of(empty_url).begin() as connection:
        connection.execute(sa.update(keys).values(revoke_time=NOW))
    migrate.upgrade(empty_url)
    with engine_of(empty_url).connect() as connection:
        key = connection.execute(sa.select(keys.c.id, keys.c.name, keys.c.former_name)).one()
    assert key == (OTHER, f"\x1f{OTHER}", "ci")


def test_narrowed_keys_do_not_become_wide_by_going_back(empty_url: str) -> None:
    """A key that is narrowed is revoked where the schema goes back to one that cannot say so; others stay."""
    migrate.upgrade(empty_url)
    fill(empty_url, tables_of(empty_url))
    keys, wide = metadata.tables["api_keys"], new_id()
    with engine_of(empty_url).begin() as connection:
        row = connection.execute(sa.select(keys)).mappings().one()
        plain = {"id": wide, "name": "wide", "key_hash": "0" * 64, "database_ids": None, "server_ids": None}
        connection.execute(sa.insert(keys).values({**row, **plain, "revoke_time": None}))
        connection.execute(
            sa.update(keys).where(keys.c.id == OTHER).values(database_ids=[OTHER], revoke_time=None)
        )
    migrate.downgrade(empty_url, "0009")
    shown = sa.select(keys.c.id, keys.c.name, keys.c.revoke_time.is_not(None))
    with engine_of(empty_url).connect() as connection:
        found = {tuple(each) for each in connection.execute(shown)}
    assert found == {(OTHER, f"\x1f{OTHER}", True), (wide, "wide", False)}


def test_down_to_nothing_and_up_again(empty_url: str, any_revisions: pathlib.Path) -> None:
    """All revisions can be undone under rows; nothing is left, and all can be done again."""
    done = migrate.upgrade(empty_url, migrations=any_revisions)
    fill(empty_url)
    assert migrate.downgrade(empty_url, "base", migrations=any_revisions) == done[::-1]
    assert tables_of(empty_url) == {"alembic_version"}
    assert migrate.upgrade(empty_url, migrations=any_revisions) == done


def test_foreign_keys_are_enforced_after_tables_were_copied(
    empty_url: str, later_revisions: pathlib.Path
) -> None:
    """On SQLite a changed table is a copy: its children still point at it, and restrict its rows."""
    migrate.upgrade(empty_url, migrations=later_revisions)
    fill(empty_url)
    with engine_of(empty_url).connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(sa.delete(metadata.tables["servers"]))


def test_a_copy_keeps_checks_and_constraints(empty_url: str, later_revisions: pathlib.Path) -> None:
    """After later revisions changed tables and were undone, the tables are again exactly as before."""
    migrate.upgrade(empty_url, migrations=later_revisions)
    migrate.downgrade(empty_url, migrate.head(), migrations=later_revisions)
    assert migrate.check_differences(empty_url) == []


def test_status_tells_where_a_database_stands(empty_url: str, later_revisions: pathlib.Path) -> None:
    """A database is empty, behind, current or ahead, and the revisions to come are listed in order."""
    own = [each.id for each in reversed(migrate.history())]
    empty = migrate.status(empty_url)
    assert (empty.state, empty.current, empty.pending) == (State.EMPTY, None, own)
    migrate.upgrade(empty_url)
    assert migrate.status(empty_url) == migrate.Status(own[-1], own[-1], [], State.CURRENT)
    behind = migrate.status(empty_url, migrations=later_revisions)
    assert (behind.state, behind.pending, behind.head) == (State.BEHIND, ["9001", "9002"], "9002")
    migrate.upgrade(empty_url, migrations=later_revisions)
    assert migrate.status(empty_url) == migrate.Status("9002", own[-1], [], State.AHEAD)


def test_a_schema_ahead_is_refused(empty_url: str, later_revisions: pathlib.Path) -> None:
    """Code that does not know the database's revision changes nothing and says in a line what to do."""
    migrate.upgrade(empty_url, migrations=later_revisions)
    attempts: list[Callable[[], object]] = [
        lambda: migrate.upgrade(empty_url),
        lambda: migrate.downgrade(empty_url, "base"),
        lambda: migrate.reset(empty_url),
    ]
    for refused in attempts:
        with pytest.raises(SchemaAhead, match="at revision 9002, which this version does not know") as said:
            refused()
        assert "run the newer version" in str(said.value)
        assert "\n" not in str(said.value)
    assert migrate.current(empty_url) == "9002"


def test_reset_drops_ours_alone(empty_url: str) -> None:
    """A reset drops every table of the service with its rows, and leaves those of others."""
    migrate.upgrade(empty_url)
    fill(empty_url)
    with engine_of(empty_url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
    assert set(migrate.reset(empty_url)) == set(metadata.tables)
    assert tables_of(empty_url) == {"theirs"}
    assert migrate.status(empty_url).state is State.EMPTY
    assert migrate.upgrade(empty_url) != []


def _execute_script(url: str, script: str) -> None:
    parsed = normalize(url)
    options: dict[str, Any] = {"host": parsed.host, "port": parsed.port, "user": parsed.username}
    match parsed.get_backend_name():
        case "sqlite":
            lite = sqlite3.connect(parsed.database or "")
            lite.executescript(script)
            lite.close()
        case "postgresql":
            options |= {**parsed.query, "password": parsed.password, "dbname": parsed.database}
            postgres = psycopg2.connect(**{key: value for key, value in options.items() if value is not None})
            postgres.autocommit = True
            postgres.cursor().execute(script)
            postgres.close()
        case _:
            options |= {"database": parsed.database, "password": parsed.password or ""}
            options |= {key: str(value) for key, value in parsed.query.items()}
            maria = pymysql.connect(
                **{key: value for key, value in options.items() if value is not None},
                client_flag=CLIENT.MULTI_STATEMENTS,
                autocommit=True,
            )
            with maria.cursor() as cursor:
                cursor.execute(script)
                while cursor.nextset():
                    pass
            maria.close()


def test_offline_sql_does_what_an_upgrade_does(backend: Backend, empty_url: str) -> None:
    """The written SQL, run by the plain driver, makes the same schema, and the way back removes it."""
    _execute_script(empty_url, migrate.offline_sql(backend.name))
    assert migrate.status(empty_url).state is State.CURRENT
    assert migrate.check_differences(empty_url) == []
    fill(empty_url)
    _execute_script(empty_url, migrate.offline_sql(backend.name, down=True))
    assert tables_of(empty_url) <= {"alembic_version"}
    assert migrate.current(empty_url) is None


def test_offline_sql_of_later_revisions(
    backend: Backend, empty_url: str, later_revisions: pathlib.Path
) -> None:
    """Changes of tables can be written offline, too, but for SQLite, where they copy what is there."""
    if backend.name == "sqlite":
        with pytest.raises(MigrationError, match="requires a live database connection"):
            migrate.offline_sql("sqlite", migrations=later_revisions)
        return
    _execute_script(empty_url, migrate.offline_sql(backend.name, migrations=later_revisions))
    assert migrate.current(empty_url) == "9002"
    migrate.downgrade(empty_url, migrate.head(), migrations=later_revisions)
    assert migrate.check_differences(empty_url) == []


def test_offline_sql_for_mysql_and_for_nothing_known() -> None:
    """MySQL 8 has a collation of its own, and another dialect is refused."""
    assert "utf8mb4_0900_bin" in migrate.offline_sql("mysql")
    assert "utf8mb4_nopad_bin" not in migrate.offline_sql("mysql")
    assert "utf8mb4_nopad_bin" in migrate.offline_sql("mariadb")
    with pytest.raises(MigrationError, match="choose one of"):
        migrate.offline_sql("oracle")
