"""Make the tables of users, keys, servers, databases and documents.

On MariaDB text is compared by ``utf8mb4_nopad_bin``, and on MySQL 8 by ``utf8mb4_0900_bin``; the latter
rests on MySQL's manual and was not tried on a server.
"""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    _users()
    _api_keys()
    _servers()
    _databases()
    _user_settings()
    _documents()
    _bookkeeping()


def downgrade() -> None:
    """Go back: every row is lost."""
    for table in ("auth_epoch", "request_records", "documents"):
        steps.drop_table(table)
    for table in ("user_settings", "databases", "servers", "api_keys", "sessions", "users"):
        steps.drop_table(table)


def _index(table: str, *columns: str, named: str = "") -> None:
    steps.create_index(f"ix_{table}__{named or '_'.join(columns)}", table, columns)


def _users() -> None:
    steps.create_table(
        "users",
        *parts.ids("id"),
        *parts.texts(255, "name", "email"),
        *parts.texts(255, "password_hash", null=True),
        *parts.texts(500, "avatar", null=True),
        *parts.texts(16, "role"),
        *parts.flags("active"),
        *parts.stamps(),
        parts.primary_key("users", "id"),
        parts.unique("users", "email"),
        parts.one_of("users", "role", "VIEWER", "USER", "ADMIN"),
    )
    _index("users", "create_time", "id")

    steps.create_table(
        "sessions",
        *parts.ids("id", "owner_id"),
        *parts.texts(64, "refresh_hash"),
        *parts.times("create_time", "refresh_time", "expire_time"),
        *parts.times("end_time", null=True),
        parts.primary_key("sessions", "id"),
        parts.unique("sessions", "refresh_hash"),
        parts.parent("sessions", "owner_id", of="users"),
    )
    _index("sessions", "owner_id")
    _index("sessions", "expire_time")


def _api_keys() -> None:
    steps.create_table(
        "api_keys",
        *parts.ids("id", "owner_id"),
        *parts.texts(255, "name"),
        *parts.texts(500, "description"),
        *parts.texts(64, "key_hash"),
        *parts.texts(16, "key_prefix"),
        *parts.jsons("scopes"),
        *parts.times("expire_time", "revoke_time", "last_used_time", null=True),
        *parts.long_numbers("use_count"),
        *parts.stamps(),
        parts.primary_key("api_keys", "id"),
        parts.unique("api_keys", "key_hash"),
        parts.unique("api_keys", "owner_id", "name"),
        parts.parent("api_keys", "owner_id", of="users"),
    )
    _index("api_keys", "owner_id", "create_time", "id")
    _index("api_keys", "create_time", "id")


def _servers() -> None:
    steps.create_table(
        "servers",
        *parts.ids("id", "owner_id"),
        *parts.texts(255, "name"),
        *parts.texts(16, "kind"),
        *parts.texts(255, "host"),
        *parts.numbers("port"),
        *parts.texts(255, "username", null=True),
        *parts.long_texts("password_sealed", "api_key_sealed", null=True),
        *parts.texts(255, "default_database", "default_collection", null=True),
        *parts.flags("active"),
        *parts.times("last_connect_time", null=True),
        *parts.jsons("config"),
        *parts.stamps(),
        parts.primary_key("servers", "id"),
        parts.unique("servers", "owner_id", "id"),
        parts.unique("servers", "owner_id", "name"),
        parts.one_of("servers", "kind", "QDRANT", "NEO4J", "PINECONE", "WEAVIATE", "CHROMA"),
        parts.check("servers", "port", "port BETWEEN 1 AND 65535"),
        parts.parent("servers", "owner_id", of="users"),
    )
    _index("servers", "owner_id", "create_time", "id")
    _index("servers", "create_time", "id")


def _databases() -> None:
    steps.create_table(
        "databases",
        *parts.ids("id", "owner_id", "server_id"),
        *parts.texts(255, "name"),
        *parts.long_texts("description"),
        *parts.long_numbers("document_count"),
        *parts.times("content_update_time"),
        *parts.stamps(),
        parts.primary_key("databases", "id"),
        parts.unique("databases", "owner_id", "id"),
        parts.unique("databases", "owner_id", "name"),
        parts.check("databases", "document_count", "document_count >= 0"),
        parts.parent("databases", "owner_id", of="users"),
        parts.parent("databases", "owner_id", "server_id", of="servers"),
    )
    on_server = ("owner_id", "server_id", "create_time", "id")
    _index("databases", *on_server, named="owner_id_server_id_create_time")
    _index("databases", "owner_id", "create_time", "id")
    _index("databases", "create_time", "id")


