"""What there is in the model: each kind of thing, as it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

READER, WRITER, OWNER = 1, 2, 3


@dataclass
class User:
    """A user; ``password`` is None where there is none."""

    id: str
    email: str
    name: str
    role: str = "USER"
    active: bool = True
    password: str | None = None


@dataclass
class Key:
    """An API key; ``end`` says in which order keys end, None for one that does not.

    One that was replaced without grace ended in the step of that number, all others do so after the walk.
    """

    id: str
    owner: str
    name: str
    scopes: tuple[str, ...]
    revoked: bool = False
    disabled: bool = False
    end: int | None = None
    predecessor: str = ""
    successor: str = ""


@dataclass
class Session:
    """A session, with the labels of its refresh tokens, the newest last."""

    id: str
    owner: str
    tokens: list[str]
    rotated: int
    over: bool = False


@dataclass
class Server:
    """A server."""

    id: str
    owner: str
    name: str
    username: str = ""
    has_password: bool = True
    active: bool = False


@dataclass
class Database:
    """A database."""

    id: str
    owner: str
    server: str
    name: str


@dataclass
class Grant:
    """What a user may do in another's database; ``made`` is the step of its making."""

    database: str
    owner: str
    grantee: str
    level: int
    grantor: str
    made: int


@dataclass
class Document:
    """A document; ``scope`` is within what its identities are unique while it is live."""

    id: str
    owner: str
    database: str
    scope: str
    name: str
    external_id: str = ""
    content_hash: str = ""
    state: str = "PENDING"
    before_ingestion: str = ""
    before_deletion: str = ""
    version: int = 1
    ingested_version: int = 0
    chunks: int = 0
    quality: float = 0.0
    last_error: str = ""
    reason: str = ""
    deprecated: bool = False
    size: int = 0


@dataclass
class Job:
    """A job; ``token`` is its lease's label, ``ended`` its end's step, ``events`` what its changes said."""

    id: str
    owner: str
    kind: str
    document: str
    document_name: str
    document_type: str
    database: str
    priority: int
    remote: bool
    made: int
    predecessor: str = ""
    state: str = "PENDING"
    attempt: int = 0
    report_number: int = 0
    percentage: int = 0
    phase: str = ""
    summary: str = ""
    error: str = ""
    chunks: int = 0
    quality: float = 0.0
    worker: str = ""
    token: str = ""
    started: bool = False
    ended: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Worker:
    """A worker."""

    id: str
    owner: str
    kinds: tuple[str, ...]
    execution: str
    serves_everyone: bool


def copied(thing: Any) -> Any:
    """Give a copy that changes apart from the thing; events are only added to."""
    return replace(thing, events=[*thing.events]) if isinstance(thing, Job) else replace(thing)


class Owned(Protocol):
    """Something that belongs to a user."""

    id: str
    owner: str
