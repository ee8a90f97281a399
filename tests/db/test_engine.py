"""How connections are opened: what of the URL holds beside what the service itself sets."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
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
