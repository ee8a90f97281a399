"""The transitions of a document, as pure decisions, in every order of events."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.documents import rules
from morag_meta.documents.rules import RETURN, TRANSITIONS, Event, State
from morag_meta.errors import AlreadyExists, Invalid, MetaError, Reason, WrongState
from morag_meta.rpc import structs

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=dt.UTC)


def document(**columns: Any) -> dict[str, Any]:
    """A document as it is created, but for the columns that are given."""
    return {
        "id": "d1",
        "database_id": None,
        "live_scope": "-",
        "name": "a.pdf",
        "type": "pdf",
        "state": "PENDING",
        "state_before_ingestion": None,
        "state_before_delete": None,
        "version": 1,
        "ingested_version": 0,
        "chunks": 0,
        "quality": 0.0,
        "size_bytes": 0,
        "source": None,
        "external_id": None,
        "content_hash": None,
        "metadata": {},
        "last_error": None,
        "deprecation_reason": None,
        "deprecate_time": None,
        "ingest_time": None,
        "delete_time": None,
        **columns,
    }


def apply(row: dict[str, Any], event: Event) -> dict[str, Any]:
    """What the document is after the event; raises what the rules raise."""
    changes: dict[Event, Callable[[], dict[str, Any]]] = {
        Event.START: lambda: rules.started(row),
        Event.SUCCEED: lambda: rules.succeeded(row, NOW, chunks=7, quality=0.5, metadata={"pages": 3}),
        Event.ABANDON: lambda: rules.abandoned(row, "no text"),
        Event.DEPRECATE: lambda: rules.deprecated(row, NOW, "old"),
        Event.REINSTATE: lambda: rules.reinstated(row),
        Event.DELETE: lambda: rules.deleted(row, NOW),
        Event.UNDELETE: lambda: rules.undeleted(row),
        Event.NEW_VERSION: lambda: rules.new_version(row, {"name": "a.pdf", "type": "pdf"}),
    }
    return {**row, **changes[event]()}


def test_the_table_is_the_one_that_the_contract_states() -> None:
    """Sixteen rows, and nothing else, change the state of a document."""
    live = (State.PENDING, State.INGESTING, State.INGESTED, State.DEPRECATED)
    assert dict(TRANSITIONS) == {
        (State.PENDING, Event.START): State.INGESTING,
        (State.INGESTED, Event.START): State.INGESTING,
        (State.DEPRECATED, Event.START): State.INGESTING,
        (State.INGESTING, Event.SUCCEED): State.INGESTED,
        (State.INGESTING, Event.ABANDON): RETURN,
        (State.INGESTED, Event.DEPRECATE): State.DEPRECATED,
        (State.DEPRECATED, Event.REINSTATE): State.INGESTED,
        **{(state, Event.NEW_VERSION): State.PENDING for state in live},
        **{(state, Event.DELETE): State.DELETED for state in live},
        (State.DELETED, Event.UNDELETE): RETURN,
    }


@pytest.mark.parametrize(
    ("state", "event"), [pair for pair in itertools.product(State, Event) if pair not in TRANSITIONS]
)
def test_every_other_change_is_refused(state: State, event: Event) -> None:
    """An event that the table lacks is refused, and the refusal names the state or the document."""
    row = document(state=state.value)
    with pytest.raises(MetaError) as refused:
        apply(row, event)
    if event is Event.UNDELETE:
        assert isinstance(refused.value, AlreadyExists)
        assert refused.value.reason is Reason.NOT_DELETED
        assert refused.value.metadata == {"resource_id": "d1"}
    else:
        assert isinstance(refused.value, WrongState)
        assert refused.value.reason is Reason.INVALID_STATE
        assert refused.value.metadata == {"resource_type": "document", "state": state.value}


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_no_order_of_events_breaks_what_the_schema_promises(events: list[Event]) -> None:
    """Whatever happens, what is remembered fits the state, and versions only grow."""
    row = document()
    for event in events:
        before = row
        try:
            row = apply(row, event)
        except (WrongState, AlreadyExists):
            assert (State(before["state"]), event) not in TRANSITIONS
            continue
        assert (State(before["state"]), event) in TRANSITIONS
        assert State(row["state"]) in State
        assert (row["state"] == "DELETED") == (row["live_scope"] is None)
        assert (row["state"] == "DELETED") == (row["state_before_delete"] is not None)
        assert (row["state"] == "DELETED") == (row["delete_time"] is not None)
        assert (row["state"] == "INGESTING") == (row["state_before_ingestion"] is not None)
        assert row["version"] == before["version"] + (event is Event.NEW_VERSION)
        assert 0 <= row["ingested_version"] <= row["version"]
        assert row["state"] != "INGESTED" or row["deprecate_time"] is None
        assert row["state"] != "DEPRECATED" or row["deprecate_time"] is not None


@given(st.sampled_from(["PENDING", "INGESTED", "DEPRECATED"]), st.none() | st.text(max_size=3000))
def test_a_failed_ingestion_takes_nothing_away(state: str, error: str | None) -> None:
    """Start and failure leave the document as it was, but for the error; a cancellation leaves that too."""
    row = document(state=state, chunks=5, quality=0.9, ingested_version=1, last_error="earlier")
    started = {**row, **rules.started(row)}
    assert started["state"] == "INGESTING"
    ended = {**started, **rules.abandoned(started, error)}
    assert ended == {**row, "last_error": "earlier" if error is None else error[:2000]}


def test_success_writes_the_result_and_clears_what_was_wrong() -> None:
    """A success makes a deprecated, failed document INGESTED in its present version with the job's result."""
    row = document(
        state="INGESTING",
        state_before_ingestion="DEPRECATED",
        version=3,
        ingested_version=1,
        metadata={"author": "x", "pages": 1},
        last_error="broken",
        deprecation_reason="old",
        deprecate_time=NOW,
    )
    after = {**row, **rules.succeeded(row, NOW, chunks=9, quality=0.75, metadata={"pages": 2, "lang": "en"})}
    assert after == {
        **row,
        "state": "INGESTED",
        "state_before_ingestion": None,
        "chunks": 9,
        "quality": 0.75,
        "metadata": {"author": "x", "pages": 2, "lang": "en"},
        "ingested_version": 3,
        "ingest_time": NOW,
        "last_error": None,
        "deprecation_reason": None,
        "deprecate_time": None,
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("PENDING", "PENDING"),
        ("INGESTING", "PENDING"),
        ("INGESTED", "INGESTED"),
        ("DEPRECATED", "DEPRECATED"),
    ],
)
def test_an_undeleted_document_is_where_it_was(before: str, after: str) -> None:
    """Undelete leads back to the state before the deletion, or to PENDING if that was INGESTING."""
    remembered = "INGESTED" if before == "INGESTING" else None
    row = document(state=before, state_before_ingestion=remembered, database_id="db", live_scope="db")
    deleted = {**row, **rules.deleted(row, NOW)}
    assert deleted["live_scope"] is None
    undeleted = {**deleted, **rules.undeleted(deleted)}
    assert undeleted == {**row, "state": after, "state_before_ingestion": None}


