"""One row for each table, each pointing at its parents, and reading all rows back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from morag_meta.db.schema import metadata
from morag_meta.db.url import normalize

LATER = dt.datetime(2026, 3, 1, 12, 31, 45, 123456, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
OWNER = "0195a000-0000-7000-8000-000000000001"
SERVER = "0195a000-0000-7000-8000-000000000002"
DATABASE = "0195a000-0000-7000-8000-000000000003"
DOCUMENT = "0195a000-0000-7000-8000-000000000004"
JOB = "0195a000-0000-7000-8000-000000000005"
OTHER = "0195a000-0000-7000-8000-000000000006"
WORKER = "0195a000-0000-7000-8000-000000000007"
FRIEND = "0195a000-0000-7000-8000-000000000008"
STAMPS = {"revision": 1, "create_time": NOW, "update_time": NOW}


def engine_of(url: str) -> sa.Engine:
    """Make an engine for a test, with a connection of its own for each use and foreign keys enforced."""
    engine = sa.create_engine(normalize(url), poolclass=sa.NullPool)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA foreign_keys = ON"))
    return engine


def user(id: str, email: str) -> dict[str, Any]:
    """Make a user's row."""
    return {"id": id, "name": "Ada", "email": email, "role": "ADMIN", "active": True, **STAMPS}


def server(id: str, owner_id: str, name: str) -> dict[str, Any]:
    """Make a server's row."""
    own = {"id": id, "owner_id": owner_id, "name": name, "kind": "QDRANT", "host": "localhost"}
    return {**own, "port": 6333, "active": True, "config": {"tls": False}, **STAMPS}


def database(id: str, owner_id: str, server_id: str, name: str) -> dict[str, Any]:
    """Make a database's row."""
    own = {"id": id, "owner_id": owner_id, "server_id": server_id, "name": name, "description": "notes"}
    return {**own, "document_count": 1, "content_update_time": NOW, **STAMPS}


def document(id: str, owner_id: str, database_id: str | None, name: str) -> dict[str, Any]:
    """Make a document's row."""
    own = {"id": id, "owner_id": owner_id, "database_id": database_id, "live_scope": database_id or "-"}
    counts = {"version": 1, "ingested_version": 1, "chunks": 7, "quality": 0.1, "size_bytes": 2**40}
    return {
        **own,
        "name": name,
        "type": "pdf",
        "state": "INGESTED",
        "metadata": {"a": [1.5]},
        **counts,
        **STAMPS,
    }


def job(id: str, owner_id: str, document_id: str | None) -> dict[str, Any]:
    """Make a job's row."""
    own = {"id": id, "owner_id": owner_id, "document_id": document_id, "open_document_id": document_id}
    state = {"kind": "INGESTION", "state": "PROCESSING", "execution": "REMOTE", "priority": 2, "attempt": 1}
    progress = {"report_number": 3, "percentage": 40, "phase": "chunking", "summary": "", "event_number": 1}
    order = {"queue": None, "ready_time": NOW, "queue_time": NOW, "max_attempts": 3, "lost_leases": 1}
    limits = {"schedule_to_start_ms": 86_400_000, "start_to_close_ms": 900_000, "fallback_delay_ms": 300_000}
    close = {"schedule_to_close_ms": 604_800_000, "close_time": NOW + dt.timedelta(days=7)}
    lease = {"worker_id": WORKER, "lease_token": OTHER, "lease_ms": 90_000, "lease_expire_time": LATER}
    times = {"due_time": LATER, "start_time": NOW, **STAMPS}
    return {**own, **state, **progress, **order, **limits, **close, **lease, **times, "parameters": {}}


def _worker() -> dict[str, Any]:
    takes = {"kinds": ["INGESTION"], "document_types": [], "execution": "REMOTE", "serves_everyone": False}
    times = {"create_time": NOW, "last_seen_time": LATER}
    return {"id": WORKER, "owner_id": OWNER, "name": "gpu-1", **takes, **times}


def _session() -> dict[str, Any]:
    times = {"create_time": NOW, "refresh_time": NOW, "expire_time": NOW}
    return {"id": OTHER, "owner_id": OWNER, "refresh_hash": "ab" * 32, **times}


def _api_key() -> dict[str, Any]:
    key = {"name": "ci", "description": "", "key_hash": "cd" * 32, "key_prefix": "mm_abcdef"}
    return {"id": OTHER, "owner_id": OWNER, **key, "scopes": ["jobs:read"], "use_count": 0, **STAMPS}


def _settings() -> dict[str, Any]:
    chosen = {"theme": "DARK", "language": "en", "notifications": True, "auto_save": False}
    return {"owner_id": OWNER, **chosen, "default_database_id": DATABASE, "preferences": {}, **STAMPS}


