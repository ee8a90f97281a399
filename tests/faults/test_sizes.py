"""Requests and lists that are too large, or nearly: refused or paged, and the server serves on."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.struct_pb2 import Struct

from morag_meta.db.schema import documents
from morag_meta.ids import new_id
from morag_meta.rpc.pages import MOST_BYTES
from moragmeta.v1 import documents_pb2 as pb
from tests.db.rows import document as document_row
from tests.refusals import refused
from tests.service import Service, User

_ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
_CREATE = "/moragmeta.v1.DocumentService/CreateDocument"


def _fill(service: Service, user: User, count: int, **fields: Any) -> list[str]:
    """Write documents of a user, past the service; give their ids in the order of the list."""
    with service.database.unit_of_work() as uow:
        rows = [
            document_row(new_id(), user.id, None, f"{number:06}.txt")
            | {"live_scope": "", "create_time": uow.now, "update_time": uow.now}
            | fields
            for number in range(count)
        ]
        uow.run_many(sa.insert(documents), rows)
        uow.commit()
    return [row["id"] for row in reversed(rows)]


def _walk(user: User, **fields: Any) -> list[list[pb.Document]]:
    pages = []
    request = pb.ListDocumentsRequest(**fields)
    while True:
        response = user.channel.documents.ListDocuments(request)
        assert response.ByteSize() <= MOST_BYTES + 4096
        pages.append(list(response.documents))
        request.page_token = response.next_page_token
        if not request.page_token:
            return pages


def test_ten_thousand_rows_are_listed_once_each(service: Service) -> None:
    """A list of 10,000 rows made at one moment is walked whole, in order, in full pages, without a pause."""
    user = service.new_user()
    ids = _fill(service, user, 10_000)
    began = time.monotonic()
    pages = _walk(user, page_size=1_000_000)
    assert time.monotonic() - began < 40
    assert [document.id for page in pages for document in page] == ids
    assert [len(page) for page in pages] == [1000] * 10


def test_large_rows_make_short_pages(service: Service) -> None:
    """Rows of 64 KiB make pages that end before gRPC's limit of 4 MiB, and none is lost."""
    user = service.new_user()
    ids = _fill(service, user, 150, metadata={"text": "x" * 65_000})
    pages = _walk(user, page_size=1000)
    assert [document.id for page in pages for document in page] == ids
    assert all(len(page) > 40 for page in pages[:-1])


@_ON_SQLITE
@pytest.mark.parametrize("size", [4 * 1024 * 1024 + 1, 5_000_000, 50_000_000])
def test_a_request_that_is_too_large_is_refused(service: Service, user: User, size: int) -> None:
    """A request beyond 4 MiB is RESOURCE_EXHAUSTED, whatever is in it, and the connection serves on."""
    channel: Any = user.channel.raw
    call = channel.unary_unary(_CREATE)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"x" * size, metadata=(("x-api-key", user.key),), timeout=20)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert user.channel.documents.ListDocuments(pb.ListDocumentsRequest()).documents == []


@_ON_SQLITE
def test_a_request_just_below_the_limit_is_judged_by_its_fields(user: User) -> None:
    """Three megabytes in one field, and metadata of as much, are INVALID_ARGUMENT naming the field."""
    large = pb.Document(name="x" * 3_000_000, type="txt")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.name") as refusal:
        user.channel.documents.CreateDocument(pb.CreateDocumentRequest(document=large))
    assert len(refusal.message) < 200
    metadata = Struct()
    metadata["text"] = "x" * 3_000_000
    large = pb.Document(name="x", type="txt", metadata=metadata)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.metadata"):
        user.channel.documents.CreateDocument(pb.CreateDocumentRequest(document=large))


@_ON_SQLITE
def test_a_batch_whose_answer_would_be_too_large_keeps_nothing(user: User) -> None:
    """A hundred documents that fit a request but not an answer are refused before anything is kept."""
    metadata = Struct()
    metadata["text"] = "x" * 38_000
    batch = pb.BatchCreateDocumentsRequest()
    for number in range(100):
        fields = pb.Document(name=f"{number}", type="txt", metadata=metadata)
        batch.requests.add(document=fields)
    assert batch.ByteSize() < 4 * 1024 * 1024
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests"):
        user.channel.documents.BatchCreateDocuments(batch)
    assert user.channel.documents.ListDocuments(pb.ListDocumentsRequest()).documents == []


@_ON_SQLITE
def test_large_call_metadata_is_refused(user: User) -> None:
    """Twenty kilobytes of call metadata are RESOURCE_EXHAUSTED, and the next call is served."""
    request = pb.ListDocumentsRequest()
    with pytest.raises(grpc.RpcError) as caught:
        user.channel.documents.ListDocuments(request, metadata=(("x-large", "y" * 20_000),))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    user.channel.documents.ListDocuments(request)


@_ON_SQLITE
def test_a_mask_of_a_hundred_thousand_paths_is_judged_in_time(user: User) -> None:
    """A mask with far more paths than there are fields is refused or carried out within seconds."""
    documents_stub = user.channel.documents
    made = documents_stub.CreateDocument(
        pb.CreateDocumentRequest(document=pb.Document(name="a", type="txt"))
    ).document
    request = pb.UpdateDocumentRequest(document=pb.Document(id=made.id, name="b"))
    request.update_mask.paths.extend(["name"] * 100_000)
    began = time.monotonic()
    assert documents_stub.UpdateDocument(request).name == "b"
    request.update_mask.paths.extend(f"x{number}" for number in range(100_000))
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        documents_stub.UpdateDocument(request)
    assert time.monotonic() - began < 10
