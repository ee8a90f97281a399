"""What may happen to a document, as pure decisions: its transitions, and what each of them writes.

The functions that return a mapping give the columns to write. What does not live here: which document
an upload is about (``identity.py``), rows (``store.py``), the order of locks (``actions.py``).
"""

from __future__ import annotations

import datetime as dt
import enum
import json
from collections.abc import Mapping
from typing import Any, Final

from morag_meta.documents.identity import scope_of
from morag_meta.errors import AlreadyExists, Reason, invalid, wrong_state

Row = Mapping[str, Any]

MAX_METADATA_BYTES: Final = 65_536
"""The size of a document's metadata as compact JSON in UTF-8."""
MAX_METADATA_DEPTH: Final = 16
"""The levels of a document's metadata, itself being the first."""
MAX_ERROR_LENGTH: Final = 2000
"""The characters that are kept of the error of an ingestion."""


class State(enum.StrEnum):
    """Where a document stands."""

    PENDING = "PENDING"
    INGESTING = "INGESTING"
    INGESTED = "INGESTED"
    DEPRECATED = "DEPRECATED"
    DELETED = "DELETED"


class Event(enum.StrEnum):
    """What can happen to a document's state."""

    START = "START"
    SUCCEED = "SUCCEED"
    ABANDON = "ABANDON"
    DEPRECATE = "DEPRECATE"
    REINSTATE = "REINSTATE"
    DELETE = "DELETE"
    UNDELETE = "UNDELETE"
    NEW_VERSION = "NEW_VERSION"


RETURN: Final = None
"""The target of an event that leads back to the state remembered when the document left it."""

TRANSITIONS: Final[Mapping[tuple[State, Event], State | None]] = {
    (State.PENDING, Event.START): State.INGESTING,
    (State.INGESTED, Event.START): State.INGESTING,
    (State.DEPRECATED, Event.START): State.INGESTING,
    (State.INGESTING, Event.SUCCEED): State.INGESTED,
    (State.INGESTING, Event.ABANDON): RETURN,
    (State.INGESTED, Event.DEPRECATE): State.DEPRECATED,
    (State.DEPRECATED, Event.REINSTATE): State.INGESTED,
    (State.PENDING, Event.NEW_VERSION): State.PENDING,
    (State.INGESTING, Event.NEW_VERSION): State.PENDING,
    (State.INGESTED, Event.NEW_VERSION): State.PENDING,
    (State.DEPRECATED, Event.NEW_VERSION): State.PENDING,
    (State.PENDING, Event.DELETE): State.DELETED,
    (State.INGESTING, Event.DELETE): State.DELETED,
    (State.INGESTED, Event.DELETE): State.DELETED,
    (State.DEPRECATED, Event.DELETE): State.DELETED,
    (State.DELETED, Event.UNDELETE): RETURN,
}
"""Every change of state that there is."""

_REFUSALS: Final[Mapping[Event, str]] = {
    Event.START: "cannot be ingested",
    Event.SUCCEED: "is not being ingested",
    Event.ABANDON: "is not being ingested",
    Event.DEPRECATE: "cannot be deprecated",
    Event.REINSTATE: "cannot be reinstated",
    Event.DELETE: "cannot be deleted",
    Event.NEW_VERSION: "cannot have a new version",
}


def next_state(row: Row, event: Event) -> State:
    """Give the state that follows.

    Raises:
        WrongState: the document's state does not allow the event (INVALID_STATE).
        AlreadyExists: a document that is not deleted is to be undeleted (NOT_DELETED).
    """
    state = State(row["state"])
    key = (state, event)
    if key in TRANSITIONS:
        return TRANSITIONS[key] or _remembered(row, event)
    if event is Event.UNDELETE:
        raise AlreadyExists(
            "the document is not deleted", reason=Reason.NOT_DELETED, metadata={"resource_id": row["id"]}
        )
    raise wrong_state("document", state, f"a document in the state {state} {_REFUSALS[event]}")


def _remembered(row: Row, event: Event) -> State:
    column = "state_before_delete" if event is Event.UNDELETE else "state_before_ingestion"
    return State(row[column])


def started(row: Row) -> dict[str, Any]:
    """The ingestion job starts: remember where a failure leads back to."""
    return {"state": next_state(row, Event.START), "state_before_ingestion": row["state"]}


