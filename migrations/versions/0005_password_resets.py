"""Make the tables of password resets, and of who asked for one."""

from __future__ import annotations

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    steps.create_table(
        "password_resets",
        *parts.ids("owner_id"),
        *parts.texts(64, "token_hash"),
        *parts.times("create_time", "expire_time"),
        parts.primary_key("password_resets", "owner_id"),
        parts.unique("password_resets", "token_hash"),
        parts.parent("password_resets", "owner_id", of="users"),
    )
    steps.create_index("ix_password_resets__expire_time", "password_resets", ("expire_time",))
    steps.create_table(
        "reset_requests",
        *parts.texts(255, "email"),
        *parts.times("ask_time"),
        parts.primary_key("reset_requests", "email"),
    )
    steps.create_index("ix_reset_requests__ask_time", "reset_requests", ("ask_time",))


def downgrade() -> None:
    """Go back: tokens that were given out no longer work."""
    steps.drop_table("reset_requests")
    steps.drop_table("password_resets")
