"""PostgreSQL with row security on: databases that a migration role made, and the service's role uses.

With ``MORAG_TEST_ROW_SECURITY=true`` the tests run on these. How tests get past the policies stands in
``tests/past_walls.py``.
"""

from __future__ import annotations

import os
from typing import Final

import sqlalchemy as sa

from morag_meta.db import migrate, row_security
from morag_meta.db.policies import OWNERS
from tests.backends.postgresql import PostgresqlServer

IS_ON: Final = os.environ.get("MORAG_TEST_ROW_SECURITY", "false").lower() == "true"
"""Whether the tests' PostgreSQL has row security on."""

MIGRATOR: Final = "morag_migrator"
SERVICE: Final = "morag_service"
TESTS: Final = "morag_tests"
"""What tests become in a unit of work, to read and write past the stores."""


class Walls:
    """What makes the databases of one PostgreSQL, each migrated and walled before the service sees it."""

    def __init__(self, server: PostgresqlServer) -> None:
        self.server = server
        self._template = ""

    def new_url(self) -> str:
        """Create a migrated database with row security, and return the URL of the service's role."""
        if not self._template:
            self._template = self._make_template()
        return self.server.create_database(self._template, owner=MIGRATOR, user=SERVICE)

    def new_empty_url(self) -> str:
        """Create an empty database, and return the URL of the role that may migrate it."""
        if not self._template:
            self._template = self._make_template()
        return self.server.create_database(owner=MIGRATOR, user=MIGRATOR)

    def _make_template(self) -> str:
        for role, kind in ((MIGRATOR, "LOGIN"), (SERVICE, "LOGIN NOINHERIT"), (TESTS, "NOLOGIN")):
            self.server.create_role(role, kind)
        self.server.execute(f"GRANT {TESTS} TO {SERVICE}")
        url = self.server.create_database(owner=MIGRATOR, user=MIGRATOR)
        migrate.upgrade(url)
        row_security.enable(url, SERVICE)
        with administrator(sa.make_url(url)).connect() as connection:
            connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {TESTS}")
            for table in OWNERS:
                connection.exec_driver_sql(f"CREATE POLICY tests ON {table} TO {TESTS} USING (true)")
        return url.rpartition("/")[2]


def is_walled(url: str | sa.URL) -> bool:
    """Whether a URL is that of the service's role on a walled database."""
    return sa.make_url(url).username == SERVICE


def settings_of(url: str) -> dict[str, str]:
    """Give the settings, without prefix, that a server of a database needs for row security."""
    return {"ROW_SECURITY": "true"} if is_walled(url) else {}


def administrator(url: sa.URL) -> sa.Engine:
    """Give an engine of the administrator, whom no policy binds, for the database of a URL."""
    whole = url.set(drivername="postgresql+psycopg2", username=PostgresqlServer.user)
    return sa.create_engine(whole, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
