"""The SQL of deploy/ for row security, run by psql under a service that goes on all the while."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from morag_meta.config.loading import load
from morag_meta.db import migrate, row_security
from morag_meta.db.database import Database
from morag_meta.db.migrate import MigrationError
from morag_meta.db.policies import PRIVILEGES
from morag_meta.server.preparation import prepare
from tests.backends.databases import chosen_kinds
from tests.backends.postgresql import PostgresqlServer, find_binaries
from tests.backends.walled import MIGRATOR, SERVICE, administrator
from tests.db.accounts import made
from tests.service import CREDENTIAL_KEYS, SECRET_KEY

_DEPLOY: Final = Path(__file__).parents[2] / "deploy"
_BEFORE: Final = "before"  # the role that did everything until now
_PASSWORD: Final = "a password of the roles"
_POSTGRESQL = pytest.mark.parametrize("kind", [kind for kind in chosen_kinds() if kind == "postgresql"])


@pytest.fixture
def server(kind: str) -> Iterator[PostgresqlServer]:
    """Give a server of its own, as roles are the whole server's."""
    with PostgresqlServer() as started:
        started.create_role(_BEFORE, "LOGIN")
        yield started


def _psql(url: str, file: str, answers: str = "") -> str:
    """Run a file as administrator, and give what was told; ``answers`` are read where a password is asked."""
    at = sa.make_url(url)
    where = [f"--host={at.host}", f"--port={at.port}", f"--username={PostgresqlServer.user}", "--no-psqlrc"]
    done = subprocess.run(
        [str(find_binaries() / "psql"), *where, f"--dbname={at.database}", f"--file={_DEPLOY / file}"],
        input=answers,
        capture_output=True,
        text=True,
        env=os.environ | {"PGPASSWORD": str(at.password)},
        start_new_session=True,  # without a terminal it asks on stdin
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _as(user: str, url: str) -> str:
    password = sa.make_url(url).password if user == _BEFORE else _PASSWORD
    return sa.make_url(url).set(username=user, password=password).render_as_string(hide_password=False)


def _change(url: str, statement: str) -> None:
    with administrator(sa.make_url(url)).connect() as connection:
        connection.exec_driver_sql(statement)


def _finds(database: Database, id: str) -> bool:
    with database.unit_of_work() as uow:
        return any(row["id"] == id for row in [uow.users.get(id, id)])


@_POSTGRESQL
def test_a_service_goes_on_until_it_has_moved(server: PostgresqlServer) -> None:
    """Each step of the docs leaves the role before working, on old connections and new, until the last."""
    url = server.create_database(owner=_BEFORE, user=_BEFORE)
    migrate.upgrade(url)
    _change(url, "CREATE TABLE invoices (id int)")
    _change(url, f"ALTER TABLE invoices OWNER TO {_BEFORE}")
    old = Database.open(url)
    id = made(old)

    def goes_on() -> None:
        new = Database.open(url)
        assert _finds(old, id)
        assert _finds(new, made(new))
        new.close()

    _psql(url, "roles.sql", f"{_PASSWORD}\n" * 4)
    goes_on()
    _psql(url, "tables-owner.sql")
    goes_on()
    assert migrate.upgrade(_as(MIGRATOR, url)) == []
    row_security.enable(_as(MIGRATOR, url), SERVICE)
    goes_on()
    prepare(
        load(
            database_url=_as(SERVICE, url),
            secret_key=SECRET_KEY,
            credential_keys=CREDENTIAL_KEYS,
            row_security=True,
        )
    )
    service = Database.open(_as(SERVICE, url))
    assert _finds(service, id)
    service.close()
    owner = sa.text("SELECT tableowner FROM pg_tables WHERE tablename = 'invoices'")
    with administrator(sa.make_url(url)).connect() as connection:
        assert connection.scalar(owner) == _BEFORE
    _change(url, f"REVOKE {MIGRATOR} FROM {_BEFORE}")
    with pytest.raises(MigrationError, match="does not own the tables"):
        row_security.disable(url)
    old.close()


@_POSTGRESQL
def test_the_files_run_again_and_in_another_database(server: PostgresqlServer) -> None:
    """The second time nothing is asked, and nobody is made a member of anything."""
    first, second = (server.create_database(owner=_BEFORE, user=_BEFORE) for _ in range(2))
    assert "password" in _psql(first, "roles.sql", f"{_PASSWORD}\n" * 4)
    for url in (first, second):
        assert "password" not in _psql(url, "roles.sql")
        migrate.upgrade(_as(MIGRATOR, url))
        row_security.enable(_as(MIGRATOR, url), SERVICE)
        _psql(url, "tables-owner.sql")
    assert server.execute("SELECT FROM pg_auth_members WHERE member = 'before'::regrole") == []


def test_the_tables_that_change_hands_are_those_of_the_schema() -> None:
    """Each table of this version stands in the file, and nobody else's."""
    text = (_DEPLOY / "tables-owner.sql").read_text()
    listed = re.search(r"relname IN \(([^)]*)\)", text)
    assert listed is not None
    assert sorted(re.findall(r"'(\w+)'", listed[1])) == sorted(PRIVILEGES)
