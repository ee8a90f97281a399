"""The tables of who calls: users, their settings, sessions and password resets, and API keys."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema.parts import child_of, one_of, owner, stamps, table
from morag_meta.db.types import Json, UtcDateTime, identifier

USER_ROLES = ("VIEWER", "USER", "ADMIN")
THEMES = ("LIGHT", "DARK", "SYSTEM", "HIGH_CONTRAST")

users = table(
    "users",
    sa.Column("id", identifier(), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("email", sa.String(255), nullable=False, unique=True),  # normalised: lower case, NFC
    sa.Column("password_hash", sa.String(255)),  # null: cannot log in
    sa.Column("avatar", sa.String(500)),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("active", sa.Boolean(create_constraint=False), nullable=False),
    *stamps(),
    one_of("role", USER_ROLES),
    sa.Index("ix_users__create_time_id", "create_time", "id"),
)

user_settings = table(
    "user_settings",
    sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("theme", sa.String(16), nullable=False),
    sa.Column("language", sa.String(10), nullable=False),
    sa.Column("notifications", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("auto_save", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("default_database_id", identifier()),
    sa.Column("preferences", Json, nullable=False),
    *stamps(),
    one_of("theme", THEMES),
    child_of("default_database_id", "databases"),
)

sessions = table(
    "sessions",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
    sa.Column("refresh_hash", sa.String(64), nullable=False, unique=True),  # keyed hash, hex
    sa.Column("previous_hash", sa.String(64)),  # of the refresh token before; null until the first refresh
    sa.Column("rotate_time", UtcDateTime),  # when the one replaced the other
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("refresh_time", UtcDateTime, nullable=False),
    sa.Column("expire_time", UtcDateTime, nullable=False),
    sa.Column("end_time", UtcDateTime),  # logout, copied token, password or role change, deactivation
    sa.Column("address", sa.String(45)),  # of the peer that logged in or refreshed last
    sa.Column("user_agent", sa.String(256)),
    sa.Index("ix_sessions__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_sessions__create_time_id", "create_time", "id"),
    sa.Index("ix_sessions__expire_time", "expire_time"),
)

# At most one token of each user: a newer one replaces it.
password_resets = table(
    "password_resets",
    sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),  # keyed hash, hex
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("expire_time", UtcDateTime, nullable=False),
    sa.Index("ix_password_resets__expire_time", "expire_time"),
)

# Who asked for a token and has none yet; most need not be users.
reset_requests = table(
    "reset_requests",
    sa.Column("email", sa.String(255), primary_key=True),  # normalised
    sa.Column("ask_time", UtcDateTime, nullable=False),
    sa.Index("ix_reset_requests__ask_time", "ask_time"),
)

api_keys = table(
    "api_keys",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
    sa.Column("name", sa.String(255), nullable=False),  # or what stands for it, once it was given up
    sa.Column("former_name", sa.String(255)),  # of a key that gave up its name: revoked, or replaced
    sa.Column("description", sa.String(500), nullable=False),
    sa.Column("key_hash", sa.String(64), nullable=False, unique=True),  # HMAC-SHA-256, hex
    sa.Column("key_prefix", sa.String(16), nullable=False),  # shown, so that a person knows which key it is
    sa.Column("scopes", Json, nullable=False),
    sa.Column("allowed_addresses", Json),  # canonical ranges, null or none for anywhere
    sa.Column("rate_per_1000_s", sa.BigInteger),  # calls; null without a limit of its own, as the next one
    sa.Column("rate_burst", sa.Integer),
    # What the key is narrowed to; both null where it is not. No foreign keys: what is deleted stays named.
    sa.Column("database_ids", Json),
    sa.Column("server_ids", Json),
    sa.Column("expire_time", UtcDateTime),
    sa.Column("revoke_time", UtcDateTime),
    sa.Column("disable_time", UtcDateTime),
    # Of a rotation; no foreign keys, because each stays a fact when the other key is deleted.
    sa.Column("predecessor_id", identifier()),
    sa.Column("successor_id", identifier()),
    sa.Column("last_used_time", UtcDateTime),
    sa.Column("use_count", sa.BigInteger, nullable=False),
    *stamps(),
    sa.UniqueConstraint("owner_id", "name"),
    sa.Index("ix_api_keys__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_api_keys__create_time_id", "create_time", "id"),
)

# The calls of a key to one method on one day. Rows are written behind the calls (auth/usage.py).
api_key_calls = table(
    "api_key_calls",
    sa.Column("key_id", identifier(), sa.ForeignKey("api_keys.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("day", UtcDateTime, primary_key=True),  # its beginning in UTC
    sa.Column("method", sa.String(100), primary_key=True),
    owner(),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
    sa.Column("total_us", sa.BigInteger, nullable=False),
    sa.Column("longest_us", sa.BigInteger, nullable=False),
    sa.Index("ix_api_key_calls__owner_id_key_id", "owner_id", "key_id"),
    sa.Index("ix_api_key_calls__day", "day"),
)
