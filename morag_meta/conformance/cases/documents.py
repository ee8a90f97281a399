"""Documents: duplicates, batches, deletion and what a document may hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.struct_pb2 import Struct

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import documents_pb2 as pb

AREA = Area("documents")


def _delete(bench: Bench, document_id: str) -> pb.Document:
    return bench.mine.documents.DeleteDocument(pb.DeleteDocumentRequest(id=document_id))


def _undelete(bench: Bench, document_id: str) -> pb.Document:
    return bench.mine.documents.UndeleteDocument(pb.UndeleteDocumentRequest(id=document_id))


def _listed(bench: Bench, **fields: Any) -> list[str]:
    request = pb.ListDocumentsRequest(types=[bench.kind], **fields)
    return [each.id for each in bench.mine.documents.ListDocuments(request).documents]


@AREA.case
def a_document_begins_pending(bench: Bench) -> None:
    """A new document is PENDING, of version 1, and no version of it is ingested."""
    made = bench.create_document()
    seen = (made.outcome, made.document.state, made.document.version, made.document.ingested_version)
    wanted = (pb.CREATE_DOCUMENT_OUTCOME_CREATED, pb.DOCUMENT_STATE_PENDING, 1, 0)
    same("outcome, state, version, ingested_version", seen, wanted)


@AREA.case
def a_duplicate_is_refused(bench: Bench) -> None:
    """A document with the name, the external_id or the content_hash of another is ALREADY_EXISTS."""
    first = bench.add_document(external_id=bench.name(), content_hash=bench.name())
    for field in ("name", "external_id", "content_hash"):
        with refused(
            "ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="document", field=field, existing_id=first.id
        ):
            bench.add_document(None, **{field: getattr(first, field)})


@AREA.case
def an_identity_holds_within_its_database(bench: Bench) -> None:
    """Documents in different databases may have the same name and the same external_id."""
    identity: dict[str, Any] = {"name": bench.name(), "external_id": bench.name()}
    first = bench.add_document(**identity)
    second = bench.add_document(database_id=bench.add_database().id, **identity)
    same("whether they are one", first.id == second.id, False)


@AREA.case
def an_existing_document_is_returned(bench: Bench) -> None:
    """RETURN_EXISTING answers the document that is there, and changes nothing."""
    first = bench.add_document(size_bytes=1)
    again = bench.create_document(on_duplicate=pb.ON_DUPLICATE_RETURN_EXISTING, name=first.name, size_bytes=2)
    same("outcome", again.outcome, pb.CREATE_DOCUMENT_OUTCOME_EXISTING)
    same("the document", again.document, first)


@AREA.case
def a_new_version_keeps_the_id(bench: Bench) -> None:
    """NEW_VERSION gives the document one version more, PENDING, with the new content's facts."""
    first = bench.add_document(content_hash=bench.name())
    fields: dict[str, Any] = {"name": first.name, "content_hash": bench.name(), "size_bytes": 7}
    again = bench.create_document(on_duplicate=pb.ON_DUPLICATE_NEW_VERSION, **fields)
    same("outcome", again.outcome, pb.CREATE_DOCUMENT_OUTCOME_NEW_VERSION)
    seen = (again.document.id, again.document.version, again.document.size_bytes, again.document.state)
    same("id, version, size, state", seen, (first.id, 2, 7, pb.DOCUMENT_STATE_PENDING))


@AREA.case
def the_same_content_is_no_new_version(bench: Bench) -> None:
    """NEW_VERSION with the content_hash that the document has changes nothing."""
    first = bench.add_document(content_hash=bench.name())
    fields: dict[str, Any] = {"name": first.name, "content_hash": first.content_hash}
    again = bench.create_document(on_duplicate=pb.ON_DUPLICATE_NEW_VERSION, **fields)
    same("outcome", again.outcome, pb.CREATE_DOCUMENT_OUTCOME_EXISTING)
    same("version", again.document.version, 1)


