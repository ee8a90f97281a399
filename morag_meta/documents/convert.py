"""Documents between rows and messages.

What does not live here: checking a field's length or form, which the rules in the proto declare and
``rpc/validation.py`` enforces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from morag_meta import forms
from morag_meta.documents.identity import NO_DATABASE, OnDuplicate, Outcome
from morag_meta.documents.listing import Filter
from morag_meta.documents.rules import MAX_METADATA_BYTES, MAX_METADATA_DEPTH, State
from morag_meta.errors import invalid
from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.structs import struct_to_json
from morag_meta.rpc.times import from_timestamp, write_time
from moragmeta.v1 import documents_pb2 as pb

WRITABLE: Final = (
    "name",
    "type",
    "database_id",
    "source",
    "size_bytes",
    "external_id",
    "content_hash",
    "metadata",
)
"""The fields of a document that a caller writes."""

_TIMES: Final = ("create_time", "update_time", "ingest_time", "deprecate_time", "delete_time")
_NULLABLE: Final = frozenset({"database_id", "source", "external_id", "content_hash"})
_STATES: Final = {state.value: pb.DocumentState.Value(f"DOCUMENT_STATE_{state}") for state in State}
_STATE_NAMES: Final = {number: name for name, number in _STATES.items()}
_ON_DUPLICATE: Final = {pb.ON_DUPLICATE_UNSPECIFIED: OnDuplicate.REJECT} | {
    pb.OnDuplicate.Value(f"ON_DUPLICATE_{choice}"): choice for choice in OnDuplicate
}
_OUTCOMES: Final = {
    outcome: pb.CreateDocumentOutcome.Value(f"CREATE_DOCUMENT_OUTCOME_{outcome}") for outcome in Outcome
}


def document_to_proto(row: Mapping[str, Any]) -> pb.Document:
    """Give the message of a row; columns that are null are fields that are absent."""
    document = pb.Document(
        id=row["id"],
        owner_id=row["owner_id"],
        database_id=row["database_id"],
        name=row["name"],
        type=row["type"],
        state=_STATES[row["state"]],
        version=row["version"],
        ingested_version=row["ingested_version"],
        chunks=row["chunks"],
        quality=row["quality"],
        size_bytes=row["size_bytes"],
        source=row["source"],
        external_id=row["external_id"],
        content_hash=row["content_hash"],
        last_error=row["last_error"],
        deprecation_reason=row["deprecation_reason"],
        etag=etag_of(row),
    )
    for name in _TIMES:
        time = row[name]
        if time is not None:
            write_time(getattr(document, name), time)
    if row["metadata"]:
        document.metadata.update(row["metadata"])
    return document


def fields_from_proto(
    document: pb.Document, names: Iterable[str] = WRITABLE, *, path: str = "document"
) -> dict[str, Any]:
    """Give the columns of the named fields; an absent or empty optional text is null.

    Raises:
        Invalid: the metadata break their limits; ``path`` is where the document stands in the request.
    """
    fields: dict[str, Any] = {}
    for name in names:
        if name == "metadata":
            fields[name] = struct_to_json(
                document.metadata,
                f"{path}.metadata",
                max_bytes=MAX_METADATA_BYTES,
                max_depth=MAX_METADATA_DEPTH,
            )
        else:
            value = getattr(document, name)
            fields[name] = (value or None) if name in _NULLABLE else value
    return fields


def on_duplicate_from_proto(number: pb.OnDuplicate.ValueType) -> OnDuplicate:
    """Give what a second upload does; REJECT where nothing is said."""
    return _ON_DUPLICATE[number]


def outcome_to_proto(outcome: Outcome) -> pb.CreateDocumentOutcome.ValueType:
    """Give what an upload did."""
    return _OUTCOMES[outcome]


def filter_from_proto(request: pb.ListDocumentsRequest) -> Filter:
    """Read the filters of a list.

    Raises:
        Invalid: a state is UNSPECIFIED, or the database is neither ``-`` nor in the form of an id.
    """
    for position, number in enumerate(request.states):
        if number not in _STATE_NAMES:
            raise invalid(f"states[{position}]", "must be a state that a document can have")
    wrong = forms.uuid_or(NO_DATABASE, request.database_id, "documents in none")
    if request.database_id and wrong:
        raise invalid("database_id", wrong)
    start = request.create_time_start if request.HasField("create_time_start") else None
    end = request.create_time_end if request.HasField("create_time_end") else None
    return Filter(
        database_id=request.database_id,
        states=tuple(_STATE_NAMES[number] for number in request.states),
        types=tuple(request.types),
        name_contains=request.name_contains,
        create_time_start=None if start is None else from_timestamp(start),
        create_time_end=None if end is None else from_timestamp(end),
        external_id=request.external_id,
        content_hash=request.content_hash,
        show_deleted=request.show_deleted,
    )
