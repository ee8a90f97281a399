"""Make the table of quotas."""

from __future__ import annotations

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    limits = ("documents", "storage_bytes", "databases", "servers", "api_keys", "open_jobs")
    steps.create_table(
        "quotas",
        *parts.ids("owner_id"),
        *parts.long_numbers(*limits, null=True),
        *parts.times("update_time"),
        parts.primary_key("quotas", "owner_id"),
        parts.parent("quotas", "owner_id", of="users"),
    )


def downgrade() -> None:
    """Go back: nothing is bounded any more."""
    steps.drop_table("quotas")
