"""Row security of PostgreSQL: what each reach opens of a database with a row in every table, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2 import errors

from morag_meta.db.database import Database
from morag_meta.db.policies import OPENED, OWNERS, SHARED
from morag_meta.db.reach import Path
from morag_meta.db.schema import api_keys, documents, metadata, servers
from morag_meta.errors import NotFound
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.backends.postgresql import PostgresqlServer
from tests.backends.proxy import Proxy
from tests.backends.walled import Walls, administrator
from tests.db.rows import DOCUMENT, FRIEND, OTHER, OWNER, SERVER, fill
from tests.house.owners import Watch

pytestmark = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "postgresql"], indirect=True, scope="session"
)

_STRANGER = "0195a000-0000-7000-8000-0000000000ff"
_LET_THROUGH = (errors.UniqueViolation, errors.ForeignKeyViolation, errors.CheckViolation)
"""What refuses a change only after row security has let it pass."""


@pytest.fixture(scope="module")
def walls(backend: Backend) -> Walls:
    """Make databases with row security on the run's PostgreSQL, whether or not the run has it on."""
    assert isinstance(backend, ServerDatabases)
    assert isinstance(backend.server, PostgresqlServer)
    return Walls(backend.server)


@pytest.fixture(scope="module")
def url(walls: Walls, backend: Backend) -> Iterator[str]:
    """Give the service's URL of a database in which OWNER has a row in each table, shared with FRIEND."""
    made = walls.new_url()
    engine = administrator(sa.make_url(made))
    fill(engine.url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        turn = f"INSERT INTO job_turns VALUES ('{OWNER}', 2, now()) ON CONFLICT DO NOTHING"
        connection.exec_driver_sql(turn)
        for table in ("jobs", "job_events"):
            name = "database_id"
            connection.exec_driver_sql(f"UPDATE {table} SET {name} = (SELECT id FROM databases)")
    yield made
    backend.drop(made)


class Session:
    """A connection of the service's role, past the service: each attempt in a transaction undone after it."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)

    def does(self, reach: str, statement: str) -> int | None:
        """Give how many rows a statement met under a reach; None where row security refused it."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SET LOCAL morag.reach = %s", (reach,))
                cursor.execute(statement)
                return int(cursor.rowcount)
        except _LET_THROUGH:
            return 1
        except errors.InsufficientPrivilege:
            return None
        finally:
            self._connection.rollback()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


@pytest.fixture(scope="module")
def session(url: str) -> Iterator[Session]:
    """Connect as the service does."""
    with closing(Session(url)) as opened:
        yield opened


def _attempts(table: str) -> dict[str, str]:
    """Write a statement of each command that names no owner, which a store would be wrong to run."""
    column = OWNERS[table]
    return {
        "SELECT": f"SELECT 1 FROM {table}",
        "LOCK": f"SELECT 1 FROM {table} FOR UPDATE",
        "UPDATE": f"UPDATE {table} SET {column} = {column}",
        "DELETE": f"DELETE FROM {table}",
    }


def _met(session: Session, reach: str, table: str) -> set[str]:
    """Name the commands that met a row of a table under a reach."""
    return {command for command, statement in _attempts(table).items() if session.does(reach, statement)}


def _opened(commands: tuple[str, ...]) -> set[str]:
    """What commands that are opened allow: what may be changed may be locked."""
    return {*commands, *(("LOCK",) if "UPDATE" in commands else ())} - {"INSERT"}


@pytest.mark.parametrize("table", OWNERS)
def test_who_says_nothing_meets_nothing(session: Session, table: str) -> None:
    """A statement without a reach sees, locks, changes and removes no row of any owner."""
    assert _met(session, "", table) == set()


@pytest.mark.parametrize("table", OWNERS)
def test_an_owner_meets_own_rows_alone(session: Session, table: str) -> None:
    """A statement that forgot its condition meets the owner's rows under the owner's reach, nobody's else."""
    assert _met(session, f"owner:{OWNER}", table) == {"SELECT", "LOCK", "UPDATE", "DELETE"}
    assert _met(session, f"owner:{_STRANGER}", table) == set()


