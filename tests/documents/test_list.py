"""ListDocuments over the wire: filters, orders, pages."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.auth.principal import Role
from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    get,
    ingested,
    new_database,
    new_document,
    start_ingestion,
    struct,
    upload,
)
from tests.refusals import refused
from tests.service import Service, User

HEAVY = struct(a=[0] * 30_000)  # 60 KB as JSON, 330 KB on the wire


def page(user: User, **arguments: Any) -> pb.ListDocumentsResponse:
    """One page."""
    return user.channel.documents.ListDocuments(pb.ListDocumentsRequest(**arguments))


def pages(user: User, **arguments: Any) -> Iterator[pb.ListDocumentsResponse]:
    """Page after page to the end."""
    answer = page(user, **arguments)
    yield answer
    while answer.next_page_token:
        answer = page(user, page_token=answer.next_page_token, **arguments)
        yield answer


def listed(user: User, **arguments: Any) -> list[str]:
    """The names of all documents of a list."""
    return [document.name for answer in pages(user, **arguments) for document in answer.documents]


def delete(user: User, id: str) -> None:
    """Delete a document."""
    user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=id))


def test_the_newest_come_first(user: User) -> None:
    """Without arguments a list is one's own live documents, the newest first, as Get answers them."""
    documents = [new_document(user) for _ in range(5)]
    delete(user, documents[2].id)
    answer = page(user)
    assert list(answer.documents) == [documents[n] for n in (4, 3, 1, 0)]
    assert answer.next_page_token == ""
    assert [get(user, document.id) for document in answer.documents] == list(answer.documents)


def test_an_empty_list_has_one_page(user: User) -> None:
    """A user without documents gets none, and no token."""
    assert page(user) == pb.ListDocumentsResponse()


def test_filters_choose_by_state(user: User) -> None:
    """Each state is found by its filter; deleted ones show on request, or when they are named."""
    names = {}
    for state in ("PENDING", "INGESTING", "INGESTED", "DEPRECATED", "DELETED"):
        document = ingested(user) if state in ("INGESTED", "DEPRECATED") else new_document(user)
        if state == "INGESTING":
            start_ingestion(user, document.id)
        if state == "DEPRECATED":
            user.channel.documents.DeprecateDocument(pb.DeprecateDocumentRequest(id=document.id))
        if state == "DELETED":
            delete(user, document.id)
        names[state] = document.name
    for state, name in names.items():
        assert listed(user, states=[f"DOCUMENT_STATE_{state}"]) == [name]
    pair = [pb.DOCUMENT_STATE_DELETED, pb.DOCUMENT_STATE_PENDING]
    assert listed(user, states=pair) == [names["DELETED"], names["PENDING"]]
    assert set(listed(user)) == set(names.values()) - {names["DELETED"]}
    assert set(listed(user, show_deleted=True)) == set(names.values())


def test_filters_choose_by_what_documents_say(user: User) -> None:
    """Database, types, name, external id and hash each let pass what they name, and together what all do."""
    first, second = new_database(user), new_database(user)
    upload(user, name="Alpha_1.pdf", type="pdf", database_id=first, external_id="e1", content_hash="h1")
    upload(user, name="alpha%2.md", type="md", database_id=first, external_id="e2", content_hash="h2")
    upload(user, name="beta 1.pdf", type="pdf", database_id=second, external_id="e1", content_hash="h1")
    upload(user, name="ALPHA.txt", type="txt")
    assert listed(user, database_id=first) == ["alpha%2.md", "Alpha_1.pdf"]
    assert listed(user, database_id="-") == ["ALPHA.txt"]
    assert listed(user, database_id=str(uuid.uuid4())) == []
    assert listed(user, types=["md", "txt"]) == ["ALPHA.txt", "alpha%2.md"]
    assert listed(user, types=["PDF"]) == []
    assert listed(user, name_contains="aLpHa") == ["ALPHA.txt", "alpha%2.md", "Alpha_1.pdf"]
    assert listed(user, name_contains="%") == ["alpha%2.md"]
    assert listed(user, name_contains="_") == ["Alpha_1.pdf"]
    assert listed(user, name_contains="\\") == []
    assert listed(user, external_id="e1") == ["beta 1.pdf", "Alpha_1.pdf"]
    assert listed(user, content_hash="h2") == ["alpha%2.md"]
    assert listed(user, external_id="E1") == []
    assert listed(user, database_id=first, types=["pdf"], name_contains="1", external_id="e1") == [
        "Alpha_1.pdf"
    ]