def _grant() -> dict[str, Any]:
    who = {"database_id": DATABASE, "owner_id": OWNER, "grantee_id": FRIEND, "grantor_id": OWNER}
    return {**who, "level": "WRITER", "create_time": NOW, "update_time": LATER}


def _api_key_calls() -> dict[str, Any]:
    figures = {"calls": 2**40, "errors": 1, "total_us": 2**50, "longest_us": 2**40}
    return {"key_id": OTHER, "day": NOW, "method": "JobService.GetJob", "owner_id": OWNER, **figures}


def _job_event() -> dict[str, Any]:
    return {
        "job_id": JOB,
        "number": 1,
        "owner_id": OWNER,
        "state": "PENDING",
        "attempt": 0,
        "percentage": 0,
        "phase": "",
        "summary": "",
        "kind": "INGESTION",
        "worker_id": WORKER,
        "create_time": NOW,
        "position": 1,
    }


def _reset() -> dict[str, Any]:
    times = {"create_time": NOW, "expire_time": LATER}
    return {"owner_id": OWNER, "token_hash": "0f" * 32, **times}


def _tries() -> dict[str, Any]:
    times = {"clear_time": NOW, "known_until": LATER, "expire_time": LATER}
    return {"kind": "LOGIN", "account": "ab" * 32, "address": "192.0.2.1", **times}


def _audit_event() -> dict[str, Any]:
    what = {"count": 1, "event": "document.create", "method": "DocumentService.CreateDocument"}
    how = {"outcome": "OK", "reason": "", "actor": "API_KEY", "subject": "0f" * 16, "credential_id": OTHER}
    where = {"address": "192.0.2.1", "agent": "grpc", "target_kind": "document", "target_id": DOCUMENT}
    return {"time": NOW, "id": OTHER, **what, **how, **where, "owner": "", "request_id": "r", "fields": {}}


def sample() -> Mapping[str, dict[str, Any]]:
    """Make one row for each table but those that a revision fills itself, parents first."""
    return {
        "users": user(OWNER, "ada@example.org"),
        "audit_events": _audit_event(),
        "sessions": _session(),
        "api_keys": _api_key(),
        "api_key_calls": _api_key_calls(),
        "servers": server(SERVER, OWNER, "vectors"),
        "databases": database(DATABASE, OWNER, SERVER, "papers"),
        "database_grants": _grant(),
        "quotas": {"owner_id": OWNER, "documents": 2**40, "servers": 0, "update_time": NOW},
        "user_settings": _settings(),
        "documents": document(DOCUMENT, OWNER, DATABASE, "paper.pdf"),
        "jobs": job(JOB, OWNER, DOCUMENT),
        "job_events": _job_event(),
        "job_checkpoints": {
            "job_id": JOB,
            "owner_id": OWNER,
            "attempt": 1,
            "data": bytes(range(256)) * 128,
            "update_time": NOW,
        },
        "job_floors": {"owner_id": OWNER, "position": 2**40},
        "workers": _worker(),
        "password_resets": _reset(),
        "reset_requests": {"email": "ada@example.org", "ask_time": NOW},
        "tries": _tries(),
        "request_records": {
            "owner_id": OWNER,
            "method": "JobService.CreateJob",
            "request_id": "r-1",
            "fingerprint": "ef" * 32,
            "receipt": {"id": JOB},
            "create_time": NOW,
        },
    }


def tables_of(url: str) -> set[str]:
    """Give the names of the tables that there are."""
    return set(sa.inspect(engine_of(url)).get_table_names())


def fill(url: str, tables: Collection[str] = metadata.tables.keys()) -> None:
    """Insert the sample's rows of these tables."""
    with engine_of(url).begin() as connection:
        for table, row in sample().items():
            if table not in tables:
                continue
            if table == "database_grants":  # which is another user's
                friend = {**user(FRIEND, "friend@example.org"), "name": "Friend"}
                connection.execute(sa.insert(metadata.tables["users"]).values(**friend))
            connection.execute(sa.insert(metadata.tables[table]).values(**row))


def columns_of(url: str) -> dict[str, set[str]]:
    """Give the names of the columns that there are, by table."""
    inspector = sa.inspect(engine_of(url))
    tables = inspector.get_table_names()
    return {table: {column["name"] for column in inspector.get_columns(table)} for table in tables}


def read_all(url: str, columns: Mapping[str, Collection[str]] | None = None) -> dict[str, list[Any]]:
    """Read every row of every table that the code knows and the database has, by the code's columns.

    ``columns`` are those to read, by table; all that the database has, if not given.
    """
    there = columns_of(url) if columns is None else columns
    with engine_of(url).connect() as connection:
        return {
            name: sorted(tuple(row) for row in connection.execute(_all_rows(table, there[name])))
            for name, table in metadata.tables.items()
            if name in there
        }


def _all_rows(table: sa.Table, columns: Collection[str]) -> sa.Select[Any]:
    return sa.select(*(column for column in table.c if column.name in columns))
