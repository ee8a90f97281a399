"""Which document an upload is about, and how a list is asked for: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.documents.identity import IDENTITIES, Match, in_item, same_content, same_document
from morag_meta.documents.listing import Order, parse_order
from morag_meta.errors import AlreadyExists, Invalid, Reason, WrongState, exists, invalid, not_found

FIELDS = st.sampled_from(IDENTITIES)


@given(st.sets(FIELDS))
def test_one_document_is_found_by_its_strongest_identity(fields: set[str]) -> None:
    """Of all identities that match one document, external_id decides before content_hash before name."""
    chosen = same_document([Match(field, "d1") for field in fields])
    expected = next((field for field in IDENTITIES if field in fields), None)
    assert (chosen and chosen.field) == expected


@given(st.permutations(IDENTITIES), st.lists(st.sampled_from(["d1", "d2"]), min_size=3, max_size=3))
def test_identities_of_two_documents_are_refused(order: list[str], ids: list[str]) -> None:
    """When the identities belong to two documents, the upload is refused, naming the weaker match."""
    matches = [Match(field, id) for field, id in zip(order, ids, strict=True)]
    if len(set(ids)) == 1:
        assert same_document(matches) == Match("external_id", ids[0])
        return
    with pytest.raises(AlreadyExists) as refused:
        same_document(matches)
    by_field = {match.field: match.id for match in matches}
    assert refused.value.metadata["existing_id"] == by_field[refused.value.metadata["field"]]
    assert refused.value.metadata["existing_id"] != by_field["external_id"]


def test_content_is_the_same_only_when_both_hashes_say_so() -> None:
    """Without a hash on either side nothing is known, and the content counts as new."""
    assert same_content({"content_hash": "h"}, {"content_hash": "h"})
    assert not same_content({"content_hash": "h"}, {"content_hash": "H"})
    assert not same_content({"content_hash": None}, {"content_hash": None})
    assert not same_content({"content_hash": "h"}, {})


def test_an_error_in_a_batch_names_its_item() -> None:
    """An item's error keeps its kind and reason, and its fields start with the item."""
    taken = in_item(exists("document", "name", "d1"), 3)
    assert isinstance(taken, AlreadyExists)
    assert taken.reason is Reason.RESOURCE_EXISTS
    assert taken.metadata == {
        "resource_type": "document",
        "field": "requests[3].document.name",
        "existing_id": "d1",
    }
    assert in_item(not_found("database", "x"), 0).metadata["field"] == "requests[0].document.database_id"
    wrong = in_item(invalid("document.metadata", "is too large"), 1)
    assert [found.field for found in wrong.violations] == ["requests[1].document.metadata"]
    assert str(wrong) == "requests[1]: document.metadata: is too large"
    other = in_item(WrongState("no", reason=Reason.INVALID_STATE, metadata={"state": "DELETED"}), 2)
    assert other.metadata == {"state": "DELETED"}


def test_orders_are_read_as_they_are_written() -> None:
    """The six orders and the empty one are known; the empty one is the newest first."""
    assert parse_order("") == parse_order("create_time desc") == Order("create_time", descending=True)
    assert parse_order("name") == Order("name", descending=False)
    assert parse_order("update_time desc") == Order("update_time", descending=True)


@given(
    st.text(max_size=30)
    | st.sampled_from(["name asc", "Name", " name", "name,id", "id", "create_time  desc"])
)
def test_any_other_order_is_refused(text: str) -> None:
    """An order that is not written exactly as one of the known ones is INVALID_ARGUMENT."""
    if text in ("", *(f"{c}{d}" for c in ("create_time", "update_time", "name") for d in ("", " desc"))):
        return
    with pytest.raises(Invalid, match="order_by"):
        parse_order(text)
