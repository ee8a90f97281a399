"""Each statement beyond owners names a path that opens what it needs, and no path opens more."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import visitors

from morag_meta.db.policies import OPENED, OWNERS, PRIVILEGES, SHARED, policies
from morag_meta.db.reach import GRANTEE, OWNER, PATH, Path, reach_of
from morag_meta.db.schema import metadata
from tests.house.owners import OWNED
from tests.house.test_owner_binding import _CONSTANTS

_OWNERLESS = {
    "reset_requests": "whoever asks need not be a user",
    "auth_epoch": "one number",
    "tries": "keyed hashes, most of no user",
    "audit_subjects": "who a pseudonym is, which each event asks",
    "audit_events": "names nobody but by pseudonyms",
    "job_log": "one number",
}
_READ_BY_THE_MIGRATION_ROLE = {"morag_meta.db.survey._KEYS", "morag_meta.db.survey._CREDENTIALS"}
_MARKED = {
    name: statement
    for name, statement in _CONSTANTS.items()
    if statement.get_execution_options().get("system_reason") and name not in _READ_BY_THE_MIGRATION_ROLE
}


def _needs(statement: Any) -> set[tuple[str, str]]:
    """Name the tables with owners that a statement touches, each with what it does there."""
    target = getattr(statement, "table", None) if not isinstance(statement, sa.Select) else None
    does = {sa.Update: "UPDATE", sa.Delete: "DELETE", sa.Insert: "INSERT"}
    needs = set()
    for element in visitors.iterate(statement):
        table = element if isinstance(element, sa.Table) else getattr(element, "table", None)
        if isinstance(table, sa.Table) and table.name in OWNERS and table is not target:
            needs.add((table.name, "SELECT"))
    for kind, command in does.items():
        if isinstance(statement, kind) and target is not None and target.name in OWNERS:
            needs.add((target.name, command))
            if command != "INSERT":
                needs.add((target.name, "SELECT"))
    return needs


def test_every_table_with_an_owner_is_walled() -> None:
    """Each table of the schema has owners and their policy, or stands here with why it has none."""
    assert OWNED | {"users"} == OWNERS.keys()
    assert metadata.tables.keys() - OWNERS.keys() == _OWNERLESS.keys()
    assert {policy.table for policy in policies() if policy.name == "morag_owner"} == OWNERS.keys()
    assert PRIVILEGES.keys() == {*metadata.tables, "alembic_version"}


@pytest.mark.parametrize("name", _MARKED)
def test_a_marked_statement_names_a_path_that_opens_what_it_needs(name: str) -> None:
    """A statement without an owner goes by a path, and the path's policies let it do what it does."""
    statement = _MARKED[name]
    needs = _needs(statement)
    path = statement.get_execution_options()["system_path"]
    opened = {(table, each) for table, commands in OPENED.get(path, {}).items() for each in commands}
    assert needs <= opened, f"{name} goes by {path}"


def test_no_path_opens_what_no_statement_needs() -> None:
    """What a path opens, some statement uses; but for ADMIN's, which opens every row to be seen."""
    needed: dict[Path, set[tuple[str, str]]] = {path: set() for path in Path}
    for statement in _MARKED.values():
        path = statement.get_execution_options()["system_path"]
        if path is not None:
            needed[path] |= _needs(statement)
    for path, tables in OPENED.items():
        if path is not Path.ADMIN:
            assert needed[path] == {(table, each) for table, commands in tables.items() for each in commands}


def test_an_admin_writes_only_what_a_removal_writes() -> None:
    """ADMIN's path changes jobs and removes what belongs to them; elsewhere it sees and locks."""
    writes = {
        (table, command)
        for table, commands in OPENED[Path.ADMIN].items()
        for command in commands
        if command not in ("SELECT", "LOCK")
    }
    tables = ("jobs", "job_events", "job_checkpoints")
    assert writes == {("jobs", "UPDATE"), *((table, "DELETE") for table in tables)}
    assert all("SELECT" in commands for commands in OPENED[Path.ADMIN].values())


def test_a_grantee_writes_nothing() -> None:
    """What is shared is seen and locked by the grantee's reach; only grants to the grantee are removed."""
    writes = {
        (table, command)
        for table, (_, commands) in SHARED.items()
        for command in commands
        if command not in ("SELECT", "LOCK")
    }
    assert writes == {("database_grants", "DELETE")}


def test_a_reach_reads_as_one_thing_alone() -> None:
    """No path and no grantee's id looks like an owner's id where policies read it."""
    for other in (*(PATH + path for path in Path), GRANTEE + "0195a000-0000-7000-8000-000000000001"):
        read = other[len(OWNER) :]
        assert read
        assert len(read) != 36
    assert set(SHARED) <= OWNERS.keys()


def test_a_statement_that_says_nothing_reaches_nothing() -> None:
    """Without owner, grantee and path there is no reach."""
    assert reach_of(sa.select(metadata.tables["jobs"]), {"job_id": "x"}) == ""
    assert reach_of(sa.select(metadata.tables["jobs"]), {"owner_id": "-"}) == "path:admin"
    assert reach_of(sa.select(metadata.tables["jobs"]), {"owner_id": ""}) == "owner:"
