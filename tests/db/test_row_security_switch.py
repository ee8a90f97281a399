"""Row security is switched on by who migrates, for a role that it binds, and looked at before serving."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from morag_meta.config.error import ConfigurationError
from morag_meta.config.loading import load
from morag_meta.db import migrate, row_security
from morag_meta.db.database import Database
from morag_meta.db.migrate import MigrationError
from morag_meta.server.preparation import prepare
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.backends.postgresql import PostgresqlServer
from tests.backends.walled import MIGRATOR, SERVICE, Walls, administrator
from tests.db.accounts import made
from tests.service import CREDENTIAL_KEYS, SECRET_KEY

_POSTGRESQL = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "postgresql"], indirect=True, scope="session"
)


@pytest.fixture(scope="module")
def walls(backend: Backend) -> Walls:
    """Make databases with row security, whether or not the run has it on."""
    assert isinstance(backend, ServerDatabases)
    assert isinstance(backend.server, PostgresqlServer)
    return Walls(backend.server)


@pytest.fixture
def url(walls: Walls, backend: Backend) -> Iterator[str]:
    """Give the service's URL of a database with row security."""
    made = walls.new_url()
    yield made
    backend.drop(made)


def _as(user: str, url: str) -> str:
    return sa.make_url(url).set(username=user).render_as_string(hide_password=False)


def _change(url: str, statement: str) -> None:
    with administrator(sa.make_url(url)).connect() as connection:
        connection.exec_driver_sql(statement)


def _prepare(url: str, *, row_security: bool = True) -> None:
    prepare(
        load(
            database_url=url,
            secret_key=SECRET_KEY,
            credential_keys=CREDENTIAL_KEYS,
            row_security=row_security,
        )
    )


@_POSTGRESQL
def test_the_service_starts_behind_it(url: str) -> None:
    """With the switch on, the role that policies bind is let start, and makes the first admin."""
    assert row_security.status(url) == row_security.Walls(SERVICE, [])
    _prepare(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        assert uow.users.find_by_email("admin@localhost") is not None
    database.close()


@_POSTGRESQL
@pytest.mark.parametrize(
    ("user", "told"),
    [(PostgresqlServer.user, "a superuser or one with BYPASSRLS"), (MIGRATOR, "may become the owner of")],
)
def test_a_role_that_no_policy_binds_does_not_start(url: str, user: str, told: str) -> None:
    """A superuser and the tables' owner are refused, told which role to take and no password."""
    with pytest.raises(MigrationError, match=told) as refused:
        _prepare(_as(user, url))
    assert str(refused.value).endswith(f": start the service as '{SERVICE}'")
    assert f"'{user}'" in str(refused.value)
    assert str(sa.make_url(url).password) not in str(refused.value)
    with pytest.raises(MigrationError, match=told):
        row_security.enable(_as(MIGRATOR, url), user)


@_POSTGRESQL
@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("ALTER TABLE jobs DISABLE ROW LEVEL SECURITY", "jobs"),
        ("DROP POLICY morag_owner ON documents", "documents"),
        (f"CREATE POLICY wide ON servers TO {SERVICE} USING (true)", "servers"),
        ("CREATE POLICY wide ON servers USING (true)", "servers"),
        ("COMMENT ON POLICY morag_shared_select ON quotas IS 'of another version'", "quotas"),
    ],
)
def test_walls_with_a_hole_are_refused_until_they_are_mended(url: str, statement: str, table: str) -> None:
    """A table without policies, a policy too few, too many or of another version is told."""
    _change(url, statement)
    with pytest.raises(
        MigrationError, match=rf"\b{table}: run 'morag-meta db row-security enable {SERVICE}'"
    ):
        _prepare(url)
    assert row_security.status(url).problems
    if "wide" in statement:
        _change(url, "DROP POLICY wide ON servers")  # which is not the service's to drop
    row_security.enable(_as(MIGRATOR, url), SERVICE)
    assert row_security.status(url).problems == []
    _prepare(url)


@_POSTGRESQL
def test_all_that_is_wrong_is_told(url: str) -> None:
    """A table without row security hides no policy that is missing, and the state is neither on nor off."""
    assert row_security.status(url).state == "ON"
    _change(url, "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY")
    _change(url, "DROP POLICY morag_owner ON documents")
    _change(url, f"ALTER TABLE servers OWNER TO {SERVICE}")
    found = row_security.status(url)
    assert found.state == "FAULTY"
    owns, off, missing = found.problems
    assert "the owner of servers: give the service a role of its own" in owns
    assert off.startswith("row security is not on for jobs:")
    assert "policies are missing" in missing
    assert "on documents:" in missing


@_POSTGRESQL
def test_a_schema_that_lets_nobody_pass_is_not_off(url: str) -> None:
    """Without policies, as a downgrade leaves it, nothing passes: that is told, and mended by enable."""
    _change(url, f"DROP OWNED BY {SERVICE}")
    found = row_security.status(_as(MIGRATOR, url))
    assert (found.role, found.state) == (None, "FAULTY")
    assert "enable ROLE' as the role that owns the tables" in found.problems[0]