@AREA.case
def two_matches_are_refused(bench: Bench) -> None:
    """A document that matches two others is ALREADY_EXISTS whatever on_duplicate says."""
    first, second = bench.add_document(external_id=bench.name()), bench.add_document()
    for choice in (pb.ON_DUPLICATE_RETURN_EXISTING, pb.ON_DUPLICATE_NEW_VERSION):
        with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="document"):
            bench.create_document(on_duplicate=choice, external_id=first.external_id, name=second.name)


@AREA.case
def one_is_created_of_many_at_once(bench: Bench) -> None:
    """Of one document registered six times at once one is created, and the others find it."""
    name = bench.name()
    with ThreadPoolExecutor(6) as pool:
        made = list(
            pool.map(
                lambda _: bench.create_document(on_duplicate=pb.ON_DUPLICATE_RETURN_EXISTING, name=name),
                range(6),
            )
        )
    outcomes = [each.outcome for each in made]
    same("different documents", len({each.document.id for each in made}), 1)
    same("documents created", outcomes.count(pb.CREATE_DOCUMENT_OUTCOME_CREATED), 1)


@AREA.case
def a_batch_is_all_or_nothing(bench: Bench) -> None:
    """A batch with one wrong document names that one, and creates none."""
    request = pb.BatchCreateDocumentsRequest()
    for name in (bench.name(), bench.name(), ""):
        request.requests.add().document.MergeFrom(pb.Document(name=name, type=bench.kind))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests[2].document.name"):
        bench.mine.documents.BatchCreateDocuments(request)
    same("documents created", _listed(bench), [])


@AREA.case
def a_batch_sees_its_own_duplicates(bench: Bench) -> None:
    """In a batch a later document may be a duplicate of an earlier one."""
    document = pb.Document(name=bench.name(), type=bench.kind)
    request = pb.BatchCreateDocumentsRequest()
    for _ in range(2):
        each = request.requests.add(on_duplicate=pb.ON_DUPLICATE_RETURN_EXISTING)
        each.document.CopyFrom(document)
    answers = bench.mine.documents.BatchCreateDocuments(request).responses
    bench.later("document", lambda: _delete(bench, answers[0].document.id))
    wanted = [pb.CREATE_DOCUMENT_OUTCOME_CREATED, pb.CREATE_DOCUMENT_OUTCOME_EXISTING]
    same("the outcomes", [each.outcome for each in answers], wanted)


@AREA.case
def many_are_got_at_once(bench: Bench) -> None:
    """BatchGetDocuments answers in the order asked, and names the ids that are not there."""
    ids, none = [bench.add_document().id for _ in range(3)], missing_id()
    request = pb.BatchGetDocumentsRequest(ids=[ids[2], none, ids[0], ids[2]])
    answer = bench.mine.documents.BatchGetDocuments(request)
    same("documents", [each.id for each in answer.documents], [ids[2], ids[0]])
    same("missing ids", list(answer.missing_ids), [none])


@AREA.case
def a_deleted_document_can_be_seen(bench: Bench) -> None:
    """A deleted document is DELETED with a delete_time, is got, and listed only on request."""
    document = bench.add_document()
    deleted = _delete(bench, document.id)
    same("state", deleted.state, pb.DOCUMENT_STATE_DELETED)
    same("whether it has a delete_time", bench.document(document.id).HasField("delete_time"), True)
    same("listed", _listed(bench), [])
    same("listed on request", _listed(bench, show_deleted=True), [document.id])
    same("listed by state", _listed(bench, states=[pb.DOCUMENT_STATE_DELETED]), [document.id])


@AREA.case
def a_deleted_document_is_closed(bench: Bench) -> None:
    """A deleted document is FAILED_PRECONDITION to change, to delete and to ingest."""
    document = bench.add_document()
    _delete(bench, document.id)
    change = pb.UpdateDocumentRequest(document=pb.Document(id=document.id, size_bytes=1))
    with refused("FAILED_PRECONDITION", "INVALID_STATE", resource_type="document", state="DELETED"):
        bench.mine.documents.UpdateDocument(change)
    with refused("FAILED_PRECONDITION", "INVALID_STATE", state="DELETED"):
        _delete(bench, document.id)
    with refused("FAILED_PRECONDITION", "INVALID_STATE", state="DELETED"):
        bench.add_job(kind="INGESTION", document_id=document.id)


