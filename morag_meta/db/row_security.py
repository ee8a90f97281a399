"""Row security of a PostgreSQL database: switched on and off by the migration role, and looked at.

The migration role owns the tables and is not bound by policies, so migrations and backups see every row;
the service's role owns nothing and is bound by all of them. What they are stands in ``policies.py``, and what
can be wrong with them in ``row_security_faults.py``.

Every function raises UrlError for a URL that cannot be used, and MigrationError for a database that cannot
be reached or is not PostgreSQL.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from morag_meta.db.migration_lock import LOCK_WAIT_SECONDS, MigrationError, migrating, reading
from morag_meta.db.policies import OWNERS, PRIVILEGES, functions, policies
from morag_meta.db.row_security_faults import (
    closed,
    current_role,
    faults,
    is_stranger,
    not_for,
    obstacles,
    other_owners,
    service_role,
    unbound,
)
from morag_meta.db.url import dialect_name, masked

_OURS: Final = "morag\\_%"
_MINE: Final = sa.text("""
    SELECT c.relname, p.polname FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND p.polname LIKE :ours
""")


class Standing(enum.StrEnum):
    """How row security stands, in a word."""

    OFF = "OFF"
    ON = "ON"
    FAULTY = "FAULTY"  # neither: something is wrong


@dataclass(frozen=True, slots=True)
class Walls:
    """How row security stands: the role that policies are for, if any, and what is wrong, a line each."""

    role: str | None
    problems: list[str]

    @property
    def state(self) -> Standing:
        """Whether it is on, off, or wrong."""
        if self.problems:
            return Standing.FAULTY
        return Standing.OFF if self.role is None else Standing.ON


def enable(url: str | sa.URL, role: str, *, wait: float = LOCK_WAIT_SECONDS) -> None:
    """Switch row security on for a role, or bring its policies and privileges up to date, in one transaction.

    For the migration role, on a schema that is current. Whoever else is connected as the service's role is
    to connect anew.

    Raises:
        MigrationError: there is no such role, policies would not bind it, or the tables are another's.
        MigrationLocked: another process migrated for longer than ``wait``.
    """
    require_owner(url)
    with migrating(url, wait) as connection:
        if not connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :r"), {"r": role}):
            raise MigrationError(f"{masked(url)}: there is no role {role!r}")
        _refuse(url, [f"{why}: give the service a role of its own" for why in unbound(connection, role)])
        close(connection)
        _open(connection, role)


def disable(url: str | sa.URL, *, wait: float = LOCK_WAIT_SECONDS) -> None:
    """Switch row security off; the service's role keeps its privileges, and so goes on.

    Raises:
        MigrationError: the tables are another's.
        MigrationLocked: another process migrated for longer than ``wait``.
    """
    require_owner(url)
    with migrating(url, wait) as connection:
        close(connection)
        for table in _present(connection):
            connection.exec_driver_sql(f"ALTER TABLE {_quoted(connection, table)} DISABLE ROW LEVEL SECURITY")
        for signature, _ in functions(_schema(connection)):
            connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {signature}")


def status(url: str | sa.URL) -> Walls:
    """Say how row security stands; for whoever may connect."""
    _refuse_others(url)
    with reading(url) as connection:
        role = service_role(connection)
        return Walls(role, list(closed(connection) if role is None else faults(connection, role)))


def role_of(url: str | sa.URL) -> str | None:
    """Give the role that row security of a database is on for; None where it is off, or not PostgreSQL."""
    if dialect_name(url) != "postgresql":
        return None
    with reading(url) as connection:
        return service_role(connection)


def renew(url: str | sa.URL) -> bool:
    """Bring row security up to date where it is on and is not as this version means it; say whether it was.

    For the migration role, on a schema that is current.

    Raises:
        MigrationError: as ``enable``.
    """
    found = status(url) if dialect_name(url) == "postgresql" else Walls(None, [])
    if found.role is None or not found.problems:
        return False
    enable(url, found.role)
    return True


def require(url: str | sa.URL) -> None:
    """Refuse a role of one's own that row security does not bind as this version means it to.

    Raises:
        MigrationError: says each thing that is wrong, and what mends it.
    """
    _refuse_others(url)
    with reading(url) as connection:
        _refuse(url, list(obstacles(connection, current_role(connection))))


def require_privileges(url: str | sa.URL) -> None:
    """Refuse a role of one's own to which nobody granted a look at the schema that is there.

    Raises:
        MigrationError: says the command that grants it.
    """
    _refuse_others(url)
    with reading(url) as connection:
        if is_stranger(connection):
            _refuse(url, list(not_for(current_role(connection), service_role(connection))))


def require_owner(url: str | sa.URL) -> None:
    """Refuse a role of one's own that may not change the tables that are there.

    Raises:
        MigrationError: names the roles that own them.
    """
    _refuse_others(url)
    with reading(url) as connection:
        owners = other_owners(connection)
        role = current_role(connection)
    if owners:
        raise MigrationError(
            f"{masked(url)}: {role!r} does not own the tables, {', '.join(map(repr, owners))} does: "
            "run it as the role that owns the tables"
        )


def close(connection: sa.Connection) -> str | None:
    """Drop every policy within a migration, which leaves nothing open, and give the role they were for."""
    role = service_role(connection)
    if role is None:
        return None
    for table, name in connection.execute(_MINE, {"ours": _OURS}).all():
        connection.exec_driver_sql(f"DROP POLICY {_quoted(connection, name)} ON {_quoted(connection, table)}")
    return role


def reopen(connection: sa.Connection, role: str | None) -> None:
    """Make the policies of a migrated schema for a role that ``close`` gave, if any."""
    if role is not None:
        _open(connection, role)


def _open(connection: sa.Connection, role: str) -> None:
    schema, service = _schema(connection), _quoted(connection, role)
    run = connection.exec_driver_sql
    run(f"GRANT USAGE ON SCHEMA {schema} TO {service}")
    for table, privileges in PRIVILEGES.items():
        run(f"REVOKE ALL ON {_quoted(connection, table)} FROM {service}")
        run(f"GRANT {privileges} ON {_quoted(connection, table)} TO {service}")
    for signature, statement in functions(schema):
        run(statement)
        run(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        run(f"GRANT EXECUTE ON FUNCTION {signature} TO {service}")
    for table in OWNERS:
        run(f"ALTER TABLE {_quoted(connection, table)} ENABLE ROW LEVEL SECURITY")
    for policy in policies():
        table = _quoted(connection, policy.table)
        run(policy.create(table, service))
        run(f"COMMENT ON POLICY {policy.name} ON {table} IS '{policy.digest}'")


def _refuse(url: str | sa.URL, problems: list[str]) -> None:
    if problems:
        raise MigrationError("\n".join(f"{masked(url)}: {problem}" for problem in problems))


def _present(connection: sa.Connection) -> list[str]:
    return [name for name in sa.inspect(connection).get_table_names() if name in OWNERS]


def _schema(connection: sa.Connection) -> str:
    return _quoted(connection, str(connection.scalar(sa.text("SELECT current_schema()"))))


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _refuse_others(url: str | sa.URL) -> None:
    if dialect_name(url) != "postgresql":
        raise MigrationError(f"{masked(url)}: only PostgreSQL has row security")
