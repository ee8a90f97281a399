"""The tables of what is kept: servers, databases with who else may use them, and documents."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema.parts import child_of, one_of, owner, stamps, table
from morag_meta.db.types import Json, LongText, UtcDateTime, identifier

SERVER_KINDS = ("QDRANT", "NEO4J", "PINECONE", "WEAVIATE", "CHROMA")
GRANT_LEVELS = ("READER", "WRITER")
DOCUMENT_STATES = ("PENDING", "INGESTING", "INGESTED", "DEPRECATED", "DELETED")

servers = table(
    "servers",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
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
    *stamps(),
    one_of("kind", SERVER_KINDS),
    sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    sa.UniqueConstraint("owner_id", "id"),
    sa.UniqueConstraint("owner_id", "name"),
    sa.Index("ix_servers__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_servers__create_time_id", "create_time", "id"),
)

databases = table(
    "databases",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
    sa.Column("server_id", identifier(), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", LongText, nullable=False),
    sa.Column("document_count", sa.BigInteger, nullable=False),  # documents that are not DELETED
    sa.Column("content_update_time", UtcDateTime, nullable=False),
    *stamps(),
    sa.CheckConstraint("document_count >= 0", name="document_count"),
    sa.UniqueConstraint("owner_id", "id"),
    sa.UniqueConstraint("owner_id", "name"),
    child_of("server_id", "servers"),
    sa.Index("ix_databases__owner_id_server_id_create_time", "owner_id", "server_id", "create_time", "id"),
    sa.Index("ix_databases__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_databases__create_time_id", "create_time", "id"),
)

# What one user, the grantee, may do in one database of another.
database_grants = table(
    "database_grants",
    # The grantee comes first in the key, as MariaDB would take it to sort the grants on a database.
    sa.Column("grantee_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("database_id", identifier(), primary_key=True),
    sa.Column("owner_id", identifier(), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    # Who set the level; null once that user is deleted, or where it was an operator.
    sa.Column("grantor_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT")),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("update_time", UtcDateTime, nullable=False),
    one_of("level", GRANT_LEVELS),
    sa.CheckConstraint("grantee_id <> owner_id", name="grantee"),
    child_of("database_id", "databases"),
    sa.Index(
        "ix_database_grants__owner_id_database_id_create_time",
        *("owner_id", "database_id", "create_time", "grantee_id"),
    ),
    sa.Index("ix_database_grants__grantee_id_create_time", "grantee_id", "create_time", "database_id"),
    sa.Index("ix_database_grants__grantor_id", "grantor_id"),
)

documents = table(
    "documents",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
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
    *stamps(),
    one_of("state", DOCUMENT_STATES),
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
    child_of("database_id", "databases"),
    sa.Index("ix_documents__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_documents__owner_id_update_time_id", "owner_id", "update_time", "id"),
    sa.Index("ix_documents__owner_id_name_id", "owner_id", "name", "id"),
    sa.Index(
        "ix_documents__owner_id_database_id_create_time", "owner_id", "database_id", "create_time", "id"
    ),
    sa.Index("ix_documents__owner_id_state_create_time", "owner_id", "state", "create_time", "id"),
    sa.Index("ix_documents__create_time_id", "create_time", "id"),
)
