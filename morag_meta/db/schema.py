"""Every table of the store: columns, constraints and indexes.

Tables are one connected graph, so they live in one module; the statements over them live in each
feature's ``store.py``, and the history of this schema in ``migrations/``.

Rules that hold for all tables: ids are UUIDv7 text; times are aware UTC; ``owner_id`` names the user
that a row belongs to; a child points at its parent by (owner_id, id), so that a child of another
owner's parent cannot exist; foreign keys restrict, and the code detaches explicitly; MariaDB compares
by ``utf8mb4_nopad_bin`` (case-sensitive, unpadded), as the other two do by themselves.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from morag_meta.db.types import Json, LongText, UtcDateTime, identifier

USER_ROLES = ("VIEWER", "USER", "ADMIN")
THEMES = ("LIGHT", "DARK", "SYSTEM", "HIGH_CONTRAST")
SERVER_KINDS = ("QDRANT", "NEO4J", "PINECONE", "WEAVIATE", "CHROMA")
DOCUMENT_STATES = ("PENDING", "INGESTING", "INGESTED", "DEPRECATED", "DELETED")
JOB_STATES = ("PENDING", "WAITING_FOR_REMOTE_WORKER", "PROCESSING", "FINISHED", "FAILED", "CANCELLED")
JOB_EXECUTIONS = ("LOCAL", "REMOTE")

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s__%(column_0_N_name)s",
        "uq": "uq_%(table_name)s__%(column_0_N_name)s",
        "ix": "ix_%(table_name)s__%(column_0_N_name)s",
        "ck": "ck_%(table_name)s__%(constraint_name)s",
    }
)


def _one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def _table(name: str, *items: Any) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        *items,
        **_OPTIONS,
    )


def _owner() -> sa.Column[Any]:
    return sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False)


def _child_of(column: str, parent: str) -> sa.ForeignKeyConstraint:
    """A parent of the same owner."""
    return sa.ForeignKeyConstraint(
        ["owner_id", column], [f"{parent}.owner_id", f"{parent}.id"], ondelete="RESTRICT"
    )


def _stamps() -> list[sa.Column[Any]]:
    """``revision`` counts changes, and is what an etag is made of."""
    return [
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("update_time", UtcDateTime, nullable=False),
    ]


users = _table(
    "users",
    sa.Column("id", identifier(), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("email", sa.String(255), nullable=False, unique=True),  # normalised: lower case, NFC
    sa.Column("password_hash", sa.String(255)),  # null: cannot log in
    sa.Column("avatar", sa.String(500)),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("active", sa.Boolean(create_constraint=False), nullable=False),
    *_stamps(),
    _one_of("role", USER_ROLES),
    sa.Index("ix_users__create_time_id", "create_time", "id"),
)

user_settings = _table(
    "user_settings",
    sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("theme", sa.String(16), nullable=False),
    sa.Column("language", sa.String(10), nullable=False),
    sa.Column("notifications", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("auto_save", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("default_database_id", identifier()),
    sa.Column("preferences", Json, nullable=False),
    *_stamps(),
    _one_of("theme", THEMES),
    _child_of("default_database_id", "databases"),
)

sessions = _table(
    "sessions",
    sa.Column("id", identifier(), primary_key=True),
    _owner(),
    sa.Column("refresh_hash", sa.String(64), nullable=False, unique=True),  # keyed hash, hex
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("refresh_time", UtcDateTime, nullable=False),
    sa.Column("expire_time", UtcDateTime, nullable=False),
    sa.Column("end_time", UtcDateTime),  # logout, password or role change, deactivation
    sa.Index("ix_sessions__owner_id", "owner_id"),
    sa.Index("ix_sessions__expire_time", "expire_time"),
)

api_keys = _table(
    "api_keys",
    sa.Column("id", identifier(), primary_key=True),
    _owner(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.String(500), nullable=False),
    sa.Column("key_hash", sa.String(64), nullable=False, unique=True),  # HMAC-SHA-256, hex
    sa.Column("key_prefix", sa.String(16), nullable=False),  # shown, so that a person knows which key it is
    sa.Column("scopes", Json, nullable=False),
    sa.Column("expire_time", UtcDateTime),
    sa.Column("revoke_time", UtcDateTime),
    sa.Column("last_used_time", UtcDateTime),
    sa.Column("use_count", sa.BigInteger, nullable=False),
    *_stamps(),
    sa.UniqueConstraint("owner_id", "name"),
    sa.Index("ix_api_keys__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_api_keys__create_time_id", "create_time", "id"),
)

servers = _table(
    "servers",
    sa.Column("id", identifier(), primary_key=True),
    _owner(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("username", sa.String(255)),
    sa.Column("password_sealed", LongText),  # key id and ciphertext, see auth/credentials.py
    sa.Column("api_key_sealed", LongText),
    sa.Column("default_database", sa.String(255)),
    sa.Column("default_collection", sa.String(255)),
    sa.Column("active", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("last_connect_time", UtcDateTime),
    sa.Column("config", Json, nullable=False),
    *_stamps(),
    _one_of("kind", SERVER_KINDS),
    sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    sa.UniqueConstraint("owner_id", "id"),
    sa.UniqueConstraint("owner_id", "name"),
    sa.Index("ix_servers__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_servers__create_time_id", "create_time", "id"),
)

databases = _table(
    "databases",
    sa.Column("id", identifier(), primary_key=True),
    _owner(),
    sa.Column("server_id", identifier(), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", LongText, nullable=False),
    sa.Column("document_count", sa.BigInteger, nullable=False),  # documents that are not DELETED
    sa.Column("content_update_time", UtcDateTime, nullable=False),
    *_stamps(),
    sa.CheckConstraint("document_count >= 0", name="document_count"),
    sa.UniqueConstraint("owner_id", "id"),
    sa.UniqueConstraint("owner_id", "name"),
    _child_of("server_id", "servers"),
    sa.Index("ix_databases__owner_id_server_id_create_time", "owner_id", "server_id", "create_time", "id"),
    sa.Index("ix_databases__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_databases__create_time_id", "create_time", "id"),
)

documents = _table(
    "documents",
    sa.Column("id", identifier(), primary_key=True),
    _owner(),
    sa.Column("database_id", identifier()),
    # Within which the identity of a live document is unique: the database's id (also after a forced
    # delete detached the document from it), '-' for documents of no database, null once DELETED.
    sa.Column("live_scope", sa.String(36)),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(50), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("state_before_ingestion", sa.String(16)),  # where a failed ingestion returns to
    sa.Column("state_before_delete", sa.String(16)),  # where an undelete returns to
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("ingested_version", sa.Integer, nullable=False),  # 0: none yet
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("quality", sa.Double(), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("source", sa.String(1024)),
    sa.Column("external_id", sa.String(255)),
    sa.Column("content_hash", sa.String(128)),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("last_error", sa.String(2000)),
    sa.Column("deprecation_reason", sa.String(500)),
    sa.Column("deprecate_time", UtcDateTime),
    sa.Column("ingest_time", UtcDateTime),
    sa.Column("delete_time", UtcDateTime),
    *_stamps(),
    _one_of("state", DOCUMENT_STATES),
    sa.CheckConstraint("chunks >= 0", name="chunks"),
    sa.CheckConstraint("quality >= 0 AND quality <= 1", name="quality"),
    sa.CheckConstraint("version >= 1", name="version"),
    sa.CheckConstraint("(state = 'DELETED') = (live_scope IS NULL)", name="live_scope"),
    sa.UniqueConstraint("owner_id", "id"),
    # The scope comes last, so that the same index finds an identity whatever its scope.
    *(
        sa.UniqueConstraint("owner_id", field, "live_scope")
        for field in ("name", "external_id", "content_hash")
    ),
    _child_of("database_id", "databases"),
    sa.Index("ix_documents__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_documents__owner_id_update_time_id", "owner_id", "update_time", "id"),
    sa.Index("ix_documents__owner_id_name_id", "owner_id", "name", "id"),
    sa.Index(
        "ix_documents__owner_id_database_id_create_time", "owner_id", "database_id", "create_time", "id"
    ),
    sa.Index("ix_documents__owner_id_state_create_time", "owner_id", "state", "create_time", "id"),
    sa.Index("ix_documents__create_time_id", "create_time", "id"),
)

jobs = _table(
    "jobs",
    sa.Column("id", identifier(), primary_key=True),
    _owner(),
    sa.Column("kind", sa.String(50), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("execution", sa.String(8), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("document_id", identifier()),
    # The document of an open INGESTION job, null otherwise: unique, so at most one is open.
    sa.Column("open_document_id", identifier(), unique=True),
    sa.Column("document_name", sa.String(255)),
    sa.Column("document_type", sa.String(50)),
    sa.Column("database_id", identifier()),  # the document's when the job was made; history, no foreign key
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("report_number", sa.BigInteger, nullable=False),
    sa.Column("percentage", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(100), nullable=False),
    sa.Column("summary", sa.String(2000), nullable=False),
    sa.Column("error", sa.String(2000)),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("result", Json),
    sa.Column("predecessor_id", identifier(), sa.ForeignKey("jobs.id", ondelete="RESTRICT")),
    sa.Column("event_number", sa.BigInteger, nullable=False),  # of the newest event; 1 at creation
    sa.Column("start_time", UtcDateTime),
    sa.Column("end_time", UtcDateTime),
    *_stamps(),
    _one_of("state", JOB_STATES),
    _one_of("execution", JOB_EXECUTIONS),
    sa.CheckConstraint("percentage BETWEEN 0 AND 100", name="percentage"),
    sa.CheckConstraint("priority BETWEEN 1 AND 4", name="priority"),
    sa.CheckConstraint("kind <> 'INGESTION' OR document_id IS NOT NULL", name="ingestion_document"),
    sa.CheckConstraint(
        "(state IN ('FINISHED', 'FAILED', 'CANCELLED')) = (end_time IS NOT NULL)", name="end_time"
    ),
    sa.UniqueConstraint("owner_id", "id"),
    _child_of("document_id", "documents"),
    sa.Index("ix_jobs__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_jobs__owner_id_update_time_id", "owner_id", "update_time", "id"),
    sa.Index("ix_jobs__owner_id_state_create_time", "owner_id", "state", "create_time", "id"),
    sa.Index("ix_jobs__owner_id_document_id_create_time", "owner_id", "document_id", "create_time", "id"),
    sa.Index("ix_jobs__create_time_id", "create_time", "id"),
    sa.Index("ix_jobs__predecessor_id", "predecessor_id"),
)

job_events = _table(
    "job_events",
    sa.Column("job_id", identifier(), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("owner_id", identifier(), nullable=False),
    sa.Column("previous_state", sa.String(32)),  # null for the event that made the job
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("previous_percentage", sa.Integer),
    sa.Column("percentage", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(100), nullable=False),
    sa.Column("summary", sa.String(2000), nullable=False),
    sa.Column("error", sa.String(2000)),
    sa.Column("kind", sa.String(50), nullable=False),
    sa.Column("document_id", identifier()),
    sa.Column("document_type", sa.String(50)),
    sa.Column("database_id", identifier()),
    sa.Column("create_time", UtcDateTime, nullable=False),
    _one_of("state", JOB_STATES),
    sa.CheckConstraint("number >= 1", name="number"),
    _child_of("job_id", "jobs"),
    sa.Index("ix_job_events__owner_id_job_id", "owner_id", "job_id"),
)

# What a request_id did (AIP-155): the claim of the call that ran, and what a repeat needs to answer.
request_records = _table(
    "request_records",
    sa.Column("owner_id", identifier(), primary_key=True),  # the calling user, '' for public methods
    sa.Column("method", sa.String(100), primary_key=True),
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),  # keyed hash of the request, hex
    sa.Column("receipt", Json),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Index("ix_request_records__create_time", "create_time"),
)

# One row: raised whenever a cached principal may have lost its standing.
auth_epoch = _table(
    "auth_epoch",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="single"),
)
