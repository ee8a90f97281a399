"""Let API keys be narrowed to databases and servers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_KEYS = sa.table(
    "api_keys",
    sa.column("id", sa.String(36)),
    sa.column("name", sa.String(255)),
    sa.column("former_name", sa.String(255)),
    sa.column("database_ids", sa.Text()),
    sa.column("server_ids", sa.Text()),
    sa.column("update_time", sa.DateTime()),
    sa.column("revoke_time", sa.DateTime()),
)


def upgrade() -> None:
    """Go forward: the keys that are there are not narrowed."""
    for column in parts.jsons("database_ids", "server_ids", null=True):
        steps.add_column("api_keys", column)


def downgrade() -> None:
    """Go back: a key that is narrowed is revoked, as it would reach everything."""
    if not steps.is_begun("api_keys", "database_ids", "server_ids"):
        _revoke_narrowed_keys()
    steps.drop_column("api_keys", "server_ids")
    steps.drop_column("api_keys", "database_ids")


def _revoke_narrowed_keys() -> None:
    is_narrowed = sa.or_(_KEYS.c.database_ids.is_not(None), _KEYS.c.server_ids.is_not(None))
    named = sa.and_(is_narrowed, _KEYS.c.former_name.is_(None))
    op.execute(sa.update(_KEYS).where(named).values(former_name=_KEYS.c.name))
    freed = {"name": sa.literal("\x1f") + _KEYS.c.id, "revoke_time": _KEYS.c.update_time}
    op.execute(sa.update(_KEYS).where(is_narrowed, _KEYS.c.revoke_time.is_(None)).values(freed))
