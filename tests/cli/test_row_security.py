"""``morag-meta db row-security``: on, off, and how it stands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from morag_meta.exits import ExitCode
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.backends.postgresql import PostgresqlServer
from tests.backends.walled import MIGRATOR, SERVICE, Walls, administrator
from tests.cli.command import Command

pytestmark = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "postgresql"], indirect=True, scope="session"
)
_ROW_SECURITY = ("db", "row-security")


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    """Give the migration role's URL of a database with row security."""
    assert isinstance(backend, ServerDatabases)
    assert isinstance(backend.server, PostgresqlServer)
    made = Walls(backend.server).new_url()
    yield sa.make_url(made).set(username=MIGRATOR).render_as_string(hide_password=False)
    backend.drop(made)


def test_it_is_switched_off_and_on(cli: Command, url: str) -> None:
    """Each command says what it did, and the status what holds."""
    on = ("--database-url", url)
    assert cli(*_ROW_SECURITY, "status", *on, "-o", "json").json == {
        "state": "ON",
        "role": SERVICE,
        "problems": [],
    }
    assert cli(*_ROW_SECURITY, "disable", *on).out == "row security is off\n"
    assert cli(*_ROW_SECURITY, "status", *on, "-o", "json").json["state"] == "OFF"
    assert cli(*_ROW_SECURITY, "enable", SERVICE, *on).out == f"row security is on for {SERVICE}\n"
    assert "ON" in cli(*_ROW_SECURITY, "status", *on).out


def test_a_hole_fails_the_status(cli: Command, url: str) -> None:
    """A policy that is missing is told with what mends it, and by the exit code."""
    with administrator(sa.make_url(url)).connect() as connection:
        connection.exec_driver_sql("DROP POLICY morag_owner ON servers")
    result = cli(*_ROW_SECURITY, "status", "--database-url", url)
    assert result.code is ExitCode.SCHEMA
    assert "FAULTY" in result.out
    assert "on servers: run 'morag-meta db row-security enable" in result.out


def test_an_upgrade_mends_a_hole(cli: Command, url: str) -> None:
    """Policies of another version follow with db upgrade, also where no revision is pending."""
    with administrator(sa.make_url(url)).connect() as connection:
        connection.exec_driver_sql("COMMENT ON POLICY morag_owner ON servers IS 'of another version'")
    assert cli("db", "upgrade", "--database-url", url).out == (
        "nothing to do\nrow security brought up to date\n"
    )
    assert cli(*_ROW_SECURITY, "status", "--database-url", url).code is ExitCode.OK
    assert cli("db", "upgrade", "--database-url", url).out == "nothing to do\n"


def test_a_reset_puts_the_walls_up_again(cli: Command, url: str) -> None:
    """What was dropped and made anew is as closed as before."""
    assert cli("db", "reset", "--confirm", "--database-url", url).code is ExitCode.OK
    assert cli(*_ROW_SECURITY, "status", "--database-url", url, "-o", "json").json["role"] == SERVICE


def test_a_schema_that_is_behind_comes_first(cli: Command, url: str) -> None:
    """It is enabled on the newest revision alone."""
    cli("db", "downgrade", "-1", "--database-url", url)
    result = cli(*_ROW_SECURITY, "enable", SERVICE, "--database-url", url)
    assert result.code is ExitCode.SCHEMA
    assert "run 'morag-meta db upgrade' first" in result.err


def test_a_count_behind_the_walls_says_so(cli: Command, url: str) -> None:
    """Who is bound counts no rows of anybody, and is told; who owns the tables counts all."""
    hint = "row security hides rows from this role: count them as the role that owns the tables"
    bound = sa.make_url(url).set(username=SERVICE).render_as_string(hide_password=False)
    assert hint in cli("db", "check", "--database-url", bound).err
    assert cli("db", "check", "--database-url", url).err == ""


def test_others_are_refused(cli: Command, backend: Backend) -> None:
    """SQLite has none, which is told in a line."""
    result = cli(*_ROW_SECURITY, "status", "--database-url", "sqlite:///morag.db")
    assert result.code is ExitCode.SCHEMA
    assert result.err == "error: sqlite:///morag.db: only PostgreSQL has row security\n"
