"""Pages: every row once, tokens that open for nobody else, and a bound in bytes."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import string
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from morag_meta.auth.principal import Principal, Role
from morag_meta.errors import Invalid
from morag_meta.rpc.call import Call
from morag_meta.rpc.pages import DEFAULT_SIZE, LARGEST_SIZE, MOST_BYTES, Page, Pages
from moragmeta.v1 import documents_pb2 as pb

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
KEYS = ("create_time", "id")
PAGES = Pages(b"p" * 32)


def _call(user_id: str = "u1", role: Role = Role.USER, method: str = "DocumentService.ListDocuments") -> Call:
    return Call(Principal(user_id, role, None, "", "s", None), method, "r", "peer")


def _rows(ages: Sequence[int]) -> list[dict[str, Any]]:
    """Make rows of the given ages in the order of the list: newest first, then by id downwards."""
    rows = [{"create_time": NOON - dt.timedelta(seconds=age), "id": f"{n:05}"} for n, age in enumerate(ages)]
    return sorted(rows, key=lambda row: (row["create_time"], row["id"]), reverse=True)


class _Table:
    """Rows in their order, read as a store reads them."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)
        self.largest_limit = 0

    def fetch(self, after: Any, limit: int) -> list[dict[str, Any]]:
        self.largest_limit = max(self.largest_limit, limit)
        following = [
            row
            for row in self.rows
            if after is None or (row["create_time"], row["id"]) < (after["create_time"], after["id"])
        ]
        return following[:limit]


def _document(row: Any) -> Message:
    return pb.Document(id=row["id"], name=row.get("name", ""))


def _page(table: _Table, request: Any, call: Call | None = None, pages: Pages = PAGES) -> Page[Any]:
    return pages.page(call or _call(), request, keys=KEYS, fetch=table.fetch, convert=_document)


def _walk(table: _Table, request: Any) -> list[list[str]]:
    """Read page after page, and give the ids of each."""
    pages = []
    while True:
        page = _page(table, request)
        pages.append([item.id for item in page.items])
        if not page.next_token:
            return pages
        request.page_token = page.next_token


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 25))
def test_a_walk_gives_each_row_once_in_order(ages: list[int], size: int) -> None:
    """Whatever the rows and the size, pages give all rows in order, and only the last may be short."""
    rows = _rows(ages)
    pages = _walk(_Table(rows), pb.ListDocumentsRequest(page_size=size))
    assert [id for page in pages for id in page] == [row["id"] for row in rows]
    assert all(len(page) == size for page in pages[:-1])
    assert len(pages) == max(1, -(-len(rows) // size))  # no empty page at the end


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 5), st.data())
def test_a_walk_while_rows_come_and_go_gives_the_others_once(
    ages: list[int], size: int, data: st.DataObject
) -> None:
    """Rows that are there throughout are given exactly once, whatever is added and removed meanwhile."""
    table, request = _Table(_rows(ages)), pb.ListDocumentsRequest(page_size=size)
    stays, seen = {row["id"] for row in table.rows}, []
    for step in range(200):
        page = _page(table, request)
        seen += [item.id for item in page.items]
        if not page.next_token:
            break
        request.page_token = page.next_token
        gone = data.draw(st.sampled_from(table.rows))
        table.rows = [row for row in table.rows if row is not gone]
        stays.discard(gone["id"])
        age = data.draw(st.integers(0, 9))
        table.rows.append({"create_time": NOON - dt.timedelta(seconds=age), "id": f"new{step:03}"})
        table.rows.sort(key=lambda row: (row["create_time"], row["id"]), reverse=True)
    assert len(seen) == len(set(seen))
    assert stays <= set(seen)


@pytest.mark.parametrize(
    ("asked", "given"),
    [(0, DEFAULT_SIZE), (7, 7), (1000, LARGEST_SIZE), (1001, LARGEST_SIZE), (2**31 - 1, 1000)],
)
def test_a_page_has_the_size_that_was_asked_for_or_the_largest(asked: int, given: int) -> None:
    """No size means 50, and more than 1,000 is clamped to 1,000, without reading more than that."""
    table = _Table(_rows(range(1500)))
    assert len(_page(table, pb.ListDocumentsRequest(page_size=asked)).items) == given
    assert table.largest_limit <= 1001