def test_filters_choose_by_time(user: User) -> None:
    """The start of a range is in it and its end is not, to the microsecond."""
    documents = [new_document(user) for _ in range(4)]
    times = [document.create_time for document in documents]
    names = [document.name for document in documents]
    assert listed(user, create_time_start=times[1]) == [names[3], names[2], names[1]]
    assert listed(user, create_time_end=times[1]) == [names[0]]
    assert listed(user, create_time_start=times[1], create_time_end=times[3]) == [names[2], names[1]]
    assert listed(user, create_time_start=times[2], create_time_end=times[2]) == []
    assert listed(user, create_time_start=times[3], create_time_end=times[0]) == []
    early, late = dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
    assert listed(user, create_time_start=early, create_time_end=late) == names[::-1]


def test_lists_are_ordered_as_asked(user: User) -> None:
    """Each order gives its sequence, whole and page by page, and equal values by their id."""
    documents = {name: upload(user, name=name).document for name in ("b", "B", "a", "ä", "c")}
    for name in ("a", "c", "B"):
        document = pb.Document(id=documents[name].id, type="md")
        user.channel.documents.UpdateDocument(pb.UpdateDocumentRequest(document=document))
    orders = {
        "": ["c", "ä", "a", "B", "b"],
        "create_time desc": ["c", "ä", "a", "B", "b"],
        "create_time": ["b", "B", "a", "ä", "c"],
        "update_time desc": ["B", "c", "a", "ä", "b"],
        "update_time": ["b", "ä", "a", "c", "B"],
        "name": ["B", "a", "b", "c", "ä"],
        "name desc": ["ä", "c", "b", "a", "B"],
    }
    for order_by, names in orders.items():
        assert listed(user, order_by=order_by) == names
        assert listed(user, order_by=order_by, page_size=2) == names


