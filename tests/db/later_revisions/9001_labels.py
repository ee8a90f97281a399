"""Add labels to servers: a table, a column, an index and each kind of constraint."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "9001"
down_revision = "NEWEST"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
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
    steps.add_column("servers", sa.Column("label_id", sa.String(36), nullable=True))
    # Before the foreign key, for which MariaDB otherwise makes an index that stays.
    steps.create_index("ix_servers__owner_id_label_id", "servers", ["owner_id", "label_id"])
    steps.create_foreign_key(
        "fk_servers__owner_id_label_id", "servers", ["owner_id", "label_id"], "labels", ["owner_id", "id"]
    )
    steps.create_unique("uq_servers__owner_id_host_port", "servers", ["owner_id", "host", "port"])
    steps.create_check("ck_servers__host", "servers", "host <> ''")
    steps.add_column("users", sa.Column("nickname", sa.String(50), nullable=True))


def downgrade() -> None:
    """Go back."""
    steps.drop_column("users", "nickname")
    steps.drop_constraint("ck_servers__host", "servers", "check")
    steps.drop_constraint("uq_servers__owner_id_host_port", "servers", "unique")
    steps.drop_constraint("fk_servers__owner_id_label_id", "servers", "foreignkey")
    steps.drop_index("ix_servers__owner_id_label_id", "servers")
    steps.drop_column("servers", "label_id")
    steps.drop_table("labels")
