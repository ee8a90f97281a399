"""Every table of the store: columns, constraints and indexes.

They stand in one package, because they are one connected graph; import them from here. The statements over
them live in each feature's ``store.py``, and the history of this schema in ``migrations/``.

Rules that hold for all tables: ids are UUIDv7 text; times are aware UTC; ``owner_id`` names the user
that a row belongs to; a child points at its parent by (owner_id, id), so that a child of another
owner's parent cannot exist; foreign keys restrict, and the code detaches explicitly; MariaDB compares
by ``utf8mb4_nopad_bin`` (case-sensitive, unpadded), as the other two do by themselves.
"""

from __future__ import annotations

from morag_meta.db.schema.accounts import (
    THEMES,
    USER_ROLES,
    api_key_calls,
    api_keys,
    password_resets,
    reset_requests,
    sessions,
    user_settings,
    users,
)
from morag_meta.db.schema.bookkeeping import (
    AUDIT_ACTORS,
    audit_events,
    audit_subjects,
    auth_epoch,
    request_records,
    tries,
)
from morag_meta.db.schema.content import (
    DOCUMENT_STATES,
    GRANT_LEVELS,
    SERVER_KINDS,
    database_grants,
    databases,
    documents,
    servers,
)
from morag_meta.db.schema.limits import quotas
from morag_meta.db.schema.parts import metadata
from morag_meta.db.schema.work import (
    JOB_EXECUTIONS,
    JOB_FAILURES,
    JOB_STATES,
    job_checkpoints,
    job_events,
    job_floors,
    job_log,
    job_turns,
    jobs,
    workers,
)

__all__ = [
    "AUDIT_ACTORS",
    "DOCUMENT_STATES",
    "GRANT_LEVELS",
    "JOB_EXECUTIONS",
    "JOB_FAILURES",
    "JOB_STATES",
    "SERVER_KINDS",
    "THEMES",
    "USER_ROLES",
    "api_key_calls",
    "api_keys",
    "audit_events",
    "audit_subjects",
    "auth_epoch",
    "database_grants",
    "databases",
    "documents",
    "job_checkpoints",
    "job_events",
    "job_floors",
    "job_log",
    "job_turns",
    "jobs",
    "metadata",
    "password_resets",
    "quotas",
    "request_records",
    "reset_requests",
    "servers",
    "sessions",
    "tries",
    "user_settings",
    "users",
    "workers",
]