def test_equal_names_are_paged_once_each(user: User) -> None:
    """Documents with one name in several databases each appear once, in the order of their ids."""
    ids = sorted(upload(user, database_id=new_database(user)).document.id for _ in range(7))
    got = [d.id for answer in pages(user, order_by="name", page_size=2) for d in answer.documents]
    assert got == ids


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("page_size", -1, "page_size"),
        ("order_by", "name asc", "order_by"),
        ("order_by", "name; DROP TABLE documents", "order_by"),
        ("order_by", "id", "order_by"),
        ("states", [pb.DOCUMENT_STATE_PENDING, pb.DOCUMENT_STATE_UNSPECIFIED], "states[1]"),
        ("states", [99], "states[0]"),
        ("states", [pb.DOCUMENT_STATE_PENDING] * 11, "states"),
        ("types", ["x" * 51], "types[0]"),
        ("types", ["x"] * 51, "types"),
        ("name_contains", "x" * 256, "name_contains"),
        ("name_contains", "a\0", "name_contains"),
        ("database_id", "x", "database_id"),
        ("external_id", "a\0", "external_id"),
        ("create_time_start", {"seconds": 2**60}, "create_time_start"),
        ("create_time_end", {"nanos": -1}, "create_time_end"),
        ("owner_id", "x", "owner_id"),
    ],
)
def test_bad_arguments_name_their_field(user: User, field: str, value: Any, path: str) -> None:
    """An argument that breaks its rule is INVALID_ARGUMENT with its path."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
        page(user, **{field: value})


def test_a_page_has_the_size_asked_for(user: User) -> None:
    """0 means 50, more than 1000 is 1000, and a token comes exactly when more follows."""
    items = [pb.CreateDocumentRequest(document=pb.Document(name=f"{n}.pdf", type="pdf")) for n in range(1001)]
    for start in range(0, len(items), 100):
        request = pb.BatchCreateDocumentsRequest(requests=items[start : start + 100])
        user.channel.documents.BatchCreateDocuments(request)
    assert [len(answer.documents) for answer in pages(user, page_size=5000)] == [1000, 1]
    assert len(page(user).documents) == 50
    assert len(page(user, page_size=1).documents) == 1
    names = listed(user, page_size=143)  # seven pages, the last of them full
    assert names == [f"{n}.pdf" for n in reversed(range(1001))]


def test_a_page_never_is_more_than_a_message_holds(user: User) -> None:
    """Pages of large documents end before 3.5 MiB, and miss and repeat nothing."""
    names = [new_document(user, metadata=HEAVY).name for _ in range(15)]
    answers = list(pages(user, page_size=1000))
    assert len(answers) == 2
    assert all(0 < answer.ByteSize() < 3.5 * 2**20 for answer in answers)
    assert [document.name for answer in answers for document in answer.documents] == names[::-1]


def test_a_token_is_bound_to_its_list(service: Service, user: User) -> None:
    """A token changed by a letter, of another caller, or with other arguments is refused."""
    for _ in range(3):
        new_document(user)
    token = page(user, page_size=1, types=["pdf"]).next_page_token
    assert page(user, page_size=2, types=["pdf"], page_token=token).documents
    other = "A" if token[5] != "A" else "B"
    for caller, bad, types in (
        (user, token[:5] + other + token[6:], ["pdf"]),
        (user, token[:-4], ["pdf"]),
        (user, "x", ["pdf"]),
        (user, "ü\n", ["pdf"]),
        (user, token, ["md"]),
        (user, token, []),
        (service.new_user(), token, ["pdf"]),
        (service.admin, token, ["pdf"]),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            page(caller, page_size=1, types=types, page_token=bad)


def test_who_lists_what(service: Service, user: User) -> None:
    """A list is one's own; only an ADMIN names another owner, or everybody with a dash."""
    mine, theirs = new_document(user), new_document(service.new_user())
    assert listed(user, owner_id=user.id) == [mine.name]
    for owner_id in (theirs.owner_id, "-"):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            page(user, owner_id=owner_id)
    admin = service.new_user(Role.ADMIN)
    assert listed(admin) == []
    assert listed(admin, owner_id=user.id) == [mine.name]
    newest = page(admin, owner_id="-", page_size=2)
    assert [document.id for document in newest.documents] == [theirs.id, mine.id]
    following = page(admin, owner_id="-", page_size=2, page_token=newest.next_page_token)
    assert {theirs.id, mine.id}.isdisjoint(document.id for document in following.documents)
    assert listed(service.new_user(Role.VIEWER)) == []


CHANGES = st.lists(
    st.lists(st.sampled_from(["add", "delete", "delete", "rename"]), max_size=4), min_size=8, max_size=8
)


@pytest.mark.parametrize("order_by", ["", "create_time", "name", "name desc"])
def test_changes_between_pages_neither_hide_nor_repeat(service: Service, order_by: str) -> None:
    """While others add, delete and rename, each document that stays as it is is listed exactly once."""
    numbers = itertools.count()

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changes=CHANGES, choice=st.randoms(use_true_random=False))
    def check(changes: list[list[str]], choice: Any) -> None:
        user = service.new_user()
        steady = {document.id for document in (new_document(user) for _ in range(12))}
        seen: list[str] = []
        for answer, then in zip(
            pages(user, order_by=order_by, page_size=3), [*changes, *([[]] * 99)], strict=False
        ):
            seen += [document.id for document in answer.documents]
            for change in then:
                if change == "add":
                    new_document(user, name=f"{choice.randint(0, 9)} {next(numbers)}")
                    continue
                if not steady:
                    continue
                id = choice.choice(sorted(steady))
                steady.discard(id)
                if change == "delete":
                    delete(user, id)
                else:
                    document = pb.Document(id=id, name=f"{choice.randint(0, 9)} {next(numbers)}")
                    user.channel.documents.UpdateDocument(pb.UpdateDocumentRequest(document=document))
        assert steady <= set(seen)
        if not order_by.startswith("name"):
            assert len(seen) == len(set(seen))
        assert all(seen.count(id) == 1 for id in steady)

    check()
