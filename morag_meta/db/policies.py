"""The policies of PostgreSQL's row security: which rows each reach opens, for which commands.

All of it follows from the tables of the schema and from what stands here, as text; running it is
``row_security.py``'s matter, and telling the reach ``reach.py``'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from morag_meta.db.reach import GRANTEE, OWNER, PATH, SETTING, Path
from morag_meta.db.schema import metadata

OWNERS: Final[Mapping[str, str]] = {
    "users": "id",
    **{name: "owner_id" for name, table in metadata.tables.items() if "owner_id" in table.c},
}
"""The tables whose rows belong to somebody, and the column that says to whom."""

_SWEPT: Final = ("SELECT", "DELETE")
OPENED: Final[Mapping[Path, Mapping[str, tuple[str, ...]]]] = {
    Path.ADMIN: {
        **dict.fromkeys(OWNERS, ("SELECT", "LOCK")),
        "jobs": ("SELECT", "UPDATE", "DELETE"),
        "job_events": ("SELECT", "LOCK", "DELETE"),
        "job_checkpoints": ("SELECT", "LOCK", "DELETE"),
    },
    Path.LOGIN: dict.fromkeys(("users", "sessions", "password_resets", "api_keys"), ("SELECT",)),
    Path.ACCOUNTS: {"users": ("SELECT", "INSERT")},
    Path.QUEUE: {"jobs": ("SELECT",), "job_turns": ("SELECT",)},
    Path.POLLER: {
        "job_events": ("SELECT", "UPDATE"),
        "job_floors": ("SELECT",),
        "jobs": ("SELECT",),
        "users": ("SELECT",),
    },
    Path.REAPER: {"jobs": ("SELECT",)},
    Path.SWEEPER: {
        **dict.fromkeys(("password_resets", "sessions", "api_key_calls", "request_records"), _SWEPT),
        "workers": _SWEPT,
        **dict.fromkeys(("jobs", "job_events", "job_floors"), ("SELECT",)),
    },
    Path.USAGE: {"api_keys": ("SELECT", "UPDATE"), "api_key_calls": ("SELECT", "UPDATE", "INSERT")},
    Path.PURGE: {
        "database_grants": ("SELECT", "UPDATE"),
        **dict.fromkeys(("request_records", "api_keys"), ("SELECT",)),
        **dict.fromkeys(("jobs", "job_events"), ("SELECT", "UPDATE")),
    },
    Path.SECRETS: {
        **dict.fromkeys(("api_keys", "password_resets", "request_records", "servers"), ("SELECT",)),
        "sessions": ("SELECT", "UPDATE"),
    },
}
"""What each path opens: every row of a table for some commands; LOCK is SELECT … FOR UPDATE alone."""

_SHARES: Final = "morag_meta_shares"
_SHARES_ANY: Final = "morag_meta_shares_any"
SHARED: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "databases": (f"{_SHARES}(id)", ("SELECT", "LOCK")),
    "documents": (f"{_SHARES}(database_id)", ("SELECT", "LOCK")),
    "jobs": (f"{_SHARES}(database_id)", ("SELECT", "LOCK")),
    "job_events": (f"{_SHARES}(database_id)", ("SELECT",)),
    "database_grants": ("grantee_id = {reach}", ("SELECT", "LOCK", "DELETE")),
    "quotas": (f"{_SHARES_ANY}(owner_id)", ("SELECT",)),
}
"""What a grantee's reach opens: the rows of databases that are shared with them, and whether quotas bound
the owner; of each table the condition, and the commands."""

PRIVILEGES: Final[Mapping[str, str]] = {
    **dict.fromkeys(metadata.tables, "SELECT, INSERT, UPDATE, DELETE"),
    "audit_events": "SELECT, INSERT, DELETE",
    "audit_subjects": "SELECT, INSERT, DELETE",
    "auth_epoch": "SELECT, UPDATE",
    "job_log": "SELECT, UPDATE",
    "alembic_version": "SELECT",
}
"""What the service's role may do with each table at all."""

_REACH: Final = f"current_setting('{SETTING}', true)"  # '' once a transaction that set it has ended
_FUNCTION: Final = """\
CREATE OR REPLACE FUNCTION {schema}.{name}(wanted text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM {schema}.database_grants AS g
    WHERE g.{column} = wanted AND g.grantee_id = substr({reach}, {from_})
  );
END $$"""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of a table, but for the role that it is for."""

    table: str
    name: str
    command: str
    using: str = ""
    check: str = ""

    @property
    def digest(self) -> str:
        """Some characters that differ where the policy does; they stand in its comment."""
        whole = repr((self.table, self.name, self.command, self.using, self.check))
        return f"morag-meta {hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    def create(self, table: str, role: str) -> str:
        """Write the statement that makes it, on a table and for a role that are quoted already."""
        using = f" USING ({self.using})" if self.using else ""
        check = f" WITH CHECK ({self.check})" if self.check else ""
        return f"CREATE POLICY {self.name} ON {table} FOR {self.command} TO {role}{using}{check}"


def policies() -> list[Policy]:
    """Give every policy of this version."""
    return [*_owners(), *_paths(), *_shared()]


def functions(schema: str) -> Iterator[tuple[str, str]]:
    """Give the signature and the statement of each function that policies call, in a quoted schema.

    A function is planned once in a session, whereas a subselect would be with every statement.
    """
    for name, column in ((_SHARES, "database_id"), (_SHARES_ANY, "owner_id")):
        made = _FUNCTION.format(schema=schema, name=name, column=column, reach=_REACH, from_=len(GRANTEE) + 1)
        yield f"{schema}.{name}(text)", made


def _owners() -> Iterator[Policy]:
    for table, column in OWNERS.items():
        # No path and no grantee's id reads as an owner's from there on; that of public callers is ''.
        own = f"{column} = substr(nullif({_REACH}, ''), {len(OWNER) + 1})"
        yield Policy(table, "morag_owner", "ALL", own, own)


def _paths() -> Iterator[Policy]:
    for path, tables in OPENED.items():
        # The planner would take a plain comparison to let pass one row in two hundred; of this it thinks that
        # all rows pass, so plans stay as they are without policies.
        taken = f"(CASE WHEN {_REACH} = '{PATH}{path}' THEN 1 END) IS NOT NULL"
        for table, commands in tables.items():
            for command in commands:
                yield _opening(table, path, command, taken)


def _shared() -> Iterator[Policy]:
    own = f"substr({_REACH}, {len(GRANTEE) + 1})"
    is_grantee = f"coalesce(starts_with({_REACH}, '{GRANTEE}'), false)"  # asked first, as it is cheap
    for table, (condition, commands) in SHARED.items():
        for command in commands:
            yield _opening(table, "shared", command, f"{is_grantee} AND {condition.format(reach=own)}")


def _opening(table: str, what: str, command: str, condition: str) -> Policy:
    name = f"morag_{what}_{command.lower()}"
    if command == "INSERT":
        return Policy(table, name, command, check=condition)
    if command == "LOCK":  # what may be updated may be locked; but nothing may be written
        return Policy(table, name, "UPDATE", condition, "false")
    return Policy(table, name, command, condition)
