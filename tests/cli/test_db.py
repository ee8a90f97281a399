"""``morag-meta db``: from nothing to head and back, and what it says on the way."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.exits import ExitCode
from morag_meta.uow import UnitOfWork
from tests.backends.databases import chosen_kinds
from tests.cli.command import Command

pytestmark = pytest.mark.usefixtures("secrets_given")

_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
_SERVERS = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)


@pytest.fixture
def locked_folder(cli: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder in which this process, no longer root if it was, can make nothing."""
    folder = Path(tempfile.mkdtemp())  # those of pytest are closed to whom this process becomes
    monkeypatch.chdir(folder)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    "".encode("idna")  # loaded now, as afterwards Python's own folder may be closed too
    if root:
        os.seteuid(65_534)
    yield folder
    if root:
        os.seteuid(0)
    folder.rmdir()


@contextmanager
def _unit_of_work(url: str) -> Iterator[UnitOfWork]:
    database = Database.open(url)
    try:
        with database.unit_of_work() as uow:
            yield uow
    finally:
        database.close()


def test_init_makes_schema_admin_and_data_and_may_be_repeated(cli: Command, empty_url: str) -> None:
    """On every database init fills an empty one once, prints the admin's key, and then changes nothing."""
    words = ["db", "init", "--create-admin", "--admin-email", "Ada@Example.org", "--setup-dev-data", "--yes"]
    first = cli(*words, "--database-url", empty_url)
    assert first.code is ExitCode.OK, first.err
    assert [line for line in first.out.splitlines() if line.startswith("admin API key: morag_")]
    rows = cli("db", "check", "--database-url", empty_url, "-o", "json").json["rows"]
    again = cli(*words, "--database-url", empty_url)
    assert again.code is ExitCode.OK, again.err
    assert "API key" not in again.out
    check = cli("db", "check", "--database-url", empty_url, "-o", "json").json
    assert check["rows"] == rows
    assert (rows["users"], rows["servers"], rows["databases"], rows["documents"]) == (3, 1, 1, 3)
    with _unit_of_work(empty_url) as uow:
        found = uow.users.find_by_email("ada@example.org")
        tester = uow.users.find_by_email("test@morag.dev")
        assert found is not None
        assert found["role"] == "ADMIN"
        assert tester is not None
        assert uow.settings.get(tester["id"], tester["id"])["theme"] == "SYSTEM"
        assert uow.databases.page(tester["id"], None, 10)[0]["document_count"] == 3


def test_check_prints_where_the_database_stands(cli: Command, empty_url: str) -> None:
    """Connection without password, server, revision, tables and row counts are printed."""
    cli("db", "upgrade", "--database-url", empty_url)
    result = cli("db", "check", "--database-url", empty_url)
    assert result.code is ExitCode.OK
    facts = dict(line.split(maxsplit=1) for line in result.out.splitlines()[:7])
    assert facts["state"] == "CURRENT"
    assert facts["revision"] == facts["head"] == migrate.head()
    assert facts["server"].split()[0] in ("sqlite", "postgresql", "mysql")
    password = empty_url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    assert not password or password not in result.out
    for table in ("users", "documents", "job_events", "auth_epoch"):
        assert table in result.out


def test_check_and_verify_fail_until_the_schema_is_current(cli: Command, empty_url: str) -> None:
    """An empty database is told by exit code, and so is one with a table changed by hand."""
    url = ("--database-url", empty_url)
    cli("db", "upgrade", *url)
    cli("db", "downgrade", "base", *url)
    assert cli("db", "check", *url).code is ExitCode.SCHEMA
    assert cli("db", "verify", *url).code is ExitCode.SCHEMA
    cli("db", "upgrade", *url)
    assert cli("db", "verify", *url).code is ExitCode.OK
    with _unit_of_work(empty_url) as uow:
        uow.connection.exec_driver_sql(
            "DROP INDEX ix_api_keys__create_time_id" + (" ON api_keys" if uow.dialect == "mariadb" else "")
        )
        uow.commit()
    result = cli("db", "verify", *url)
    assert result.code is ExitCode.SCHEMA
    assert "ix_api_keys__create_time_id" in result.out


@_SQLITE
def test_revisions_go_up_and_down(cli: Command, empty_url: str) -> None:
    """Upgrade, status, history and downgrade agree on where the database is."""
    url = ("--database-url", empty_url)
    assert cli("db", "status", *url, "-o", "json").json["state"] == "EMPTY"
    revisions = [each.id for each in reversed(migrate.history())]
    assert cli("db", "upgrade", *url).out == "".join(f"applied {revision}\n" for revision in revisions)
    assert cli("db", "upgrade", *url).out == "nothing to do\n"
    assert cli("db", "status", *url, "-o", "json").json["state"] == "CURRENT"
    assert [
        line["revision"] for line in cli("db", "history", *url, "-o", "json").jsons if line["current"]
    ] == [migrate.head()]
    assert "*" in cli("db", "history", *url).out
    assert cli("db", "downgrade", "-1", *url).out == f"undone {migrate.head()}\n"
    assert cli("db", "downgrade", "base", *url).code is ExitCode.OK
    assert "EMPTY" in cli("db", "status", *url).out


@_SQLITE
def test_offline_sql_is_printed_and_nothing_changed(cli: Command, empty_url: str) -> None:
    """``--sql`` prints the statements in the URL's dialect and touches no database."""
    url = ("--database-url", empty_url)
    assert "CREATE TABLE users" in cli("db", "upgrade", "--sql", *url).out
    assert "DROP TABLE users" in cli("db", "downgrade", "base", "--sql", *url).out
    assert not Path(empty_url.removeprefix("sqlite:///")).exists()
    postgres = cli("db", "upgrade", "--sql", "--database-url", "postgresql://nobody@nowhere/none").out
    assert "TIMESTAMP WITH TIME ZONE" in postgres