def test_a_page_ends_before_it_is_too_large() -> None:
    """A page ends before 3.5 MiB, goes on with the next row, and reads but little for nothing."""
    rows = [{**row, "name": "x" * 100_000} for row in _rows(range(100))]
    table = _Table(rows)
    request = pb.ListDocumentsRequest(page_size=1000)
    page = _page(table, request)
    assert 30 < len(page.items) < 40
    assert pb.ListDocumentsResponse(documents=page.items).ByteSize() <= MOST_BYTES + 16
    assert [id for ids in _walk(table, request) for id in ids] == [row["id"] for row in rows]
    assert table.largest_limit <= 201


def test_a_row_that_is_too_large_alone_is_given_alone() -> None:
    """A page has at least one row, so that a walk always gets on."""
    rows = [{**row, "name": "x" * (MOST_BYTES + 1)} for row in _rows(range(3))]
    pages = _walk(_Table(rows), pb.ListDocumentsRequest(page_size=3))
    assert [len(page) for page in pages] == [1, 1, 1]


def _refused(request: Any, call: Call | None = None, pages: Pages = PAGES) -> None:
    with pytest.raises(Invalid) as caught:
        _page(_Table(_rows(range(9))), request, call, pages)
    assert caught.value.reason == "INVALID_PAGE_TOKEN"
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


def _first() -> Any:
    request = pb.ListDocumentsRequest(page_size=2, types=["pdf"])
    request.page_token = _page(_Table(_rows(range(9))), request).next_token
    return request


def test_any_change_of_any_character_is_refused() -> None:
    """A token in which one character is another, is missing, or is doubled, is refused."""
    request = _first()
    token = request.page_token
    for place, character in enumerate(token):
        for other in string.ascii_letters + string.digits + "-_=+/ \n\x00é":
            if other != character:
                request.page_token = token[:place] + other + token[place + 1 :]
                _refused(request)
        for shorter in (token[:place] + token[place + 1 :], token[: place + 1] + token[place:]):
            if shorter != token:
                request.page_token = shorter
                _refused(request)


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda data: base64.urlsafe_b64encode(data).decode())
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """No text that the service did not make is a token."""
    if text:
        _refused(pb.ListDocumentsRequest(page_token=text))


def test_a_token_is_for_its_caller_method_and_arguments() -> None:
    """The same token from another caller, role, method, argument or key is refused; another size is not."""
    request = _first()
    for call in (
        _call(user_id="u2"),
        _call(role=Role.ADMIN),
        _call(method="DocumentService.ListOther"),
        _call(user_id="u1\nu1"),
    ):
        _refused(request, call)
    _refused(request, pages=Pages(b"q" * 32))
    for field, value in (
        ("types", ["txt"]),
        ("show_deleted", True),
        ("owner_id", "u1"),
        ("order_by", "name"),
    ):
        other = copy.deepcopy(request)
        other.ClearField(field)
        other.MergeFrom(pb.ListDocumentsRequest(**{field: value}))  # type: ignore[arg-type]
        _refused(other)
    request.page_size = 5
    assert len(_page(_Table(_rows(range(9))), request).items) == 5


def test_a_token_says_nothing() -> None:
    """Two tokens of one position differ, and neither holds what it stands for."""
    one, two = _first().page_token, _first().page_token
    assert one != two
    for token in (one, two):
        assert b"create_time" not in base64.urlsafe_b64decode(token)
        assert b"2026" not in base64.urlsafe_b64decode(token)


@given(
    st.datetimes(timezones=st.just(dt.UTC)) | st.text() | st.integers(-(2**63), 2**63 - 1),
    st.text(min_size=1),
)
def test_the_values_of_any_order_come_back(value: Any, id: str) -> None:
    """A position of times, texts or numbers is read back as it was."""
    positions = []

    def fetch(after: Any, limit: int) -> list[dict[str, Any]]:
        positions.append(after)
        return [{"key": value, "id": id}] * limit

    def page(token: str) -> str:
        request = pb.ListDocumentsRequest(page_size=1, page_token=token)
        read = PAGES.page(
            _call(), request, keys=("key", "id"), fetch=fetch, convert=lambda _: pb.Document(name="x")
        )
        return read.next_token

    page(page(""))
    assert positions == [None, {"key": value, "id": id}]
