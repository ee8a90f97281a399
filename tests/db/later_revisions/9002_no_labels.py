"""Take the labels away again, and put an index in the place of another."""

from __future__ import annotations

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "9002"
down_revision = "9001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    steps.drop_constraint("fk_servers__owner_id_label_id", "servers", "foreignkey")
    steps.drop_index("ix_labels__name", "labels")
    steps.drop_table("labels")
    steps.drop_constraint("ck_servers__host", "servers", "check")
    steps.create_index("ix_users__name", "users", ["name"], unique=True)


def downgrade() -> None:
    """Go back."""
    steps.drop_index("ix_users__name", "users")
    steps.create_check("ck_servers__host", "servers", "host <> ''")
    steps.create_table(
        "labels",
        *parts.ids("id", "owner_id"),
        *parts.texts(50, "name"),
        *parts.long_texts("note", null=True),
        parts.primary_key("labels", "id"),
        parts.unique("labels", "owner_id", "id"),
        parts.parent("labels", "owner_id", of="users"),
    )
    steps.create_index("ix_labels__name", "labels", ["name"])
    steps.create_foreign_key(
        "fk_servers__owner_id_label_id", "servers", ["owner_id", "label_id"], "labels", ["owner_id", "id"]
    )
