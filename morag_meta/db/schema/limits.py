"""The table of what users may have."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema.parts import table
from morag_meta.db.types import UtcDateTime, identifier

# A user's limits, null for none. A user of whom no limit was ever set has no row.
quotas = table(
    "quotas",
    sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("documents", sa.BigInteger),
    sa.Column("storage_bytes", sa.BigInteger),
    sa.Column("databases", sa.BigInteger),
    sa.Column("servers", sa.BigInteger),
    sa.Column("api_keys", sa.BigInteger),
    sa.Column("open_jobs", sa.BigInteger),
    sa.Column("update_time", UtcDateTime, nullable=False),
)
