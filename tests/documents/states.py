"""Documents in each state, and the verbs that lead there, over the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    get,
    ingested,
    new_document,
    start_ingestion,
)
from tests.service import User


def deprecate(user: User, id: str, reason: str = "old", **more: str) -> pb.Document:
    """Deprecate a document."""
    request = pb.DeprecateDocumentRequest(id=id, reason=reason, **more)
    return user.channel.documents.DeprecateDocument(request)


def reinstate(user: User, id: str, **more: str) -> pb.Document:
    """Reinstate a document."""
    return user.channel.documents.ReinstateDocument(pb.ReinstateDocumentRequest(id=id, **more))


def delete(user: User, id: str, **more: str) -> pb.Document:
    """Delete a document."""
    return user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=id, **more))


def undelete(user: User, id: str, **more: str) -> pb.Document:
    """Undelete a document."""
    return user.channel.documents.UndeleteDocument(pb.UndeleteDocumentRequest(id=id, **more))


VERBS: dict[str, Callable[..., pb.Document]] = {
    "deprecate": deprecate,
    "reinstate": reinstate,
    "delete": delete,
    "undelete": undelete,
}


def in_state(user: User, state: str, **fields: Any) -> pb.Document:
    """A document that went to a state as documents go there."""
    if state in ("INGESTED", "DEPRECATED"):
        document = ingested(user, **fields)
        return document if state == "INGESTED" else deprecate(user, document.id)
    document = new_document(user, **fields)
    if state == "INGESTING":
        start_ingestion(user, document.id)
    if state == "DELETED":
        delete(user, document.id)
    return get(user, document.id)


def state_of(user: User, id: str) -> str:
    """The name of the document's state."""
    return pb.DocumentState.Name(get(user, id).state).removeprefix("DOCUMENT_STATE_")
