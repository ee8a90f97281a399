"""The tables of what is done: jobs, their events in the log of all jobs, and workers."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.db.schema.parts import child_of, one_of, owner, stamps, table
from morag_meta.db.types import Json, UtcDateTime, identifier

JOB_STATES = ("PENDING", "WAITING_FOR_REMOTE_WORKER", "PROCESSING", "FINISHED", "FAILED", "CANCELLED")
JOB_EXECUTIONS = ("LOCAL", "REMOTE")
JOB_FAILURES = ("REPORTED", "LEASE_EXPIRED", "NOT_STARTED", "ATTEMPT_TOO_LONG", "TOO_LONG")

jobs = table(
    "jobs",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
    sa.Column("kind", sa.String(50), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("execution", sa.String(8), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("document_id", identifier()),
    # The document of an open INGESTION job, null otherwise: unique, so at most one is open.
    sa.Column("open_document_id", identifier(), unique=True),
    sa.Column("document_name", sa.String(255)),
    sa.Column("document_type", sa.String(50)),
    sa.Column("database_id", identifier()),  # the document's when the job was made; history, no foreign key
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("report_number", sa.BigInteger, nullable=False),
    sa.Column("percentage", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(100), nullable=False),
    sa.Column("summary", sa.String(2000), nullable=False),
    sa.Column("error", sa.String(2000)),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("result", Json),
    sa.Column("predecessor_id", identifier(), sa.ForeignKey("jobs.id", ondelete="RESTRICT")),
    sa.Column("event_number", sa.BigInteger, nullable=False),  # of the newest event; 1 at creation
    # Where it waits, one queue for each priority, state and owner; null while it does not. See jobs/rows.py.
    sa.Column("queue", sa.String(38)),
    sa.Column("ready_time", UtcDateTime, nullable=False),  # its age: since when it could be leased first
    sa.Column("not_before", UtcDateTime),
    sa.Column("max_attempts", sa.Integer, nullable=False),  # leases that may expire
    sa.Column("lost_leases", sa.Integer, nullable=False),
    sa.Column("schedule_to_start_ms", sa.BigInteger, nullable=False),
    sa.Column("start_to_close_ms", sa.BigInteger, nullable=False),
    sa.Column("schedule_to_close_ms", sa.BigInteger, nullable=False),
    sa.Column("close_time", UtcDateTime, nullable=False),  # by which it must have ended, whatever happens
    sa.Column("fallback_delay_ms", sa.BigInteger),  # null: never waits for a remote worker
    # When the reaper is to look at it: the first of all its limits; null once it has ended.
    sa.Column("due_time", UtcDateTime),
    sa.Column("queue_time", UtcDateTime, nullable=False),  # since when it waits, or waited, to be leased
    # Who works on it. Worker and token stay when the job ends: for people, and to know a last repeat by.
    sa.Column("worker_id", identifier()),
    sa.Column("lease_token", sa.String(36)),
    sa.Column("lease_ms", sa.BigInteger),
    sa.Column("lease_expire_time", UtcDateTime),
    sa.Column("failure", sa.String(32)),
    sa.Column("start_time", UtcDateTime),
    sa.Column("end_time", UtcDateTime),
    sa.Column("run_ms", sa.BigInteger),  # of the last attempt; null before the end
    *stamps(),
    one_of("state", JOB_STATES),
    one_of("execution", JOB_EXECUTIONS),
    one_of("failure", JOB_FAILURES),
    sa.CheckConstraint("state <> 'PROCESSING' OR lease_token IS NOT NULL", name="lease"),
    sa.CheckConstraint("(state = 'PROCESSING') = (lease_expire_time IS NOT NULL)", name="lease_time"),
    sa.CheckConstraint("(state = 'FAILED') = (failure IS NOT NULL)", name="failed"),
    sa.CheckConstraint("(end_time IS NULL) = (due_time IS NOT NULL)", name="due_time"),
    sa.CheckConstraint("percentage BETWEEN 0 AND 100", name="percentage"),
    sa.CheckConstraint("priority BETWEEN 1 AND 4", name="priority"),
    sa.CheckConstraint("kind <> 'INGESTION' OR document_id IS NOT NULL", name="ingestion_document"),
    sa.CheckConstraint(
        "(state IN ('FINISHED', 'FAILED', 'CANCELLED')) = (end_time IS NOT NULL)", name="end_time"
    ),
    sa.CheckConstraint(
        "(state IN ('PENDING', 'WAITING_FOR_REMOTE_WORKER')) = (queue IS NOT NULL)", name="queue"
    ),
    sa.UniqueConstraint("owner_id", "id"),
    child_of("document_id", "documents"),
    sa.Index("ix_jobs__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_jobs__owner_id_update_time_id", "owner_id", "update_time", "id"),
    sa.Index("ix_jobs__owner_id_state_create_time", "owner_id", "state", "create_time", "id"),
    sa.Index("ix_jobs__owner_id_document_id_create_time", "owner_id", "document_id", "create_time", "id"),
    sa.Index("ix_jobs__create_time_id", "create_time", "id"),
    sa.Index("ix_jobs__predecessor_id", "predecessor_id"),
    sa.Index("ix_jobs__queue_ready_time_id", "queue", "ready_time", "id"),
    sa.Index("ix_jobs__owner_id_state_queue", "owner_id", "state", "queue", "ready_time", "id"),
    sa.Index("ix_jobs__due_time", "due_time"),
    sa.Index("ix_jobs__worker_id_state", "worker_id", "state"),
    sa.Index("ix_jobs__worker_id_create_time_id", "worker_id", "create_time", "id"),
    sa.Index("ix_jobs__end_time", "end_time"),
    sa.Index("ix_jobs__owner_id_end_time", "owner_id", "end_time"),
)

# When workers of everybody were last given a job of an owner and priority. See jobs/turns.py.
job_turns = table(
    "job_turns",
    sa.Column("owner_id", identifier(), sa.ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),
    sa.Column("priority", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("turn_time", UtcDateTime, nullable=False),
    sa.Index("ix_job_turns__priority_turn_time", "priority", "turn_time"),
)

# What a worker saved for the attempt after its own. Apart from the jobs, whose rows are read all the time.
job_checkpoints = table(
    "job_checkpoints",
    sa.Column("job_id", identifier(), primary_key=True),
    sa.Column("owner_id", identifier(), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),  # that saved it
    sa.Column("data", sa.LargeBinary, nullable=False),  # at most 32 KiB
    sa.Column("update_time", UtcDateTime, nullable=False),
    child_of("job_id", "jobs"),
    sa.Index("ix_job_checkpoints__owner_id_job_id", "owner_id", "job_id"),
)

job_events = table(
    "job_events",
    sa.Column("job_id", identifier(), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("owner_id", identifier(), nullable=False),
    sa.Column("previous_state", sa.String(32)),  # null for the event that made the job
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("previous_percentage", sa.Integer),
    sa.Column("percentage", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(100), nullable=False),
    sa.Column("summary", sa.String(2000), nullable=False),
    sa.Column("error", sa.String(2000)),
    sa.Column("kind", sa.String(50), nullable=False),
    sa.Column("document_id", identifier()),
    sa.Column("document_type", sa.String(50)),
    sa.Column("database_id", identifier()),
    sa.Column("previous_worker_id", identifier()),
    sa.Column("worker_id", identifier()),
    sa.Column("failure", sa.String(32)),
    sa.Column("create_time", UtcDateTime, nullable=False),
    # The event's place among those of all jobs, given after it was committed; see jobs/sequencer.py.
    sa.Column("position", sa.BigInteger),
    one_of("state", JOB_STATES),
    sa.CheckConstraint("number >= 1", name="number"),
    child_of("job_id", "jobs"),
    sa.Index("ix_job_events__owner_id_job_id", "owner_id", "job_id"),
    # Finds both what has no position yet, in the order in which it gets one, and what follows a position.
    sa.Index("ix_job_events__position_create_time", "position", "create_time", "job_id", "number"),
    sa.Index("ix_job_events__create_time", "create_time"),
)

# One row: the newest position that was given, how often events were removed, and whose log it is.
job_log = table(
    "job_log",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("removals", sa.BigInteger, nullable=False),
    sa.Column("store_id", identifier(), nullable=False),  # random, so that tokens of another one are known
    sa.CheckConstraint("id = 1", name="single"),
)

# Up to which position events of an owner have been removed: who resumes before that may miss some.
# When its owner is deleted it goes into that of all who are gone, '', and so has no foreign key.
job_floors = table(
    "job_floors",
    sa.Column("owner_id", identifier(), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

workers = table(
    "workers",
    sa.Column("id", identifier(), primary_key=True),
    owner(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("kinds", Json, nullable=False),
    sa.Column("document_types", Json, nullable=False),
    sa.Column("execution", sa.String(8)),  # null: both
    sa.Column("serves_everyone", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("last_seen_time", UtcDateTime, nullable=False),
    one_of("execution", JOB_EXECUTIONS),
    sa.Index("ix_workers__owner_id_create_time_id", "owner_id", "create_time", "id"),
    sa.Index("ix_workers__create_time_id", "create_time", "id"),
    sa.Index("ix_workers__last_seen_time", "last_seen_time"),
)
