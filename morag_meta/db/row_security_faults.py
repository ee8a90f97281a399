"""What is wrong with row security of a PostgreSQL database: read from its catalog, and told a line each.

It changes nothing: switching row security stands in ``row_security.py``, and what policies are in
``policies.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from morag_meta.db.migration_lock import MigrationError
from morag_meta.db.policies import OWNERS, PRIVILEGES, policies

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
_OWNED_BY_OTHERS: Final = sa.text("""
    SELECT DISTINCT r.rolname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_roles AS r ON r.oid = c.relowner
    WHERE n.nspname = current_schema() AND c.relname = ANY(:tables)
      AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
""").bindparams(sa.bindparam("tables", type_=ARRAY(sa.String)))
_MEMBER: Final = sa.text("SELECT pg_has_role(:role, :of, 'USAGE')")
# Null, and so nothing, where the table is missing.
_STRANGER: Final = sa.text("SELECT NOT has_table_privilege(to_regclass('alembic_version')::oid, 'SELECT')")


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


def other_owners(connection: sa.Connection) -> list[str]:
    """Give the roles that own tables of this service and may not be had by the current one."""
    return list(connection.execute(_OWNED_BY_OTHERS, {"tables": list(PRIVILEGES)}).scalars())


def is_stranger(connection: sa.Connection) -> bool:
    """Say whether there is a schema that the current role may not even look at."""
    return bool(connection.scalar(_STRANGER))


def obstacles(connection: sa.Connection, role: str) -> Iterator[str]:
    """Say what keeps a role from serving behind row security, whoever it is."""
    service = service_role(connection)
    free = list(unbound(connection, role))
    if free:
        other = "another role, which owns nothing" if service in (None, role) else f"{service!r}"
        yield from (f"{why}: start the service as {other}" for why in free)
        if service is None:
            yield f"row security is off: {_mend('ROLE')}, for that role"
    elif service is None or not connection.scalar(_MEMBER, {"role": role, "of": service}):
        yield from not_for(role, service)
        service = None
    if service is not None:
        yield from _holes(connection, service)


def not_for(role: str, service: str | None) -> Iterator[str]:
    """Say that row security is on for another role than this, or for none."""
    other = "" if service is None else f", but for {service!r}: start the service as that, or"
    yield f"row security is not on for the role {role!r}{other or ':'} {_mend(role)}"


def _mend(role: str) -> str:
    return f"run 'morag-meta db row-security enable {role}' as the role that owns the tables"


def unbound(connection: sa.Connection, role: str) -> Iterator[str]:
    """Say why policies would not bind a role."""
    free = connection.scalar(_FREE, {"role": role})
    if free is not None:
        yield (
            f"no policy binds the role {role!r}, which is or may become {free!r}, a superuser or one with "
            "BYPASSRLS"
        )
        return  # who may become a superuser may become the owner as well
    owned = [name for name, _, owns in _tables(connection, role) if owns]
    if owned:
        yield f"no policy binds the role {role!r}, which is or may become the owner of {', '.join(owned)}"


def faults(connection: sa.Connection, service: str) -> Iterator[str]:
    """Say what keeps row security from holding for the service's role as this version means it."""
    for why in unbound(connection, service):
        yield f"{why}: give the service a role of its own"
    yield from _holes(connection, service)


def _holes(connection: sa.Connection, service: str) -> Iterator[str]:
    """Say on which tables row security is off, and where policies are not this version's."""
    is_on = {name for name, on, _ in _tables(connection, service) if on}
    off = sorted(OWNERS.keys() - is_on)
    if off:
        yield f"row security is not on for {', '.join(off)}: {_mend(service)}"
    given = {"role": service, "tables": list(OWNERS)}
    found = {(table, name): told for table, name, told in connection.execute(_POLICIES, given)}
    wanted = {(policy.table, policy.name): policy.digest for policy in policies()}
    wrong = {where for where, digest in wanted.items() if found.get(where) != digest}
    wrong |= found.keys() - wanted.keys()
    if wrong:
        tables = ", ".join(sorted({table for table, _ in wrong}))
        yield (
            f"policies are missing, of another version or not the service's own on {tables}: {_mend(service)}"
        )


def closed(connection: sa.Connection) -> Iterator[str]:
    """Say which tables nobody but their owner sees, as row security is on for them without policies."""
    shut = [name for name, on, _ in _tables(connection, current_role(connection)) if on]
    if shut:
        yield f"row security is on without the service's policies for {', '.join(shut)}: {_mend('ROLE')}"


def current_role(connection: sa.Connection) -> str:
    """Name the role of a connection."""
    return str(connection.scalar(sa.text("SELECT current_user")))


def _tables(connection: sa.Connection, role: str) -> list[tuple[str, bool, bool]]:
    """Give each table with owners, whether row security is on, and whether the role may be its owner."""
    rows = connection.execute(_TABLES, {"role": role, "tables": list(OWNERS)})
    return sorted((name, on, owns) for name, on, owns in rows)
