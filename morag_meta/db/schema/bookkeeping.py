"""The tables of the service itself: request records, the epoch of authorization, tries, and the audit."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema.parts import one_of, table
from morag_meta.db.types import Json, UtcDateTime, identifier

AUDIT_ACTORS = ("API_KEY", "SESSION", "PUBLIC", "OPERATOR")

# What a request_id did (AIP-155): the claim of the call that ran, and what a repeat needs to answer.
request_records = table(
    "request_records",
    sa.Column("owner_id", identifier(), primary_key=True),  # the calling user, '' for public methods
    sa.Column("method", sa.String(100), primary_key=True),
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),  # keyed hash of the request, hex
    sa.Column("receipt", Json),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Index("ix_request_records__create_time", "create_time"),
)

# One row: raised whenever a cached principal may have lost its standing.
auth_epoch = table(
    "auth_epoch",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="single"),
)

# How often something secret was tried: of one account at one address, and of either alone ('' for the other).
tries = table(
    "tries",
    sa.Column("kind", sa.String(16), primary_key=True),  # what was tried: LOGIN, PASSWORD, RESET …
    sa.Column("account", sa.String(64), primary_key=True),  # keyed hash, hex; most are of no user
    sa.Column("address", sa.String(45), primary_key=True),
    sa.Column("clear_time", UtcDateTime, nullable=False),  # when nothing is held against it any more
    sa.Column("known_until", UtcDateTime),  # the account's user logged in here; null: never
    sa.Column("expire_time", UtcDateTime, nullable=False),  # the later of both
    sa.Index("ix_tries__expire_time", "expire_time"),
)

# Who a user is in the audit: gone with the user, so that the audit no longer says who it was.
audit_subjects = table(
    "audit_subjects",
    sa.Column("user_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("pseudonym", sa.String(32), nullable=False, unique=True),  # random, hex
)

# What was done and refused. Rows are added and, once they are old, swept; none is ever changed.
audit_events = table(
    "audit_events",
    sa.Column("time", UtcDateTime, primary_key=True),
    sa.Column("id", identifier(), primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),  # equal calls that the row stands for
    sa.Column("event", sa.String(64), nullable=False),
    sa.Column("method", sa.String(100), nullable=False),
    sa.Column("outcome", sa.String(24), nullable=False),  # the name of a status code
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(32), nullable=False),  # pseudonym, '' for nobody known
    sa.Column("credential_id", identifier(), nullable=False),  # of a key or session, '' for none
    sa.Column("address", sa.String(45), nullable=False),
    sa.Column("agent", sa.String(256), nullable=False),
    sa.Column("target_kind", sa.String(32), nullable=False),
    sa.Column("target_id", identifier(), nullable=False),  # a user's is the pseudonym
    sa.Column("owner", sa.String(32), nullable=False),  # pseudonym of whose the target is, '' where unknown
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("fields", Json, nullable=False),
    one_of("actor", AUDIT_ACTORS),
    sa.Index("ix_audit_events__subject_time_id", "subject", "time", "id"),
    sa.Index("ix_audit_events__credential_id_time_id", "credential_id", "time", "id"),
    sa.Index("ix_audit_events__event_time_id", "event", "time", "id"),
    sa.Index("ix_audit_events__target_id_time_id", "target_id", "time", "id"),
    sa.Index("ix_audit_events__outcome_time_id", "outcome", "time", "id"),
)
