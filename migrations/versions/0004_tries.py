"""Make the table of tries at something secret."""

from __future__ import annotations

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    steps.create_table(
        "tries",
        *parts.texts(16, "kind"),
        *parts.texts(64, "account"),
        *parts.texts(45, "address"),
        *parts.times("clear_time"),
        *parts.times("known_until", null=True),
        *parts.times("expire_time"),
        parts.primary_key("tries", "kind", "account", "address"),
    )
    steps.create_index("ix_tries__expire_time", "tries", ("expire_time",))


def downgrade() -> None:
    """Go back: what was tried is forgotten."""
    steps.drop_table("tries")