@AREA.case
def an_undeleted_document_is_as_it_was(bench: Bench) -> None:
    """An undeleted document has the state that it had; one that is live is ALREADY_EXISTS."""
    document = bench.ingested()
    _delete(bench, document.id)
    after = _undelete(bench, document.id)
    same("state and delete_time", (after.state, after.HasField("delete_time")), (document.state, False))
    with refused("ALREADY_EXISTS", "NOT_DELETED", resource_id=document.id):
        _undelete(bench, document.id)


@AREA.case
def a_deletion_frees_the_name(bench: Bench) -> None:
    """A deleted document's name can be used again, and then it cannot be undeleted."""
    first = bench.add_document()
    _delete(bench, first.id)
    second = bench.add_document(name=first.name)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", field="name", existing_id=second.id):
        _undelete(bench, first.id)


@AREA.case
def only_the_ingested_is_deprecated(bench: Bench) -> None:
    """DeprecateDocument takes an INGESTED document alone, and ReinstateDocument brings it back."""
    pending, document = bench.add_document(), bench.ingested()
    stub = bench.mine.documents
    with refused("FAILED_PRECONDITION", "INVALID_STATE", state="PENDING"):
        stub.DeprecateDocument(pb.DeprecateDocumentRequest(id=pending.id))
    with refused("FAILED_PRECONDITION", "INVALID_STATE", state="INGESTED"):
        stub.ReinstateDocument(pb.ReinstateDocumentRequest(id=document.id))
    old = stub.DeprecateDocument(pb.DeprecateDocumentRequest(id=document.id, reason="old"))
    same("state and reason", (old.state, old.deprecation_reason), (pb.DOCUMENT_STATE_DEPRECATED, "old"))
    back = stub.ReinstateDocument(pb.ReinstateDocumentRequest(id=document.id))
    seen = (back.state, back.HasField("deprecation_reason"), back.HasField("deprecate_time"))
    same("state, and whether reason and time are set", seen, (pb.DOCUMENT_STATE_INGESTED, False, False))


@AREA.case
def metadata_is_limited(bench: Bench) -> None:
    """Metadata over 64 KiB, over 16 levels, or with a number that is not finite is INVALID_ARGUMENT."""
    deep: dict[str, Any] = {}
    for _ in range(17):
        deep = {"x": deep}
    for value in ({"x": "x" * 65_536}, deep, {"x": float("inf")}, {"x": "a\0"}):
        metadata = Struct()
        metadata.update(value)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.metadata"):
            bench.add_document(metadata=metadata)


@AREA.case
def metadata_is_kept_exactly(bench: Bench) -> None:
    """Metadata of nearly 64 KiB is kept as it is."""
    metadata = Struct()
    metadata.update({"text": "é" * 32_000, "deep": {"list": [1.5, None, {"x": True}]}})
    same("the metadata", bench.document(bench.add_document(metadata=metadata).id).metadata, metadata)


@AREA.case
def lists_are_ordered_as_asked(bench: Bench) -> None:
    """ListDocuments orders by name or time as order_by says, and refuses any other word."""
    stem = bench.name()
    ids = [bench.add_document(name=stem + letter).id for letter in "bca"]
    same("by name", _listed(bench, order_by="name"), [ids[2], ids[0], ids[1]])
    same("by name downwards", _listed(bench, order_by="name desc"), [ids[1], ids[0], ids[2]])
    same("by time", _listed(bench, order_by="create_time"), ids)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "order_by"):
        _listed(bench, order_by="size_bytes")


@AREA.case
def documents_are_found_by_what_they_are(bench: Bench) -> None:
    """ListDocuments filters by database, external_id, content_hash and a part of the name."""
    database = bench.add_database()
    fields: dict[str, Any] = {
        "external_id": bench.name(),
        "content_hash": bench.name(),
        "database_id": database.id,
    }
    wanted, other = bench.add_document(**fields).id, bench.add_document().id
    for name, value in fields.items():
        same(f"by {name}", _listed(bench, **{name: value}), [wanted])
    same("in no database", _listed(bench, database_id="-"), [other])
    same("by name in any case", len(_listed(bench, name_contains="CONFORMANCE")), 2)
