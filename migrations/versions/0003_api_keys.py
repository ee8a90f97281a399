"""Let keys be disabled and replaced, and make names unique among the owner's live keys alone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEYS = sa.table(
    "api_keys",
    sa.column("id", sa.String(36)),
    sa.column("name", sa.String(255)),
    sa.column("former_name", sa.String(255)),
    sa.column("revoke_time", sa.DateTime()),
)


def _columns() -> list[sa.Column[Any]]:
    return [
        *parts.texts(255, "former_name", null=True),
        *parts.times("disable_time", null=True),
        *parts.ids("predecessor_id", "successor_id", null=True),
        *parts.jsons("allowed_addresses", null=True),
        *parts.long_numbers("rate_per_1000_s", null=True),
        *parts.numbers("rate_burst", null=True),
    ]


def upgrade() -> None:
    """Go forward."""
    for column in _columns():
        steps.add_column("api_keys", column)
    _free_names_of_revoked_keys()


def downgrade() -> None:
    """Go back: a key that gave up its name is then called by what stands for it."""
    for column in reversed(_columns()):
        steps.drop_column("api_keys", column.name)


def _free_names_of_revoked_keys() -> None:
    """Give them what no other key is called: their id, behind a character that no name has."""
    taken = sa.and_(_KEYS.c.revoke_time.is_not(None), _KEYS.c.former_name.is_(None))
    op.execute(sa.update(_KEYS).where(taken).values(former_name=_KEYS.c.name))
    freed = _KEYS.c.former_name.is_not(None)
    op.execute(sa.update(_KEYS).where(freed).values(name=sa.literal("\x1f") + _KEYS.c.id))