def succeeded(
    row: Row, now: dt.datetime, *, chunks: int, quality: float, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The ingestion job succeeded: its result is the document's.

    Raises:
        WrongState: the document is not being ingested.
        Invalid: the result's metadata do not fit to the document's own.
    """
    return {
        "state": next_state(row, Event.SUCCEED),
        "state_before_ingestion": None,
        "chunks": chunks,
        "quality": quality,
        "metadata": merged_metadata(row["metadata"], metadata),
        "ingested_version": row["version"],
        "ingest_time": now,
        "last_error": None,
        "deprecation_reason": None,
        "deprecate_time": None,
    }


def abandoned(row: Row, error: str | None) -> dict[str, Any]:
    """The ingestion job failed with an error, or was canceled (None): the document is what it was."""
    changes: dict[str, Any] = {"state": next_state(row, Event.ABANDON), "state_before_ingestion": None}
    if error is not None:
        changes["last_error"] = error[:MAX_ERROR_LENGTH]
    return changes


def deprecated(row: Row, now: dt.datetime, reason: str) -> dict[str, Any]:
    """Retrieval is to leave the document out."""
    return {
        "state": next_state(row, Event.DEPRECATE),
        "deprecation_reason": reason or None,
        "deprecate_time": now,
    }


def reinstated(row: Row) -> dict[str, Any]:
    """Retrieval may use the document again."""
    return {
        "state": next_state(row, Event.REINSTATE),
        "deprecation_reason": None,
        "deprecate_time": None,
    }


def deleted(row: Row, now: dt.datetime) -> dict[str, Any]:
    """The document is deleted and frees its identities; its open job is canceled by the caller."""
    state = next_state(row, Event.DELETE)
    before = State.PENDING if row["state"] == State.INGESTING else row["state"]
    return {
        "state": state,
        "state_before_delete": before,
        "state_before_ingestion": None,
        "live_scope": None,
        "delete_time": now,
    }


def undeleted(row: Row) -> dict[str, Any]:
    """The document is back where it was, and claims its identities in its database again."""
    return {
        "state": next_state(row, Event.UNDELETE),
        "state_before_delete": None,
        "live_scope": scope_of(row["database_id"]),
        "delete_time": None,
    }


def new_version(row: Row, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The document has new content: everything said of the old content gives way.

    What retrieval uses meanwhile stays: ``ingested_version``, ``chunks``, ``quality``, and a deprecation.
    """
    return {
        "state": next_state(row, Event.NEW_VERSION),
        "state_before_ingestion": None,
        "version": row["version"] + 1,
        "last_error": None,
        "name": fields["name"],
        "type": fields["type"],
        "source": fields.get("source"),
        "size_bytes": fields.get("size_bytes", 0),
        "content_hash": fields.get("content_hash"),
        "metadata": fields.get("metadata") or {},
        "external_id": fields.get("external_id") or row["external_id"],
    }


def grown(row: Row, new: Row) -> tuple[str, ...]:
    """Say of what a document's owner has more after a change: ``documents``, ``storage_bytes``, or neither.

    What is deleted counts for neither.
    """
    if new["state"] == State.DELETED:
        return ()
    was_live = row["state"] != State.DELETED
    more = new["size_bytes"] > (row["size_bytes"] if was_live else 0)
    return (*(() if was_live else ("documents",)), *(("storage_bytes",) if more else ()))


def updated(row: Row, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a document says of itself changes; one that changes database takes its identities along.

    Raises:
        WrongState: the document is deleted.
    """
    if row["state"] == State.DELETED:
        raise wrong_state(
            "document", State.DELETED, "a deleted document cannot be changed; undelete it first"
        )
    if "database_id" in changes and changes["database_id"] != row["database_id"]:
        return {**changes, "live_scope": scope_of(changes["database_id"])}
    return dict(changes)


def merged_metadata(own: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Add the top-level keys of an ingestion's result to a document's metadata; equal keys give way.

    Raises:
        Invalid: the sum is larger than a document's metadata may be.
    """
    if not more:
        return dict(own)
    merged = {**own, **more}
    if len(json.dumps(merged, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA_BYTES:
        raise invalid(
            "result.metadata", f"makes the document's metadata larger than {MAX_METADATA_BYTES} bytes as JSON"
        )
    return merged