def test_a_new_version_keeps_what_retrieval_uses() -> None:
    """A new version replaces all that is said of the content, and keeps what was ingested of the old one."""
    row = document(
        state="DEPRECATED",
        version=4,
        ingested_version=4,
        chunks=8,
        quality=0.8,
        external_id="e1",
        content_hash="old",
        source="old.pdf",
        size_bytes=10,
        metadata={"a": 1},
        last_error="x",
        deprecate_time=NOW,
        deprecation_reason="why",
        ingest_time=NOW,
    )
    after = {**row, **rules.new_version(row, {"name": "b.pdf", "type": "docx", "size_bytes": 20})}
    assert after == {
        **row,
        "state": "PENDING",
        "version": 5,
        "name": "b.pdf",
        "type": "docx",
        "source": None,
        "size_bytes": 20,
        "content_hash": None,
        "metadata": {},
        "last_error": None,
    }
    assert rules.new_version(row, {"name": "b", "type": "t", "external_id": "e2"})["external_id"] == "e2"


def test_moving_takes_the_identities_along() -> None:
    """Only a change of database changes the scope of a document's identities."""
    detached = document(database_id=None, live_scope="db1")  # after its database was deleted by force
    assert rules.updated(detached, {"database_id": None, "name": "x"}) == {"database_id": None, "name": "x"}
    assert rules.updated(detached, {"database_id": "db2"}) == {"database_id": "db2", "live_scope": "db2"}
    assert rules.updated(document(database_id="db1", live_scope="db1"), {"database_id": None}) == {
        "database_id": None,
        "live_scope": "-",
    }


def test_a_deleted_document_is_not_changed() -> None:
    """Updating a deleted document is INVALID_STATE."""
    with pytest.raises(WrongState):
        rules.updated(document(state="DELETED", live_scope=None), {"name": "x"})


def test_metadata_stay_within_their_limit_when_a_result_is_added() -> None:
    """A result whose keys would make the metadata larger than 64 KiB is refused; one that fits is added."""
    most = rules.MAX_METADATA_BYTES - len('{"a":""}')
    assert rules.merged_metadata({}, {"a": "x" * most}) == {"a": "x" * most}
    with pytest.raises(Invalid, match="larger than 65536 bytes"):
        rules.merged_metadata({"a": "x" * most}, {"b": 1})
    assert rules.merged_metadata({"a": "x" * most}, {}) == {"a": "x" * most}


def test_the_limits_of_metadata_are_those_of_every_struct() -> None:
    """What documents state of their metadata is what the Struct reader bounds by default."""
    assert structs.MAX_BYTES == rules.MAX_METADATA_BYTES
    assert structs.MAX_DEPTH == rules.MAX_METADATA_DEPTH