@_POSTGRESQL
def test_a_start_before_it_is_enabled_says_what_is_missing(url: str) -> None:
    """A role that may not even see the schema is told of row security; the owner, of a role that can be."""
    _change(url, f"DROP OWNED BY {SERVICE}")
    row_security.disable(_as(MIGRATOR, url))
    told = (
        f"row security is not on for the role '{SERVICE}': run 'morag-meta db row-security enable {SERVICE}' "
    )
    with pytest.raises(MigrationError, match=f"{told}as the role that owns the tables"):
        _prepare(url)
    with pytest.raises(
        MigrationError, match="start the service as another role, which owns nothing"
    ) as owner:
        _prepare(_as(MIGRATOR, url))
    assert "enable ROLE' as the role that owns the tables, for that role" in str(owner.value)
    assert f"enable {MIGRATOR}" not in str(owner.value)
    row_security.enable(_as(MIGRATOR, url), SERVICE)
    _prepare(url)


@_POSTGRESQL
def test_without_the_switch_whoever_is_bound_works_all_the_same(url: str) -> None:
    """Each connection asks whether policies bind it, so nothing is seen as missing that is there."""
    _prepare(url, row_security=False)
    for user in (SERVICE, MIGRATOR):
        database = Database.open(_as(user, url))
        id = made(database)
        with database.unit_of_work() as uow:
            assert uow.users.get(id, id)["id"] == id
            assert uow.settings.get("-", id)["owner_id"] == id
        database.close()


@_POSTGRESQL
def test_switched_off_it_is_gone(url: str) -> None:
    """Without row security the service's role goes on, and the switch refuses to start."""
    owner = _as(MIGRATOR, url)
    row_security.disable(owner)
    assert row_security.status(url) == row_security.Walls(None, [])
    _prepare(url, row_security=False)
    with pytest.raises(MigrationError, match="row security is not on for"):
        _prepare(url)
    row_security.enable(owner, SERVICE)
    row_security.enable(owner, SERVICE)  # as often as one likes
    _prepare(url)


@_POSTGRESQL
def test_policies_follow_a_migration(url: str, later_revisions: pathlib.Path) -> None:
    """An upgrade keeps the walls up; a downgrade leaves nothing open, until they are put up anew."""
    owner = _as(MIGRATOR, url)
    database = Database.open(url)
    id = made(database)
    assert migrate.upgrade(owner, migrations=later_revisions)
    assert row_security.status(url) == row_security.Walls(SERVICE, [])
    with database.unit_of_work() as uow:
        assert uow.users.get(id, id)["id"] == id
    migrate.downgrade(owner, migrate.head(), migrations=later_revisions)
    with database.unit_of_work() as uow:
        assert uow.users.find_by_email("admin@localhost") is None
        assert not uow.users.any()
    row_security.enable(owner, SERVICE)
    with database.unit_of_work() as uow:
        assert uow.users.get(id, id)["id"] == id
    database.close()


@_POSTGRESQL
def test_the_service_itself_migrates_nothing(url: str) -> None:
    """With the switch on, a schema that is behind is refused with the command, and not tried."""
    migrate.downgrade(_as(MIGRATOR, url), "-1")
    with pytest.raises(MigrationError, match="run 'morag-meta db upgrade'"):
        _prepare(url)


@_POSTGRESQL
def test_a_role_must_exist(url: str) -> None:
    """A name that is no role is told, and changes nothing."""
    with pytest.raises(MigrationError, match="there is no role 'nobody'"):
        row_security.enable(_as(MIGRATOR, url), "nobody")
    assert row_security.status(url) == row_security.Walls(SERVICE, [])


@_POSTGRESQL
def test_the_service_cannot_switch_it(url: str) -> None:
    """Neither on nor off: the role owns nothing, and is told who does."""
    told = f"'{SERVICE}' does not own the tables, '{MIGRATOR}' does: run it as the role that owns the tables"
    with pytest.raises(MigrationError, match=told):
        row_security.disable(url)
    with pytest.raises(MigrationError, match=told):
        row_security.enable(url, SERVICE)
    assert row_security.status(url) == row_security.Walls(SERVICE, [])


def test_other_databases_have_none(tmp_path: pathlib.Path) -> None:
    """The switch with SQLite or MariaDB is refused, and so are the commands."""
    for url in (f"sqlite:///{tmp_path}/morag.db", "mariadb://u:p@127.0.0.1/d"):
        with pytest.raises(ConfigurationError, match="MORAG_ROW_SECURITY is true, and only PostgreSQL"):
            load(database_url=url, row_security=True)
        with pytest.raises(MigrationError, match="only PostgreSQL has row security"):
            row_security.status(url)
