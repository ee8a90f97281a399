"""Databases and their documents as tests make them over the wire."""

from __future__ import annotations

from typing import Any

from moragmeta.v1 import databases_pb2 as pb
from moragmeta.v1 import documents_pb2, servers_pb2, users_pb2
from tests.service import User


def make_server(user: User, name: str = "main") -> str:
    """Make a server; give its id."""
    server = servers_pb2.Server(name=name, kind=servers_pb2.SERVER_KIND_CHROMA, host="chroma", port=8000)
    created = user.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
    return str(created.id)


def create(user: User, server_id: str, name: str = "papers", **fields: Any) -> pb.Database:
    """Make a database."""
    database = pb.Database(server_id=server_id, name=name, **fields)
    created: pb.Database = user.channel.databases.CreateDatabase(pb.CreateDatabaseRequest(database=database))
    return created


def get(user: User, id: str) -> pb.Database:
    """Read a database."""
    found: pb.Database = user.channel.databases.GetDatabase(pb.GetDatabaseRequest(id=id))
    return found


def update(user: User, database: pb.Database, *paths: str, request_id: str = "") -> pb.Database:
    """Change the fields that the paths name, or every populated one."""
    request = pb.UpdateDatabaseRequest(database=database, request_id=request_id)
    request.update_mask.paths.extend(paths)
    changed: pb.Database = user.channel.databases.UpdateDatabase(request)
    return changed


def delete(user: User, id: str, *, etag: str = "", force: bool = False, request_id: str = "") -> int:
    """Delete a database; give the number of detached documents."""
    request = pb.DeleteDatabaseRequest(id=id, etag=etag, force=force, request_id=request_id)
    response: pb.DeleteDatabaseResponse = user.channel.databases.DeleteDatabase(request)
    return response.detached_documents


def recount(user: User, id: str, request_id: str = "") -> pb.Database:
    """Count the documents again."""
    request = pb.RecountDocumentsRequest(id=id, request_id=request_id)
    counted: pb.Database = user.channel.databases.RecountDocuments(request)
    return counted


def add_document(user: User, name: str, database_id: str | None = None) -> documents_pb2.Document:
    """Register a document."""
    document = documents_pb2.Document(name=name, type="pdf", database_id=database_id)
    request = documents_pb2.CreateDocumentRequest(document=document)
    created: documents_pb2.Document = user.channel.documents.CreateDocument(request).document
    return created


def delete_document(user: User, id: str) -> None:
    """Delete a document so that it can be undeleted."""
    user.channel.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=id))


def undelete_document(user: User, id: str) -> None:
    """Bring a document back."""
    user.channel.documents.UndeleteDocument(documents_pb2.UndeleteDocumentRequest(id=id))


def get_document(user: User, id: str) -> documents_pb2.Document:
    """Read a document."""
    found: documents_pb2.Document = user.channel.documents.GetDocument(
        documents_pb2.GetDocumentRequest(id=id)
    )
    return found


def set_default(user: User, database_id: str) -> None:
    """Make a database the user's default."""
    settings = users_pb2.UserSettings(default_database_id=database_id)
    user.channel.users.UpdateUserSettings(users_pb2.UpdateUserSettingsRequest(settings=settings))


def default_of(user: User) -> str | None:
    """Give the id of the user's default database, or None."""
    settings = user.channel.users.GetUserSettings(users_pb2.GetUserSettingsRequest())
    return settings.default_database_id if settings.HasField("default_database_id") else None
