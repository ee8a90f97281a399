"""Lists in pages: sizes, order, and tokens (AIP-158)."""

from __future__ import annotations

from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from moragmeta.v1 import documents_pb2 as pb
from moragmeta.v1 import jobs_pb2, servers_pb2

AREA = Area("paging")


def _add(bench: Bench, count: int) -> list[str]:
    """Register documents of the case's type; give their ids, the oldest first."""
    ids: list[str] = []
    for begun in range(0, count, 100):
        asked = pb.BatchCreateDocumentsRequest()
        for _ in range(min(100, count - begun)):
            asked.requests.add().document.MergeFrom(pb.Document(name=bench.name(), type=bench.kind))
        made = bench.mine.documents.BatchCreateDocuments(asked)
        ids += [each.document.id for each in made.responses]
    same("documents of the batch", len(set(ids)), count)
    if count <= 100:
        for each in ids:
            bench.later(f"document {each}", lambda each=each: _delete(bench, each))  # type: ignore[misc]
    return ids


def _delete(bench: Bench, document_id: str) -> None:
    bench.mine.documents.DeleteDocument(pb.DeleteDocumentRequest(id=document_id))


def _page(bench: Bench, token: str = "", size: int = 0, **fields: Any) -> pb.ListDocumentsResponse:
    request = pb.ListDocumentsRequest(page_size=size, page_token=token, types=[bench.kind], **fields)
    return bench.mine.documents.ListDocuments(request)


def _ids(page: pb.ListDocumentsResponse) -> list[str]:
    return [each.id for each in page.documents]


def _token(bench: Bench) -> str:
    """Give the token of a second page."""
    _add(bench, 2)
    token = _page(bench, size=1).next_page_token
    holds("a next_page_token where more rows follow", fact=bool(token), seen="none")
    return token


@AREA.case
def pages_hold_every_row_once(bench: Bench) -> None:
    """Pages hold at most page_size rows, and together every row once, the newest first."""
    ids, seen, token = _add(bench, 5), [], ""
    for rows in (2, 2, 1):
        page = _page(bench, token, size=2)
        same("rows on the page", len(page.documents), rows)
        seen += _ids(page)
        token = page.next_page_token
    same("the token of the last page", token, "")
    same("rows of all pages", sorted(seen), sorted(ids))
    times = [(each.create_time.ToNanoseconds(), each.id) for each in _page(bench).documents]
    same("the order of the rows", times, sorted(times, reverse=True))


@AREA.case
def a_size_of_zero_means_50(bench: Bench) -> None:
    """A page_size of 0 gives pages of 50 rows."""
    _add(bench, 51)
    page = _page(bench)
    same("rows on the page", len(page.documents), 50)
    same("rows on the next page", len(_page(bench, page.next_page_token).documents), 1)


@AREA.admin_case
def a_size_beyond_1000_is_clamped(bench: Bench) -> None:
    """A page_size beyond 1000 gives pages of 1000 rows."""
    _add(bench, 1001)
    page = _page(bench, size=2_000_000_000)
    same("rows on the page", len(page.documents), 1000)
    holds("a next_page_token", fact=bool(page.next_page_token), seen="none")


@AREA.case
def a_negative_size_is_refused(bench: Bench) -> None:
    """A negative page_size is INVALID_ARGUMENT."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "page_size"):
        _page(bench, size=-1)


@AREA.case
def the_size_may_change_between_pages(bench: Bench) -> None:
    """A token goes with another page_size."""
    ids = _add(bench, 4)
    first = _page(bench, size=1)
    rest = _page(bench, first.next_page_token, size=3)
    same("rows of both pages", sorted(_ids(first) + _ids(rest)), sorted(ids))


@AREA.case
def a_tampered_token_is_refused(bench: Bench) -> None:
    """A token with a changed, missing or added character is INVALID_ARGUMENT, wherever it is."""
    token = _token(bench)
    changed = [
        token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        for at in (0, len(token) // 2, len(token) - 1)
    ]
    for each in (*changed, token[:-1], token + "A"):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            _page(bench, each)


@AREA.case
def a_made_up_token_is_refused(bench: Bench) -> None:
    """A text that never was a token is INVALID_ARGUMENT."""
    for each in ("x", "AAAA", "next", "ü"):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            _page(bench, each)


@AREA.case
def a_token_holds_for_its_filter(bench: Bench) -> None:
    """A token with another filter or order than it was made with is INVALID_ARGUMENT."""
    token = _token(bench)
    for fields in ({"name_contains": "x"}, {"order_by": "name"}, {"show_deleted": True}):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            _page(bench, token, **fields)


@AREA.case
def a_token_holds_for_its_method(bench: Bench) -> None:
    """A token of one list is INVALID_ARGUMENT in another."""
    token = _token(bench)
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        bench.mine.servers.ListServers(servers_pb2.ListServersRequest(page_token=token))
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        bench.mine.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_token=token))


@AREA.admin_case
def a_token_holds_for_its_caller(bench: Bench) -> None:
    """Another caller's token is INVALID_ARGUMENT, also for an ADMIN."""
    token = _token(bench)
    request = pb.ListDocumentsRequest(page_token=token, types=[bench.kind])
    for caller in (bench.other.caller, bench.admin):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            caller.documents.ListDocuments(request)


@AREA.case
def rows_that_come_and_go_move_no_others(bench: Bench) -> None:
    """A row that exists from the first page to the last is listed once, whatever is added or deleted."""
    ids = _add(bench, 4)
    first = _page(bench, size=2)
    _delete(bench, _ids(first)[0])
    _add(bench, 2)
    rest = _page(bench, first.next_page_token, size=10)
    same("rows of both pages", sorted(_ids(first) + _ids(rest)), sorted(ids))


@AREA.case
def events_are_paged_in_their_order(bench: Bench) -> None:
    """The pages of ListJobEvents hold the events in the order of their numbers."""
    job = bench.running()
    for number in range(1, 4):
        bench.progress(job, number, number)
    seen, token = [], ""
    while True:
        request = jobs_pb2.ListJobEventsRequest(job_id=job.id, page_size=2, page_token=token)
        page = bench.mine.jobs.ListJobEvents(request)
        seen += [event.sequence for event in page.events]
        token = page.next_page_token
        if not token:
            break
    same("the numbers of the events", seen, [1, 2, 3, 4, 5])
