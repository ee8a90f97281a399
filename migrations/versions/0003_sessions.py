"""Let refresh tokens rotate, and sessions be listed with where they are used."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    for column in _columns():
        steps.add_column("sessions", column)
    steps.create_index("ix_sessions__owner_id_create_time_id", "sessions", ("owner_id", "create_time", "id"))
    steps.create_index("ix_sessions__create_time_id", "sessions", ("create_time", "id"))
    steps.drop_index("ix_sessions__owner_id", "sessions")


def downgrade() -> None:
    """Go back: who refreshed last, and from where, is lost."""
    steps.create_index("ix_sessions__owner_id", "sessions", ("owner_id",))
    steps.drop_index("ix_sessions__create_time_id", "sessions")
    steps.drop_index("ix_sessions__owner_id_create_time_id", "sessions")
    for column in reversed(_columns()):
        steps.drop_column("sessions", column.name)


def _columns() -> list[sa.Column[Any]]:
    return [
        *parts.texts(64, "previous_hash", null=True),
        *parts.times("rotate_time", null=True),
        *parts.texts(45, "address", null=True),
        *parts.texts(256, "user_agent", null=True),
    ]