@_SQLITE
def test_a_revision_is_not_written_for_a_database_that_is_behind(cli: Command, empty_url: str) -> None:
    """Comparing needs a current database, and the refusal is one line."""
    result = cli("db", "revision", "add nothing", "--database-url", empty_url)
    assert result.code is ExitCode.SCHEMA
    assert result.err.count("\n") == 1


def test_reset_asks_and_then_empties(cli: Command, empty_url: str) -> None:
    """Without --confirm and a terminal reset refuses; with it the rows are gone and the schema is there."""
    url = ("--database-url", empty_url)
    cli("db", "init", "--create-admin", "--admin-email", "a@b.dev", *url)
    refused = cli("db", "reset", *url)
    assert refused.code is ExitCode.USAGE
    assert "--confirm" in refused.err
    assert cli("db", "check", *url, "-o", "json").json["rows"]["users"] == 1
    assert cli("db", "reset", "--confirm", *url).code is ExitCode.OK
    check = cli("db", "check", *url, "-o", "json").json
    assert check["state"] == "CURRENT"
    assert check["rows"]["users"] == 0


@_SERVERS
def test_seed_beside_sqlite_needs_yes(cli: Command, empty_url: str) -> None:
    """Development data goes into a server's database only when that is said."""
    cli("db", "upgrade", "--database-url", empty_url)
    refused = cli("db", "seed", "--database-url", empty_url)
    assert refused.code is ExitCode.USAGE
    assert "--yes" in refused.err
    assert cli("db", "check", "--database-url", empty_url, "-o", "json").json["rows"]["users"] == 0


@_SQLITE
def test_url_may_stand_before_the_command_or_in_the_environment(
    cli: Command, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option holds before and after the command, the nearer one wins, and the environment is last."""
    cli("db", "upgrade", "--database-url", empty_url)
    before = cli("--database-url", empty_url, "db", "status", "-o", "json")
    assert before.json["state"] == "CURRENT"
    nearer = cli(
        "--database-url", "sqlite:///other.db", "db", "status", "-o", "json", "--database-url", empty_url
    )
    assert nearer.json["state"] == "CURRENT"
    assert cli("db", "status", "-o", "json").json["state"] == "EMPTY"
    monkeypatch.setenv("MORAG_DATABASE_URL", empty_url)
    assert cli("db", "status", "-o", "json").json["state"] == "CURRENT"


@_SQLITE
def test_a_newer_schema_is_refused(cli: Command, empty_url: str) -> None:
    """A database that newer code made is told as such, and not touched."""
    cli("db", "upgrade", "--database-url", empty_url)
    with sqlite3.connect(empty_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    result = cli("db", "upgrade", "--database-url", empty_url)
    assert result.code is ExitCode.SCHEMA
    assert "9999" in result.err


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("sqlite:////no/such/folder/x.db", ExitCode.CONFIGURATION),
        ("postgresql://u:hunter2@127.0.0.1:1/x", ExitCode.UNREACHABLE),
        ("mariadb://u:hunter2@127.0.0.1:1/x", ExitCode.UNREACHABLE),
        ("mongodb://u:hunter2@h/x", ExitCode.CONFIGURATION),
    ],
)
def test_a_database_that_cannot_be_had_is_one_line(cli: Command, url: str, code: ExitCode) -> None:
    """Whatever is wrong with the database, the failure is one line without password or traceback."""
    result = cli("db", "upgrade", "--database-url", url)
    assert result.code is code
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "hunter2" not in result.err


_EVERY_WAY = [["db", "upgrade"], ["db", "check"], ["db", "status"], ["key", "list"], ["serve"]]


@pytest.mark.parametrize("words", _EVERY_WAY, ids=" ".join)
def test_folder_that_is_not_there_is_named(
    cli: Command, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Whichever command meets it, a missing folder is one line that names it, with one exit code."""
    monkeypatch.delenv("MORAG_SECRET_KEY")
    monkeypatch.setenv("MORAG_GRPC_ADDRESS", "127.0.0.1:0")
    result = cli(*words, "--database-url", "sqlite:////no/such/folder/x.db")
    assert result.code is ExitCode.CONFIGURATION
    assert "there is no folder /no/such/folder" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("words", _EVERY_WAY, ids=" ".join)
def test_folder_that_may_not_be_written_is_named(
    cli: Command, monkeypatch: pytest.MonkeyPatch, locked_folder: Path, words: list[str]
) -> None:
    """A new file in a folder that may not be written is one line with the same exit code everywhere."""
    monkeypatch.delenv("MORAG_SECRET_KEY")
    monkeypatch.setenv("MORAG_GRPC_ADDRESS", "127.0.0.1:0")
    result = cli(*words, "--database-url", f"sqlite:///{locked_folder}/x.db")
    assert result.code is ExitCode.CONFIGURATION
    assert f"the folder {locked_folder} may not be written" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["db", "check"], ["key", "list"], ["user", "create", "a@b.c", "--no-password"]]
)
def test_file_that_is_not_there_is_said_to_be_missing(cli: Command, words: list[str]) -> None:
    """In a folder without a database every command says that the file is missing and how to make it."""
    result = cli(*words)
    assert result.code is ExitCode.SCHEMA
    assert "the file does not exist; make it with 'morag-meta db upgrade'" in result.err
