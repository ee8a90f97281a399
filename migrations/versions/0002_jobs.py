"""Make the tables of jobs, their events, and the workers that lease them."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from morag_meta.db import migration_parts as parts
from morag_meta.db import migration_steps as steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JOB_STATES = ("PENDING", "WAITING_FOR_REMOTE_WORKER", "PROCESSING", "FINISHED", "FAILED", "CANCELLED")
JOB_FAILURES = ("REPORTED", "LEASE_EXPIRED", "NOT_STARTED", "ATTEMPT_TOO_LONG", "TOO_LONG")


def upgrade() -> None:
    """Go forward."""
    _jobs()
    _job_turns()
    _job_checkpoints()
    _job_events()
    _job_log()
    _workers()


def downgrade() -> None:
    """Go back: every row is lost."""
    for table in ("workers", "job_floors", "job_log", "job_events", "job_checkpoints", "job_turns", "jobs"):
        steps.drop_table(table)


def _index(table: str, *columns: str, named: str = "") -> None:
    steps.create_index(f"ix_{table}__{named or '_'.join(columns)}", table, columns)


def _jobs() -> None:
    steps.create_table(
        "jobs",
        *parts.ids("id", "owner_id"),
        *parts.texts(50, "kind"),
        *parts.texts(32, "state"),
        *parts.texts(8, "execution"),
        *parts.numbers("priority"),
        *parts.ids("document_id", "open_document_id", null=True),
        *parts.texts(255, "document_name", null=True),
        *parts.texts(50, "document_type", null=True),
        *parts.ids("database_id", null=True),
        *parts.numbers("attempt"),
        *parts.long_numbers("report_number"),
        *parts.numbers("percentage"),
        *parts.texts(100, "phase"),
        *parts.texts(2000, "summary"),
        *parts.texts(2000, "error", null=True),
        *parts.jsons("parameters"),
        *parts.jsons("result", null=True),
        *parts.ids("predecessor_id", null=True),
        *parts.long_numbers("event_number"),
        *parts.texts(38, "queue", null=True),
        *parts.times("ready_time"),
        *parts.times("not_before", null=True),
        *parts.numbers("max_attempts", "lost_leases"),
        *parts.long_numbers("schedule_to_start_ms", "start_to_close_ms", "schedule_to_close_ms"),
        *parts.times("close_time"),
        *parts.long_numbers("fallback_delay_ms", null=True),
        *parts.times("due_time", null=True),
        *parts.times("queue_time"),
        *parts.ids("worker_id", "lease_token", null=True),
        *parts.long_numbers("lease_ms", null=True),
        *parts.times("lease_expire_time", null=True),
        *parts.texts(32, "failure", null=True),
        *parts.times("start_time", "end_time", null=True),
        *parts.long_numbers("run_ms", null=True),
        *parts.stamps(),
        *_constraints_of_jobs(),
    )
    _index_jobs()


def _constraints_of_jobs() -> list[sa.Constraint]:
    return [
        parts.primary_key("jobs", "id"),
        parts.unique("jobs", "open_document_id"),
        parts.unique("jobs", "owner_id", "id"),
        parts.one_of("jobs", "state", *JOB_STATES),
        parts.one_of("jobs", "execution", "LOCAL", "REMOTE"),
        parts.one_of("jobs", "failure", *JOB_FAILURES),
        *_checks_of_jobs(),
        parts.parent("jobs", "owner_id", of="users"),
        parts.parent("jobs", "owner_id", "document_id", of="documents"),
        parts.parent("jobs", "predecessor_id", of="jobs"),
    ]


def _checks_of_jobs() -> list[sa.CheckConstraint]:
    conditions = {
        "percentage": "percentage BETWEEN 0 AND 100",
        "priority": "priority BETWEEN 1 AND 4",
        "ingestion_document": "kind <> 'INGESTION' OR document_id IS NOT NULL",
        "end_time": "(state IN ('FINISHED', 'FAILED', 'CANCELLED')) = (end_time IS NOT NULL)",
        "lease": "state <> 'PROCESSING' OR lease_token IS NOT NULL",
        "lease_time": "(state = 'PROCESSING') = (lease_expire_time IS NOT NULL)",
        "failed": "(state = 'FAILED') = (failure IS NOT NULL)",
        "queue": "(state IN ('PENDING', 'WAITING_FOR_REMOTE_WORKER')) = (queue IS NOT NULL)",
        "due_time": "(end_time IS NULL) = (due_time IS NOT NULL)",
    }
    return [parts.check("jobs", name, condition) for name, condition in conditions.items()]


def _index_jobs() -> None:
    _index("jobs", "owner_id", "create_time", "id")
    _index("jobs", "owner_id", "update_time", "id")
    _index("jobs", "owner_id", "state", "create_time", "id", named="owner_id_state_create_time")
    of_document = ("owner_id", "document_id", "create_time", "id")
    _index("jobs", *of_document, named="owner_id_document_id_create_time")
    _index("jobs", "create_time", "id")
    _index("jobs", "predecessor_id")
    _index("jobs", "queue", "ready_time", "id")
    _index("jobs", "owner_id", "state", "queue", "ready_time", "id", named="owner_id_state_queue")
    _index("jobs", "due_time")
    _index("jobs", "worker_id", "state")
    _index("jobs", "worker_id", "create_time", "id")
    _index("jobs", "end_time")
    _index("jobs", "owner_id", "end_time")


def _job_events() -> None:
    steps.create_table(
        "job_events",
        *parts.ids("job_id"),
        *parts.long_numbers("number"),
        *parts.ids("owner_id"),
        *parts.texts(32, "previous_state", null=True),
        *parts.texts(32, "state"),
        *parts.numbers("attempt"),
        *parts.numbers("previous_percentage", null=True),
        *parts.numbers("percentage"),
        *parts.texts(100, "phase"),
        *parts.texts(2000, "summary"),
        *parts.texts(2000, "error", null=True),
        *parts.texts(50, "kind"),
        *parts.ids("document_id", null=True),
        *parts.texts(50, "document_type", null=True),
        *parts.ids("database_id", null=True),
        *parts.ids("previous_worker_id", "worker_id", null=True),
        *parts.texts(32, "failure", null=True),
        *parts.times("create_time"),
        *parts.long_numbers("position", null=True),
        parts.primary_key("job_events", "job_id", "number"),
        parts.one_of("job_events", "state", *JOB_STATES),
        parts.check("job_events", "number", "number >= 1"),
        parts.parent("job_events", "owner_id", "job_id", of="jobs"),
    )
    _index("job_events", "owner_id", "job_id")
    in_order = ("position", "create_time", "job_id", "number")
    _index("job_events", *in_order, named="position_create_time")
    _index("job_events", "create_time")


def _job_log() -> None:
    steps.create_table(
        "job_log",
        *parts.numbers("id"),
        *parts.long_numbers("position", "removals"),
        *parts.ids("store_id"),
        parts.primary_key("job_log", "id"),
        parts.check("job_log", "single", "id = 1"),
    )
    numbers = (sa.column(name, sa.BigInteger) for name in ("id", "position", "removals"))
    log = sa.table("job_log", *numbers, sa.column("store_id", sa.String(36)))
    steps.insert_row(log, {"id": 1, "position": 0, "removals": 0, "store_id": str(uuid.uuid4())}, key="id")
    steps.create_table(
        "job_floors",
        *parts.ids("owner_id"),
        *parts.long_numbers("position"),
        parts.primary_key("job_floors", "owner_id"),
    )


def _job_turns() -> None:
    steps.create_table(
        "job_turns",
        *parts.ids("owner_id"),
        *parts.numbers("priority"),
        *parts.times("turn_time"),
        parts.primary_key("job_turns", "owner_id", "priority"),
        parts.parent("job_turns", "owner_id", of="users"),
    )
    _index("job_turns", "priority", "turn_time")


def _job_checkpoints() -> None:
    steps.create_table(
        "job_checkpoints",
        *parts.ids("job_id", "owner_id"),
        *parts.numbers("attempt"),
        *parts.blobs("data"),
        *parts.times("update_time"),
        parts.primary_key("job_checkpoints", "job_id"),
        parts.parent("job_checkpoints", "owner_id", "job_id", of="jobs"),
    )
    _index("job_checkpoints", "owner_id", "job_id")


def _workers() -> None:
    steps.create_table(
        "workers",
        *parts.ids("id", "owner_id"),
        *parts.texts(255, "name"),
        *parts.jsons("kinds", "document_types"),
        *parts.texts(8, "execution", null=True),
        *parts.flags("serves_everyone"),
        *parts.times("create_time", "last_seen_time"),
        parts.primary_key("workers", "id"),
        parts.one_of("workers", "execution", "LOCAL", "REMOTE"),
        parts.parent("workers", "owner_id", of="users"),
    )
    _index("workers", "owner_id", "create_time", "id")
    _index("workers", "create_time", "id")
    _index("workers", "last_seen_time")
