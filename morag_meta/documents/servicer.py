"""DocumentService: what each call does, in the words of actions, rules and store.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

from typing import Any

from morag_meta.auth.sharing import Level
from morag_meta.db.unit import Row
from morag_meta.documents import actions, rules
from morag_meta.documents.convert import (
    document_to_proto,
    fields_from_proto,
    filter_from_proto,
    on_duplicate_from_proto,
    outcome_to_proto,
)
from morag_meta.documents.identity import Outcome
from morag_meta.documents.listing import parse_order
from morag_meta.errors import invalid
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag
from morag_meta.rpc.masks import masked
from morag_meta.rpc.methods import reads, writes
from morag_meta.rpc.pages import MOST_BYTES, Pages
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import documents_pb2 as pb

_FRAMING = 16  # bytes around one document in an answer, at most


def _creation_receipt(response: pb.CreateDocumentResponse) -> dict[str, Any]:
    return {"id": response.document.id, "outcome": int(response.outcome)}


def _batch_receipt(response: pb.BatchCreateDocumentsResponse) -> dict[str, Any]:
    return {"items": [_creation_receipt(item) for item in response.responses]}


def _created(row: Row, outcome: Outcome) -> pb.CreateDocumentResponse:
    return pb.CreateDocumentResponse(document=document_to_proto(row), outcome=outcome_to_proto(outcome))


def _in_bounds(response: pb.BatchCreateDocumentsResponse) -> pb.BatchCreateDocumentsResponse:
    if response.ByteSize() > MOST_BYTES:
        raise invalid("requests", f"the answer would be larger than {MOST_BYTES} bytes; send fewer at once")
    return response


class DocumentServicer:
    """The documents of a user; see ``protos/moragmeta/v1/documents.proto``."""

    SERVICE = "moragmeta.v1.DocumentService"

    def __init__(self, pages: Pages) -> None:
        """Take what seals page tokens."""
        self._pages = pages

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Document:
        return document_to_proto(uow.documents.get(call.reach, receipt["id"], call.grantee(Level.READER)))

    def _replay_creation(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.CreateDocumentResponse:
        return pb.CreateDocumentResponse(
            document=self._replay(uow, call, receipt), outcome=receipt["outcome"], replayed=True
        )

    def _replay_batch(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.BatchCreateDocumentsResponse:
        responses = [self._replay_creation(uow, call, item) for item in receipt["items"]]
        return _in_bounds(pb.BatchCreateDocumentsResponse(responses=responses))

    @writes(replay=_replay_creation, receipt=_creation_receipt)
    def CreateDocument(
        self, uow: UnitOfWork, request: pb.CreateDocumentRequest, call: Call
    ) -> pb.CreateDocumentResponse:
        owner, fields = call.reach_of(request.owner_id), fields_from_proto(request.document)
        on_duplicate = on_duplicate_from_proto(request.on_duplicate)
        return _created(
            *actions.create_document(uow, owner, fields, on_duplicate, call.grantee(Level.WRITER))
        )

    @writes(replay=_replay_batch, receipt=_batch_receipt)
    def BatchCreateDocuments(
        self, uow: UnitOfWork, request: pb.BatchCreateDocumentsRequest, call: Call
    ) -> pb.BatchCreateDocumentsResponse:
        owner = call.reach_of(request.owner_id)
        uploads = []
        for position, item in enumerate(request.requests):
            path = f"requests[{position}]"
            for name in ("owner_id", "request_id"):
                if getattr(item, name):
                    raise invalid(f"{path}.{name}", "must be empty in an item; set it on the batch")
            fields = fields_from_proto(item.document, path=f"{path}.document")
            uploads.append((fields, on_duplicate_from_proto(item.on_duplicate)))
        done = actions.create_documents(uow, owner, uploads, call.grantee(Level.WRITER))
        return _in_bounds(pb.BatchCreateDocumentsResponse(responses=[_created(*one) for one in done]))

    @reads(point=True)
    def GetDocument(self, uow: UnitOfWork, request: pb.GetDocumentRequest, call: Call) -> pb.Document:
        return document_to_proto(uow.documents.get(call.reach, request.id, call.grantee(Level.READER)))

    @reads()
    def BatchGetDocuments(
        self, uow: UnitOfWork, request: pb.BatchGetDocumentsRequest, call: Call
    ) -> pb.BatchGetDocumentsResponse:
        ids = list(dict.fromkeys(request.ids))
        rows = uow.documents.find_many(call.reach, ids, call.grantee(Level.READER))
        response = pb.BatchGetDocumentsResponse(missing_ids=[id for id in ids if id not in rows])
        total = response.ByteSize()
        for id in ids:
            if id not in rows:
                continue
            document = document_to_proto(rows[id])
            total += document.ByteSize() + _FRAMING
            if response.documents and total > MOST_BYTES:
                response.deferred_ids.append(id)
            else:
                response.documents.append(document)
        return response

    @reads()
    def ListDocuments(
        self, uow: UnitOfWork, request: pb.ListDocumentsRequest, call: Call
    ) -> pb.ListDocumentsResponse:
        reach, grantee = call.reach_of(request.owner_id), call.grantee(Level.READER)
        chosen, order = filter_from_proto(request), parse_order(request.order_by)
        page = self._pages.page(
            call,
            request,
            keys=(order.column, "id"),
            fetch=lambda after, limit: actions.list_page(uow, reach, chosen, order, after, limit, grantee),
            convert=document_to_proto,
        )
        return pb.ListDocumentsResponse(documents=page.items, next_page_token=page.next_token)

    @writes(replay=_replay)
    def UpdateDocument(self, uow: UnitOfWork, request: pb.UpdateDocumentRequest, call: Call) -> pb.Document:
        document = request.document
        changes = fields_from_proto(document, masked(document, request.update_mask))
        row = actions.update_document(
            uow, call.reach, document.id, changes, etag=document.etag, grantee=call.grantee(Level.WRITER)
        )
        return document_to_proto(row)

    @writes(replay=_replay)
    def DeprecateDocument(
        self, uow: UnitOfWork, request: pb.DeprecateDocumentRequest, call: Call
    ) -> pb.Document:
        row = uow.documents.lock(call.reach, request.id, call.grantee(Level.WRITER))
        check_etag(request.etag, row)
        return document_to_proto(uow.documents.change(row, **rules.deprecated(row, uow.now, request.reason)))

    @writes(replay=_replay)
    def ReinstateDocument(
        self, uow: UnitOfWork, request: pb.ReinstateDocumentRequest, call: Call
    ) -> pb.Document:
        row = uow.documents.lock(call.reach, request.id, call.grantee(Level.WRITER))
        check_etag(request.etag, row)
        return document_to_proto(uow.documents.change(row, **rules.reinstated(row)))

    @writes(replay=_replay)
    def DeleteDocument(self, uow: UnitOfWork, request: pb.DeleteDocumentRequest, call: Call) -> pb.Document:
        grantee = call.grantee(Level.WRITER)
        row = actions.delete_document(uow, call.reach, request.id, etag=request.etag, grantee=grantee)
        return document_to_proto(row)

    @writes(replay=_replay)
    def UndeleteDocument(
        self, uow: UnitOfWork, request: pb.UndeleteDocumentRequest, call: Call
    ) -> pb.Document:
        grantee = call.grantee(Level.WRITER)
        row = actions.undelete_document(uow, call.reach, request.id, etag=request.etag, grantee=grantee)
        return document_to_proto(row)
