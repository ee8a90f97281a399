"""Documents between rows and messages."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.documents import convert
from morag_meta.documents.identity import OnDuplicate, Outcome
from morag_meta.documents.listing import Filter
from morag_meta.documents.rules import State
from morag_meta.errors import Invalid
from moragmeta.v1 import documents_pb2 as pb

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


def row(**columns: Any) -> dict[str, Any]:
    """A full row, but for the columns that are given."""
    return {
        "id": "d1",
        "owner_id": "u1",
        "database_id": "b1",
        "name": "ä.pdf",
        "type": "pdf",
        "state": "DEPRECATED",
        "version": 3,
        "ingested_version": 2,
        "chunks": 9,
        "quality": 0.75,
        "size_bytes": 2**40,
        "source": "/in/ä.pdf",
        "external_id": "e1",
        "content_hash": "sha256:00",
        "metadata": {"a": [1, None, "x", {"b": True}]},
        "last_error": "no text",
        "deprecation_reason": "old",
        "deprecate_time": NOW,
        "ingest_time": NOW,
        "delete_time": NOW,
        "create_time": NOW,
        "update_time": NOW,
        "revision": 7,
        **columns,
    }


def test_every_column_reaches_its_field() -> None:
    """A full row becomes a message with every field set, times to the microsecond."""
    time = "2026-03-01T12:00:00.123456Z"
    assert MessageToDict(convert.document_to_proto(row()), preserving_proto_field_name=True) == {
        "id": "d1",
        "owner_id": "u1",
        "database_id": "b1",
        "name": "ä.pdf",
        "type": "pdf",
        "state": "DOCUMENT_STATE_DEPRECATED",
        "version": 3,
        "ingested_version": 2,
        "chunks": 9,
        "quality": 0.75,
        "size_bytes": str(2**40),
        "source": "/in/ä.pdf",
        "external_id": "e1",
        "content_hash": "sha256:00",
        "metadata": {"a": [1.0, None, "x", {"b": True}]},
        "last_error": "no text",
        "deprecation_reason": "old",
        "deprecate_time": time,
        "ingest_time": time,
        "delete_time": time,
        "create_time": time,
        "update_time": time,
        "etag": '"7"',
    }


def test_what_is_null_is_absent() -> None:
    """A null column and empty metadata leave their field unset."""
    nullable = ["database_id", "source", "external_id", "content_hash", "last_error", "deprecation_reason"]
    nullable += ["deprecate_time", "ingest_time", "delete_time"]
    document = convert.document_to_proto(row(metadata={}, **dict.fromkeys(nullable)))
    assert [name for name in [*nullable, "metadata"] if document.HasField(name)] == []  # type: ignore[arg-type]


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_value(state: State) -> None:
    """The states of rows and the values of the enum have the same names."""
    number = convert.document_to_proto(row(state=state.value)).state
    assert pb.DocumentState.Name(number) == f"DOCUMENT_STATE_{state.value}"
    assert len(pb.DocumentState.keys()) == len(State) + 1


@given(name=TEXTS, source=st.none() | TEXTS, external_id=st.none() | TEXTS, size=st.integers(0, 2**62))
def test_fields_come_back_as_they_were_sent(
    name: str, source: str | None, external_id: str | None, size: int
) -> None:
    """Writable fields keep their value on the way to a row; an empty optional text is null."""
    document = pb.Document(name=name, type="t", source=source, external_id=external_id, size_bytes=size)
    assert convert.fields_from_proto(document) == {
        "name": name,
        "type": "t",
        "database_id": None,
        "source": source or None,
        "size_bytes": size,
        "external_id": external_id or None,
        "content_hash": None,
        "metadata": {},
    }


def test_only_named_fields_are_read() -> None:
    """Fields that are not named are not in the result, so that an update leaves them."""
    assert convert.fields_from_proto(pb.Document(name="a", type="t"), ["type", "source"]) == {
        "type": "t",
        "source": None,
    }


def test_metadata_that_break_a_limit_name_their_place() -> None:
    """The path of the document in its request stands before the field."""
    document = pb.Document()
    document.metadata["a"] = float("inf")
    with pytest.raises(Invalid) as refused:
        convert.fields_from_proto(document, path="requests[2].document")
    assert [found.field for found in refused.value.violations] == ["requests[2].document.metadata"]


def test_what_a_second_upload_does_and_did() -> None:
    """An unspecified choice is REJECT, every other one its own; outcomes have their values."""
    assert convert.on_duplicate_from_proto(pb.ON_DUPLICATE_UNSPECIFIED) is OnDuplicate.REJECT
    for choice in OnDuplicate:
        number = pb.OnDuplicate.Value(f"ON_DUPLICATE_{choice.value}")
        assert convert.on_duplicate_from_proto(number) is choice
    for outcome in Outcome:
        name = pb.CreateDocumentOutcome.Name(convert.outcome_to_proto(outcome))
        assert name == f"CREATE_DOCUMENT_OUTCOME_{outcome.value}"


def test_filters_are_read_and_absent_ones_let_everything_through() -> None:
    """A request without filters is the empty filter; every filter reaches its place."""
    assert convert.filter_from_proto(pb.ListDocumentsRequest()) == Filter()
    request = pb.ListDocumentsRequest(
        database_id="-",
        states=[pb.DOCUMENT_STATE_DELETED, pb.DOCUMENT_STATE_PENDING],
        types=["pdf"],
        name_contains="x",
        external_id="e",
        content_hash="h",
        show_deleted=True,
    )
    request.create_time_start.FromDatetime(NOW)
    request.create_time_end.FromDatetime(NOW + dt.timedelta(days=1))
    assert convert.filter_from_proto(request) == Filter(
        database_id="-",
        states=("DELETED", "PENDING"),
        types=("pdf",),
        name_contains="x",
        create_time_start=NOW,
        create_time_end=NOW + dt.timedelta(days=1),
        external_id="e",
        content_hash="h",
        show_deleted=True,
    )


def test_an_unspecified_state_is_no_filter() -> None:
    """UNSPECIFIED among the states is refused, with its position."""
    states = [pb.DOCUMENT_STATE_PENDING, pb.DOCUMENT_STATE_UNSPECIFIED]
    with pytest.raises(Invalid, match=r"states\[1\]"):
        convert.filter_from_proto(pb.ListDocumentsRequest(states=states))


@pytest.mark.parametrize("database_id", ["x", "--", "*", "0190a0a0-0000-7000-8000-00000000000G", "%"])
def test_a_database_filter_is_an_id_or_a_dash(database_id: str) -> None:
    """Anything else is refused instead of finding nothing."""
    with pytest.raises(Invalid, match="database_id"):
        convert.filter_from_proto(pb.ListDocumentsRequest(database_id=database_id))