@pytest.mark.parametrize("table", OWNERS)
def test_nobody_gives_or_takes_rows(session: Session, table: str) -> None:
    """A row cannot be written for another owner, nor be given to one."""
    column = OWNERS[table]
    add = f"INSERT INTO {table} ({column}) VALUES ('{OWNER}')"
    assert session.does(f"owner:{_STRANGER}", add) is None
    assert session.does(f"owner:{OWNER}", f"UPDATE {table} SET {column} = '{_STRANGER}'") is None


@pytest.mark.parametrize("table", OWNERS)
@pytest.mark.parametrize("path", Path)
def test_a_path_meets_what_it_opens(session: Session, path: Path, table: str) -> None:
    """Each path meets rows of the tables that it opens, by the commands that it opens; no others."""
    commands = OPENED[path].get(table, ())
    assert _met(session, f"path:{path}", table) == _opened(commands)
    if "INSERT" not in commands:
        add = f"INSERT INTO {table} ({OWNERS[table]}) VALUES ('{_STRANGER}')"
        assert session.does(f"path:{path}", add) is None


@pytest.mark.parametrize("table", OWNERS)
def test_a_grantee_meets_what_is_shared(session: Session, table: str) -> None:
    """A grantee's reach meets rows of the shared database, to see and to lock, and nobody else's does."""
    commands = SHARED[table][1] if table in SHARED else ()
    assert _met(session, f"grantee:{FRIEND}", table) == _opened(commands)
    assert _met(session, f"grantee:{OWNER}", table) == set()
    add = f"INSERT INTO {table} ({OWNERS[table]}) VALUES ('{OWNER}')"
    assert session.does(f"grantee:{FRIEND}", add) is None


@pytest.mark.parametrize("reach", ["owner", "owner:", "path:", "path:nothing", "grantee:", OWNER, "%", "-"])
def test_an_odd_reach_meets_nothing(session: Session, reach: str) -> None:
    """What is no reach opens nothing, in any table."""
    assert {table for table in OWNERS if _met(session, reach, table)} == set()


def test_the_service_may_not_do_what_it_does_not(session: Session) -> None:
    """Past policies, the role can neither change the audit nor the schema, nor its policies."""
    for statement in (
        "UPDATE audit_events SET event = 'x'",
        "TRUNCATE documents",
        "DROP POLICY morag_owner ON documents",
        "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE mine (id integer)",
        "UPDATE alembic_version SET version_num = '0001'",
    ):
        assert session.does(f"owner:{OWNER}", statement) is None, statement


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Open the database as the service does."""
    opened = Database.open(url)
    yield opened
    opened.close()


_BY_ID = servers.c.id == sa.bindparam("id")
_PLANTED: dict[str, tuple[str, sa.Executable]] = {
    "of a table": ("_GET", sa.select(servers).where(_BY_ID, sa.bindparam("owner_id") != "")),
    "with a condition too many": (
        "_GET",
        sa.select(servers).where(sa.or_(_BY_ID, servers.c.owner_id == sa.bindparam("owner_id"))),
    ),
}


@pytest.fixture
def planted(statements_watched: Watch) -> Iterator[None]:
    """Let the house's own watch over statements forget what a test planted, which it sees as well."""
    before = len(statements_watched.faults)
    yield
    del statements_watched.faults[before:]


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("listened", [False, True])
@pytest.mark.parametrize("what", _PLANTED)
def test_a_planted_statement_of_a_store_finds_nobody_elses_row(
    database: Database, monkeypatch: pytest.MonkeyPatch, what: str, listened: bool
) -> None:
    """A store's statement that lost its owner's condition finds the owner's row, and no stranger any."""
    monkeypatch.setattr(f"morag_meta.servers.store.{_PLANTED[what][0]}", _PLANTED[what][1])
    if listened:
        sa.event.listen(database.engine, "before_cursor_execute", lambda *_: None)
    with database.unit_of_work() as uow:
        assert uow.servers.get(OWNER, SERVER)["id"] == SERVER
        assert uow.servers.get("-", SERVER)["id"] == SERVER
        with pytest.raises(NotFound):
            uow.servers.get(_STRANGER, SERVER)
        assert uow.servers.get(OWNER, SERVER)["id"] == SERVER


