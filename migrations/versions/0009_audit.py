"""Make the tables of the audit, and give every user a pseudonym."""

from __future__ import annotations

from typing import Final

from alembic import op

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ACTORS: Final = ("API_KEY", "SESSION", "PUBLIC", "OPERATOR")
# 128 random bits in hex, made by the database, so that the step can be written out.
_RANDOM: Final = {
    "sqlite": "lower(hex(randomblob(16)))",
    "postgresql": "replace(gen_random_uuid()::text, '-', '')",
    "mysql": "md5(concat(rand(), rand(), rand(), uuid()))",
    "mariadb": "md5(concat(rand(), rand(), rand(), uuid()))",
}


def upgrade() -> None:
    """Go forward."""
    _subjects()
    _events()


def downgrade() -> None:
    """Go back: the audit is lost."""
    steps.drop_table("audit_events")
    steps.drop_table("audit_subjects")


def _subjects() -> None:
    steps.create_table(
        "audit_subjects",
        *parts.ids("user_id"),
        *parts.texts(32, "pseudonym"),
        parts.primary_key("audit_subjects", "user_id"),
        parts.unique("audit_subjects", "pseudonym"),
        parts.parent("audit_subjects", "user_id", of="users"),
    )
    random = _RANDOM[op.get_context().dialect.name]
    op.execute(
        f"INSERT INTO audit_subjects (user_id, pseudonym) SELECT id, {random} FROM users "  # noqa: S608
        "WHERE id NOT IN (SELECT user_id FROM audit_subjects)"
    )


def _events() -> None:
    steps.create_table(
        "audit_events",
        *parts.times("time"),
        *parts.ids("id"),
        *parts.numbers("count"),
        *parts.texts(64, "event"),
        *parts.texts(100, "method"),
        *parts.texts(24, "outcome"),
        *parts.texts(64, "reason"),
        *parts.texts(16, "actor"),
        *parts.texts(32, "subject"),
        *parts.ids("credential_id"),
        *parts.texts(45, "address"),
        *parts.texts(256, "agent"),
        *parts.texts(32, "target_kind"),
        *parts.ids("target_id"),
        *parts.texts(32, "owner"),
        *parts.texts(64, "request_id"),
        *parts.jsons("fields"),
        parts.primary_key("audit_events", "time", "id"),
        parts.one_of("audit_events", "actor", *ACTORS),
    )
    for column in ("subject", "credential_id", "event", "target_id", "outcome"):
        steps.create_index(f"ix_audit_events__{column}_time_id", "audit_events", (column, "time", "id"))
