"""Databases: names, the count of documents, and what a deletion leaves."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import databases_pb2 as pb
from moragmeta.v1 import documents_pb2

AREA = Area("databases")


def _get(bench: Bench, database_id: str) -> pb.Database:
    return bench.mine.databases.GetDatabase(pb.GetDatabaseRequest(id=database_id))


def _delete(bench: Bench, database_id: str, *, force: bool = False) -> pb.DeleteDatabaseResponse:
    return bench.mine.databases.DeleteDatabase(pb.DeleteDatabaseRequest(id=database_id, force=force))


def _count(bench: Bench, database_id: str, expected: int, when: str) -> None:
    same(f"document_count {when}", _get(bench, database_id).document_count, expected)


@AREA.case
def a_database_needs_a_server(bench: Bench) -> None:
    """A database on a server that does not exist is NOT_FOUND, and without one INVALID_ARGUMENT."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="server"):
        bench.add_database(server_id=missing_id())
    request = pb.CreateDatabaseRequest(database=pb.Database(name=bench.name()))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "database.server_id"):
        bench.mine.databases.CreateDatabase(request)


@AREA.case
def a_name_is_taken_once(bench: Bench) -> None:
    """A name that another database of the owner has is ALREADY_EXISTS, on whichever server."""
    name = bench.add_database().name
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="database", field="name"):
        bench.add_database(name=name)


@AREA.case
def the_count_follows_the_documents(bench: Bench) -> None:
    """document_count follows creation, moves, deletion and undeletion of documents."""
    database, other = bench.add_database(), bench.add_database()
    _count(bench, database.id, 0, "at first")
    document = bench.add_document(database_id=database.id)
    bench.add_document(database_id=database.id)
    _count(bench, database.id, 2, "after two documents")
    moved = documents_pb2.Document(id=document.id, database_id=other.id)
    bench.mine.documents.UpdateDocument(documents_pb2.UpdateDocumentRequest(document=moved))
    _count(bench, database.id, 1, "after one moved away")
    _count(bench, other.id, 1, "where it moved to")
    bench.mine.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    _count(bench, other.id, 0, "after its deletion")
    bench.mine.documents.UndeleteDocument(documents_pb2.UndeleteDocumentRequest(id=document.id))
    _count(bench, other.id, 1, "after its undeletion")


@AREA.case
def documents_leave_the_etag(bench: Bench) -> None:
    """Documents change the content's time, and neither the etag nor the update_time."""
    before = bench.add_database()
    bench.add_document(database_id=before.id)
    after = _get(bench, before.id)
    same("document_count", after.document_count, 1)
    same("etag and update_time", (after.etag, after.update_time), (before.etag, before.update_time))
    same(
        "whether the content's time went on",
        after.content_update_time.ToNanoseconds() >= before.content_update_time.ToNanoseconds(),
        True,
    )


@AREA.case
def a_database_with_documents_is_kept(bench: Bench) -> None:
    """A database with documents is FAILED_PRECONDITION to delete; deleted documents do not count."""
    database = bench.add_database()
    document = bench.add_document(database_id=database.id)
    with refused("FAILED_PRECONDITION", "HAS_CHILDREN", children="documents", count="1"):
        _delete(bench, database.id)
    bench.mine.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    same("detached documents", _delete(bench, database.id).detached_documents, 0)


@AREA.case
def force_detaches_the_documents(bench: Bench) -> None:
    """With force a database goes, and its documents stay and are in none."""
    database = bench.add_database()
    document = bench.add_document(database_id=database.id)
    same("detached documents", _delete(bench, database.id, force=True).detached_documents, 1)
    same("whether it is in one", bench.document(document.id).HasField("database_id"), False)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
        _get(bench, database.id)


@AREA.case
def a_recount_agrees(bench: Bench) -> None:
    """A recount finds the number that is kept, and leaves the etag."""
    database = bench.add_database()
    bench.add_document(database_id=database.id)
    recounted = bench.mine.databases.RecountDocuments(pb.RecountDocumentsRequest(id=database.id))
    same("count and etag", (recounted.document_count, recounted.etag), (1, database.etag))


@AREA.case
def databases_are_listed_by_server(bench: Bench) -> None:
    """A list by server shows that server's databases, and none for a server that does not exist."""
    database = bench.add_database()
    bench.add_database()
    for server_id, expected in ((database.server_id, [database.id]), (missing_id(), [])):
        answer = bench.mine.databases.ListDatabases(pb.ListDatabasesRequest(server_id=server_id))
        same("databases of the server", [each.id for each in answer.databases], expected)
