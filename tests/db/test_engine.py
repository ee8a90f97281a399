"""How connections are opened: what of the URL holds beside what the service itself sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from morag_meta.db import engine, migrate
from morag_meta.db.database import Database
from morag_meta.db.url import normalize
from tests.backends.databases import chosen_kinds
from tests.db.accounts import made

_POSTGRESQL = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "postgresql"], indirect=True, scope="session"
)


@pytest.fixture
def other_schema(empty_url: str) -> str:
    """Give a URL whose options name a schema that is not the usual one, and a limit of the user's own."""
    engine = sa.create_engine(normalize(empty_url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA other")
    engine.dispose()
    return f"{empty_url}?options=-csearch_path%3Dother%20-cwork_mem%3D5MB"


@_POSTGRESQL
def test_the_options_of_a_postgresql_url_hold(other_schema: str) -> None:
    """The service works in the schema that the URL names, where the migrations made the tables."""
    migrate.upgrade(other_schema)
    database = Database.open(other_schema)
    try:
        made(database)
        with database.unit_of_work() as uow:
            names = ("search_path", "work_mem", "statement_timeout", "lock_timeout", "TimeZone")
            shown = [uow.connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        assert shown == ["other", "5MB", "10s", "5s", "UTC"]
    finally:
        database.close()


class _MySql:
    """The driver's connection to a MySQL server, as far as what is set on it."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def get_server_info(self) -> str:
        return "8.0.36"

    @contextlib.contextmanager
    def cursor(self) -> Iterator[_MySql]:
        yield self

    def execute(self, statement: str) -> None:
        self.ran.append(statement)


def test_mysql_is_asked_for_nothing_that_mariadb_alone_knows() -> None:
    """Neither the limit of every statement nor that of silence is set there, which would be refused."""
    mysql = _MySql()
    engine._prepare_mariadb(10.0, mysql, None)  # noqa: SLF001 - there is no such server here
    said = " ".join(mysql.ran)
    assert "max_execution_time = 10000" in said
    assert "max_statement_time" not in said
    assert "idle_transaction_timeout" not in said
