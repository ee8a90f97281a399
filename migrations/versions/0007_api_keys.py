"""Let keys be disabled and replaced, and make names unique among the owner's live keys alone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0007"
down_revision = "0006"
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
    _api_key_calls()


def downgrade() -> None:
    """Go back: a key that gave up its name is then called by what stands for it, and its calls are lost."""
    steps.drop_table("api_key_calls")
    for column in reversed(_columns()):
        steps.drop_column("api_keys", column.name)


def _api_key_calls() -> None:
    steps.create_table(
        "api_key_calls",
        *parts.ids("key_id"),
        *parts.times("day"),
        *parts.texts(100, "method"),
        *parts.ids("owner_id"),
        *parts.long_numbers("calls", "errors", "total_us", "longest_us"),
        parts.primary_key("api_key_calls", "key_id", "day", "method"),
        parts.parent("api_key_calls", "key_id", of="api_keys"),
        parts.parent("api_key_calls", "owner_id", of="users"),
    )
    steps.create_index("ix_api_key_calls__owner_id_key_id", "api_key_calls", ("owner_id", "key_id"))
    steps.create_index("ix_api_key_calls__day", "api_key_calls", ("day",))


def _free_names_of_revoked_keys() -> None:
    """Give them what no other key is called: their id, behind a character that no name has."""
    taken = sa.and_(_KEYS.c.revoke_time.is_not(None), _KEYS.c.former_name.is_(None))
    op.execute(sa.update(_KEYS).where(taken).values(former_name=_KEYS.c.name))
    freed = _KEYS.c.former_name.is_not(None)
    op.execute(sa.update(_KEYS).where(freed).values(name=sa.literal("\x1f") + _KEYS.c.id))