def _user_settings() -> None:
    steps.create_table(
        "user_settings",
        *parts.ids("owner_id"),
        *parts.texts(16, "theme"),
        *parts.texts(10, "language"),
        *parts.flags("notifications", "auto_save"),
        *parts.ids("default_database_id", null=True),
        *parts.jsons("preferences"),
        *parts.stamps(),
        parts.primary_key("user_settings", "owner_id"),
        parts.one_of("user_settings", "theme", "LIGHT", "DARK", "SYSTEM", "HIGH_CONTRAST"),
        parts.parent("user_settings", "owner_id", of="users"),
        parts.parent("user_settings", "owner_id", "default_database_id", of="databases"),
    )


def _documents() -> None:
    states = ("PENDING", "INGESTING", "INGESTED", "DEPRECATED", "DELETED")
    steps.create_table(
        "documents",
        *parts.ids("id", "owner_id"),
        *parts.ids("database_id", "live_scope", null=True),
        *parts.texts(255, "name"),
        *parts.texts(50, "type"),
        *parts.texts(16, "state"),
        *parts.texts(16, "state_before_ingestion", "state_before_delete", null=True),
        *parts.numbers("version", "ingested_version", "chunks"),
        sa.Column("quality", sa.Double(), nullable=False),
        *parts.long_numbers("size_bytes"),
        *parts.texts(1024, "source", null=True),
        *parts.texts(255, "external_id", null=True),
        *parts.texts(128, "content_hash", null=True),
        *parts.jsons("metadata"),
        *parts.texts(2000, "last_error", null=True),
        *parts.texts(500, "deprecation_reason", null=True),
        *parts.times("deprecate_time", "ingest_time", "delete_time", null=True),
        *parts.stamps(),
        parts.primary_key("documents", "id"),
        parts.unique("documents", "owner_id", "id"),
        parts.unique("documents", "owner_id", "name", "live_scope"),
        parts.unique("documents", "owner_id", "external_id", "live_scope"),
        parts.unique("documents", "owner_id", "content_hash", "live_scope"),
        parts.one_of("documents", "state", *states),
        parts.check("documents", "chunks", "chunks >= 0"),
        parts.check("documents", "quality", "quality >= 0 AND quality <= 1"),
        parts.check("documents", "version", "version >= 1"),
        parts.check("documents", "live_scope", "(state = 'DELETED') = (live_scope IS NULL)"),
        parts.parent("documents", "owner_id", of="users"),
        parts.parent("documents", "owner_id", "database_id", of="databases"),
    )
    _index("documents", "owner_id", "create_time", "id")
    _index("documents", "owner_id", "update_time", "id")
    _index("documents", "owner_id", "name", "id")
    in_database = ("owner_id", "database_id", "create_time", "id")
    _index("documents", *in_database, named="owner_id_database_id_create_time")
    _index("documents", "owner_id", "state", "create_time", "id", named="owner_id_state_create_time")
    _index("documents", "create_time", "id")


def _bookkeeping() -> None:
    steps.create_table(
        "request_records",
        *parts.ids("owner_id"),
        *parts.texts(100, "method"),
        *parts.texts(64, "request_id", "fingerprint"),
        *parts.jsons("receipt", null=True),
        *parts.times("create_time"),
        parts.primary_key("request_records", "owner_id", "method", "request_id"),
    )
    _index("request_records", "create_time")

    steps.create_table(
        "auth_epoch",
        *parts.numbers("id"),
        *parts.long_numbers("epoch"),
        parts.primary_key("auth_epoch", "id"),
        parts.check("auth_epoch", "single", "id = 1"),
    )
    epoch = sa.table("auth_epoch", sa.column("id", sa.Integer), sa.column("epoch", sa.BigInteger))
    steps.insert_row(epoch, {"id": 1, "epoch": 1}, key="id")
