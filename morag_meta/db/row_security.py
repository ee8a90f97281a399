"""Row security of a PostgreSQL database: switched on and off by the migration role, and looked at.

The migration role owns the tables and is not bound by policies, so migrations and backups see every row;
the service's role owns nothing and is bound by all of them. What they are stands in ``policies.py``.

Every function raises UrlError for a URL that cannot be used, and MigrationError for a database that cannot
be reached or is not PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from morag_meta.db.migration_lock import LOCK_WAIT_SECONDS, MigrationError, migrating, reading
from morag_meta.db.policies import OWNERS, PRIVILEGES, functions, policies
from morag_meta.db.url import dialect_name, masked

_OURS: Final = "morag\\_%"
_TABLES: Final = sa.text("""
    SELECT c.relname, c.relrowsecurity, pg_has_role(:role, c.relowner, 'MEMBER')
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relname = ANY(:tables)
""").bindparams(sa.bindparam("tables", type_=ARRAY(sa.String)))
_POLICIES: Final = sa.text("""
    SELECT c.relname, p.polname, obj_description(p.oid, 'pg_policy')
    FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relname = ANY(:tables) AND EXISTS (
      SELECT FROM unnest(p.polroles) AS r(role) WHERE r.role = 0 OR pg_has_role(:role, r.role, 'USAGE')
    )
""").bindparams(sa.bindparam("tables", type_=ARRAY(sa.String)))
_ROLES: Final = sa.text("""
    SELECT DISTINCT r.rolname FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_roles AS r ON r.oid = ANY(p.polroles)
    WHERE n.nspname = current_schema() AND p.polname = 'morag_owner' ORDER BY 1
""")
_FREE: Final = sa.text("""
    SELECT r.rolname FROM pg_roles AS r
    WHERE (r.rolsuper OR r.rolbypassrls) AND pg_has_role(:role, r.oid, 'MEMBER') ORDER BY 1 LIMIT 1
""")
_MINE: Final = sa.text("""
    SELECT c.relname, p.polname FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND p.polname LIKE :ours
""")


@dataclass(frozen=True, slots=True)
class Walls:
    """How row security stands: the service's role, None where it is off, and what is wrong, a line each."""

    role: str | None
    problems: list[str]


def enable(url: str | sa.URL, role: str, *, wait: float = LOCK_WAIT_SECONDS) -> None:
    """Switch row security on for a role, or bring its policies and privileges up to date, in one transaction.

    For the migration role, on a schema that is current. Whoever else is connected as the service's role is
    to connect anew.

    Raises:
        MigrationError: there is no such role, or policies would not bind it.
        MigrationLocked: another process migrated for longer than ``wait``.
    """
    _refuse_others(url)
    with migrating(url, wait) as connection:
        if not connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :r"), {"r": role}):
            raise MigrationError(f"{masked(url)}: there is no role {role!r}")
        problems = list(_unbound(connection, role))
        if problems:
            raise MigrationError("\n".join(f"{masked(url)}: {problem}" for problem in problems))
        close(connection)
        _open(connection, role)


def disable(url: str | sa.URL, *, wait: float = LOCK_WAIT_SECONDS) -> None:
    """Switch row security off; the service's role keeps its privileges, and so goes on.

    Raises:
        MigrationLocked: another process migrated for longer than ``wait``.
    """
    _refuse_others(url)
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
        return Walls(role, [] if role is None else list(_faults(connection, role)))


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
        MigrationError: says each thing that is wrong, and the command that mends it.
    """
    _refuse_others(url)
    with reading(url) as connection:
        role = str(connection.scalar(sa.text("SELECT current_user")))
        problems = list(_faults(connection, role))
    if problems:
        raise MigrationError("\n".join(f"{masked(url)}: {problem}" for problem in problems))


def service_role(connection: sa.Connection) -> str | None:
    """Give the role that policies are for; None where row security is off.

    Raises:
        MigrationError: they are for several.
    """
    if connection.dialect.name != "postgresql":
        return None
    roles = list(connection.execute(_ROLES).scalars())
    if len(roles) > 1:
        raise MigrationError(f"row security is on for several roles: {', '.join(roles)}")
    return roles[0] if roles else None


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


def _unbound(connection: sa.Connection, role: str) -> Iterator[str]:
    """Say why policies would not bind a role."""
    free = connection.scalar(_FREE, {"role": role})
    if free is not None:
        yield (
            f"no policy binds the role {role!r}, which is or may become {free!r}, a superuser or one with "
            "BYPASSRLS: give the service a role of its own"
        )
        return  # who may become a superuser may become the owner as well
    owned = [name for name, _, owns in _tables(connection, role) if owns]
    if owned:
        yield (
            f"no policy binds the role {role!r}, which is or may become the owner of {', '.join(owned)}: "
            "give the service a role of its own"
        )


def _faults(connection: sa.Connection, role: str) -> Iterator[str]:
    """Say what keeps row security from holding for a role as this version means it."""
    mend = f"run 'morag-meta db row-security enable {role}' as the migration role"
    yield from _unbound(connection, role)
    is_on = {name for name, on, _ in _tables(connection, role) if on}
    off = sorted(OWNERS.keys() - is_on)
    if off:
        yield f"row security is not on for {', '.join(off)}: {mend}"
        return
    given = {"role": role, "tables": list(OWNERS)}
    found = {(table, name): told for table, name, told in connection.execute(_POLICIES, given)}
    wanted = {(policy.table, policy.name): policy.digest for policy in policies()}
    wrong = {where for where, digest in wanted.items() if found.get(where) != digest}
    wrong |= found.keys() - wanted.keys()
    if wrong:
        tables = ", ".join(sorted({table for table, _ in wrong}))
        yield f"policies are missing, of another version or not the service's own on {tables}: {mend}"


def _tables(connection: sa.Connection, role: str) -> list[tuple[str, bool, bool]]:
    """Give each table with owners, whether row security is on, and whether the role may be its owner."""
    rows = connection.execute(_TABLES, {"role": role, "tables": list(OWNERS)})
    return sorted((name, on, owns) for name, on, owns in rows)


def _present(connection: sa.Connection) -> list[str]:
    return [name for name in sa.inspect(connection).get_table_names() if name in OWNERS]


def _schema(connection: sa.Connection) -> str:
    return _quoted(connection, str(connection.scalar(sa.text("SELECT current_schema()"))))


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _refuse_others(url: str | sa.URL) -> None:
    if dialect_name(url) != "postgresql":
        raise MigrationError(f"{masked(url)}: only PostgreSQL has row security")
