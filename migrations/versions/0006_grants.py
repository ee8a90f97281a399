"""Make the table of grants on databases."""

from __future__ import annotations

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLE = "database_grants"


def upgrade() -> None:
    """Go forward."""
    steps.create_table(
        _TABLE,
        *parts.ids("grantee_id", "database_id", "owner_id"),
        *parts.texts(16, "level"),
        *parts.ids("grantor_id", null=True),
        *parts.times("create_time", "update_time"),
        parts.primary_key(_TABLE, "grantee_id", "database_id"),
        parts.one_of(_TABLE, "level", "READER", "WRITER"),
        parts.check(_TABLE, "grantee", "grantee_id <> owner_id"),
        parts.parent(_TABLE, "grantee_id", of="users"),
        parts.parent(_TABLE, "grantor_id", of="users"),
        parts.parent(_TABLE, "owner_id", "database_id", of="databases"),
    )
    _index("owner_id_database_id_create_time", "owner_id", "database_id", "create_time", "grantee_id")
    _index("grantee_id_create_time", "grantee_id", "create_time", "database_id")
    _index("grantor_id", "grantor_id")


def downgrade() -> None:
    """Go back: every grant is lost."""
    steps.drop_table(_TABLE)


def _index(named: str, *columns: str) -> None:
    steps.create_index(f"ix_{_TABLE}__{named}", _TABLE, columns)
