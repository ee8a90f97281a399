"""The tables of the service itself: request records, the epoch of authorization, and tries."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema.parts import table
from morag_meta.db.types import Json, UtcDateTime, identifier

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