@pytest.mark.usefixtures("planted")
def test_a_planted_change_of_a_store_changes_nobody_elses_row(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change and a removal without an owner's condition meet no row of another owner."""
    monkeypatch.setattr("morag_meta.api_keys.store._DELETE_ALL", sa.delete(api_keys))
    monkeypatch.setattr(
        "morag_meta.documents.store._DETACH", sa.update(documents).values(update_time=sa.bindparam("now"))
    )
    with database.unit_of_work() as uow:
        assert uow.api_keys.delete_all(_STRANGER) == 0
        assert uow.run(sa.update(documents).values(name="mine"), owner_id=_STRANGER) == 0
        assert uow.run(sa.delete(documents), owner_id=_STRANGER) == 0
        assert uow.documents.get(OWNER, DOCUMENT)["name"] != "mine"


def test_what_was_told_ends_with_the_transaction(database: Database) -> None:
    """Neither one statement nor a transaction leaves its reach on a connection of the pool."""

    def told(connection: sa.Connection) -> Any:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute("SELECT current_setting('morag.reach', true)")
            ((value,),) = cursor.fetchall()
            return value or ""

    with database.unit_of_work() as uow:
        connection = uow._connection  # noqa: SLF001 - as the service's role, which tests are not
        uow.servers.get(OWNER, SERVER)
        assert told(connection) == f"owner:{OWNER}"
        uow.users.any()
        assert told(connection) == "path:accounts"
        uow.epoch.current()
        assert told(connection) == ""
        uow.commit()
        assert told(connection) == ""
        uow.servers.get(OWNER, SERVER)  # outside of a transaction
        assert told(connection) == ""


@pytest.mark.parametrize("listened", [False, True])
def test_an_odd_owner_is_told_as_it_is(database: Database, listened: bool) -> None:
    """No character of an id ends the text that tells it, nor is read by the driver."""
    if listened:
        sa.event.listen(database.engine, "before_cursor_execute", lambda *_: None)
    for odd in ("it's", "\\", "\\' OR true; --", "100 %s %(id)s %%", "'; RESET morag.reach; --", "\u00e9\n"):
        with database.unit_of_work() as uow:
            with pytest.raises(NotFound):
                uow.servers.get(odd, SERVER)
            with closing(uow._connection.connection.cursor()) as cursor:  # noqa: SLF001 - as the service
                cursor.execute("SELECT current_setting('morag.reach')")
                assert cursor.fetchall() == [(f"owner:{odd}",)]


def test_a_reach_takes_no_trip_of_its_own(url: str) -> None:
    """What tells the reach travels with its statement, also where SQLAlchemy runs it, and in one piece."""
    some = sa.select(servers.c.id).where(
        servers.c.owner_id == sa.bindparam("owner_id"),
        servers.c.id.in_(sa.bindparam("some", expanding=True)),
    )
    with Proxy(url) as proxy, closing(Database.open(proxy.url)) as opened, opened.unit_of_work() as uow:
        uow.servers.get(OWNER, SERVER)
        proxy.sent.clear()
        assert [row["id"] for row in uow.all(some, owner_id=OWNER, some=[SERVER, OTHER])] == [SERVER]
        assert uow.servers.get("-", SERVER)["id"] == SERVER
        assert uow.all(some, owner_id=_STRANGER, some=[SERVER]) == []
        assert len(proxy.sent) == 3


def test_every_table_has_a_row(session: Session) -> None:
    """What is met above is not met for want of rows."""
    assert metadata.tables.keys() >= OWNERS.keys()
    for table in OWNERS:
        assert session.does("path:admin", f"SELECT 1 FROM {table}"), table
