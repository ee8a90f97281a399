"""The record of one run: what clients asked and were told, what watchers saw, and what the tables then held.

A history is kept as JSON lines, one record each, so that a run that failed can be judged again without a
server. Judging is the matter of ``streams.py`` and ``leases.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINAL = ("FINISHED", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a job, as its table or a frame has it; ``position`` is known of the table's alone."""

    job_id: str
    number: int
    owner_id: str
    previous_state: str
    state: str
    attempt: int
    previous_percentage: int
    percentage: int
    kind: str
    document_id: str
    document_type: str
    previous_worker_id: str
    worker_id: str
    failure: str
    create_time: float
    position: int = 0

    def told(self) -> tuple[Any, ...]:
        """Everything that a frame tells of it."""
        return (
            self.job_id,
            self.number,
            self.owner_id,
            self.previous_state,
            self.state,
            self.attempt,
            self.previous_percentage,
            self.percentage,
            self.kind,
            self.document_id,
            self.document_type,
            self.previous_worker_id,
            self.worker_id,
            self.failure,
            self.create_time,
        )


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its table or a snapshot has it."""

    id: str
    owner_id: str
    kind: str
    state: str
    document_id: str
    document_type: str
    attempt: int
    percentage: int
    last_sequence: int
    worker_id: str
    failure: str
    lost_leases: int = 0
    max_attempts: int = 0
    tag: str = ""
    """What its maker called it, in its parameters; empty for a repeat that RetryJob made."""


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document as its table has it."""

    id: str
    owner_id: str
    state: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A call by a client; times are of this machine's monotone clock, in seconds.

    ``answer`` holds what matters of the answer (see ``clients.py``), and is empty where there was an error.
    """

    client: str
    method: str
    request: dict[str, Any]
    start: float
    end: float
    code: str
    reason: str = ""
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a watcher asked for; an empty part lets every job through."""

    owner_id: str = "-"
    job_id: str = ""
    document_id: str = ""
    kinds: tuple[str, ...] = ()
    document_types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    worker_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connection:
    """One stream that a watcher opened.

    ``session`` counts the watcher's beginnings without a token, and ``number`` its streams. ``after`` says
    how many of the session's frames came up to the one whose token opened this stream, or -1 for the first.
    An ``aside`` looks again from an older token beside the session, which goes on without it.
    """

    watcher: str
    session: int
    number: int
    filter: Filter
    after: int
    start: float
    end: float
    code: str
    reason: str = ""
    snapshot: bool = False
    conflate: bool = False
    aside: bool = False
    from_start: bool = False
    """Whether nothing had happened yet when the session began."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a watcher got: ``kind`` is event, snapshot, sync or heartbeat; ``time`` is the wall clock's."""

    watcher: str
    session: int
    connection: int
    time: float
    kind: str
    token: str = ""
    event: Event | None = None
    job: JobRow | None = None
    leaves: bool = False
    lag: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the system, between two times of the wall clock."""

    name: str
    begin: float
    end: float


@dataclass(slots=True)
class History:
    """All that is known of one run."""

    seed: int = 0
    database: str = ""
    drained: bool = True
    """Whether the run waited, and long enough, for jobs to end and watchers to come to the end."""
    operations: list[Operation] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    documents: list[DocumentRow] = field(default_factory=list)


Record = Event | JobRow | DocumentRow | Operation | Connection | Frame | Fault
_KINDS: dict[str, tuple[type[Any], str]] = {
    "event": (Event, "events"),
    "job": (JobRow, "jobs"),
    "document": (DocumentRow, "documents"),
    "operation": (Operation, "operations"),
    "connection": (Connection, "connections"),
    "frame": (Frame, "frames"),
    "fault": (Fault, "faults"),
}
_NAMES = {made: name for name, (made, _) in _KINDS.items()}


def _parts(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


_write = json.JSONEncoder(separators=(",", ":"), default=_parts).encode


def to_line(record: Record) -> str:
    """Write a record as one line of JSON."""
    return _write([_NAMES[type(record)], record])


def from_line(line: str) -> Record:
    """Read a record that :func:`to_line` wrote."""
    name, fields = json.loads(line)
    made: Record = _KINDS[name][0](**_with_parts(name, fields))
    return made


def _with_parts(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    if name == "frame":
        fields["event"] = Event(**fields["event"]) if fields["event"] else None
        fields["job"] = JobRow(**fields["job"]) if fields["job"] else None
    elif name == "connection":
        parts: dict[str, Any] = fields["filter"]
        lists = {key: tuple(part) for key, part in parts.items() if isinstance(part, list)}
        given: dict[str, Any] = parts | lists
        fields["filter"] = Filter(**given)
    return fields


def add(history: History, records: Iterable[Record]) -> None:
    """Add records to a history, in their order."""
    for record in records:
        getattr(history, _KINDS[_NAMES[type(record)]][1]).append(record)


def all_of(history: History) -> list[Record]:
    """Give all records of a history."""
    return [record for _, attribute in _KINDS.values() for record in getattr(history, attribute)]


def read_lines(path: Path) -> list[Record]:
    """Read the records of a file; a last line that was cut off is left out."""
    text = path.read_text()
    lines = text.split("\n")[:-1]  # what follows the last line's end was never finished
    return [from_line(line) for line in lines]


def write(history: History, path: Path) -> None:
    """Write a history to a file."""
    with path.open("w") as file:
        head = {"seed": history.seed, "database": history.database, "drained": history.drained}
        file.write(json.dumps(head) + "\n")
        for record in all_of(history):
            file.write(to_line(record) + "\n")


def read(path: Path) -> History:
    """Read a history that :func:`write` wrote."""
    with path.open() as file:
        history = History(**json.loads(next(file)))
        add(history, (from_line(line) for line in file))
    return history
