"""Registers the text files of a folder as documents, each with an ingestion job for a worker to take.

    MORAG_API_KEY=... python examples/register_folder.py FOLDER [--database NAME]

Run it as often as you like: what is registered with the same content is left alone, a changed file
becomes a new version of its document, and a document without an open job that is still to be ingested
gets one. A document's name is the file's path within the folder, its source the file's URI.

What does not live here: reading the files for their text (``worker.py``) and watching (``watch.py``).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
from connection import Connection, code, explain, info, reason

from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2, servers_pb2

SERVER_NAME: Final = "example"
DATABASE_NAME: Final = "example"

# The types of text that the worker can read; other files are left out.
TYPES: Final = {
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    **dict.fromkeys((".txt", ".text", ".rst", ".csv", ".log"), "txt"),
    **dict.fromkeys((".json", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".sql"), "txt"),
    **dict.fromkeys((".py", ".proto", ".go", ".java", ".ts", ".js", ".sh", ".c", ".h"), "txt"),
}
_OUTCOMES: Final = {
    documents_pb2.CREATE_DOCUMENT_OUTCOME_CREATED: "new",
    documents_pb2.CREATE_DOCUMENT_OUTCOME_NEW_VERSION: "new version",
    documents_pb2.CREATE_DOCUMENT_OUTCOME_EXISTING: "unchanged",
}


def new_request_id() -> str:
    """Return an id that makes the repeats of one call harmless; every call gets its own."""
    return str(uuid.uuid4())


def text_files(folder: Path) -> Iterator[Path]:
    """Give the files to register, in order: no hidden ones, no links, nothing of an unknown type."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in TYPES and not hidden and path.is_file() and not path.is_symlink():
            yield path


def find_server(connection: Connection, name: str) -> servers_pb2.Server | None:
    """Return the caller's server of that name; names are unique, so one page shows whether there is one."""
    request = servers_pb2.ListServersRequest(name_contains=name, page_size=1000)
    servers = connection.call(connection.servers.ListServers, request).servers
    return next((server for server in servers if server.name == name), None)


def find_database(connection: Connection, name: str) -> databases_pb2.Database | None:
    """Return the caller's database of that name."""
    request = databases_pb2.ListDatabasesRequest(name_contains=name, page_size=1000)
    databases = connection.call(connection.databases.ListDatabases, request).databases
    return next((database for database in databases if database.name == name), None)


def ensure_database(connection: Connection, name: str) -> databases_pb2.Database:
    """Return the database, made now on a server for examples if it is not there.

    The server's address is never connected to, neither by the service nor by these examples.
    """
    if (found := find_database(connection, name)) is not None:
        return found
    server = find_server(connection, SERVER_NAME) or connection.call(
        connection.servers.CreateServer,
        servers_pb2.CreateServerRequest(
            server=servers_pb2.Server(
                name=SERVER_NAME, kind=servers_pb2.SERVER_KIND_QDRANT, host="localhost", port=6333
            ),
            request_id=new_request_id(),
        ),
    )
    return connection.call(
        connection.databases.CreateDatabase,
        databases_pb2.CreateDatabaseRequest(
            database=databases_pb2.Database(name=name, server_id=server.id), request_id=new_request_id()
        ),
    )


def register(
    connection: Connection, database_id: str, folder: Path, path: Path
) -> documents_pb2.CreateDocumentResponse:
    """Register one file; what was registered of it before decides what that means."""
    content = path.read_bytes()
    document = documents_pb2.Document(
        database_id=database_id,
        name=path.relative_to(folder).as_posix(),
        type=TYPES[path.suffix.lower()],
        size_bytes=len(content),
        source=path.as_uri(),
        content_hash=f"sha256:{hashlib.sha256(content).hexdigest()}",
    )
    request = documents_pb2.CreateDocumentRequest(
        document=document,
        on_duplicate=documents_pb2.ON_DUPLICATE_NEW_VERSION,
        request_id=new_request_id(),
    )
    return connection.call(connection.documents.CreateDocument, request)


def ensure_job(connection: Connection, document: documents_pb2.Document) -> str:
    """Return the id of the document's open ingestion job, made now if there is none.

    Returns nothing where the document needs no ingestion.
    """
    if document.state not in (documents_pb2.DOCUMENT_STATE_PENDING, documents_pb2.DOCUMENT_STATE_INGESTING):
        return ""
    job = jobs_pb2.Job(kind="INGESTION", document_id=document.id)
    request = jobs_pb2.CreateJobRequest(job=job, request_id=new_request_id())
    try:
        return connection.call(connection.jobs.CreateJob, request).id
    except grpc.RpcError as error:
        if reason(error) == "JOB_ALREADY_OPEN":
            return info(error).metadata["job_id"]
        raise


def register_all(connection: Connection, folder: Path, database_name: str) -> int:
    """Register every text file of the folder, say what became of each, and return how many failed."""
    database = ensure_database(connection, database_name)
    failures = 0
    for path in text_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            response = register(connection, database.id, folder, path)
            job_id = ensure_job(connection, response.document)
        except (OSError, grpc.RpcError) as error:
            if isinstance(error, grpc.RpcError) and code(error) is grpc.StatusCode.UNAUTHENTICATED:
                raise
            failures += 1
            print(f"{'refused':12}{name}: {explain(error) if isinstance(error, grpc.RpcError) else error}")
            continue
        document = response.document
        same = "" if document.name == name else f", same content as {document.name}"
        print(f"{_OUTCOMES[response.outcome]:12}{name}{same}{f'  job {job_id}' if job_id else ''}")
    return failures


def main() -> None:
    """Read the command line and register."""
    parser = argparse.ArgumentParser(description="Register the text files of a folder as documents.")
    parser.add_argument("folder", type=Path, help="the folder; its text files are registered, deeply")
    parser.add_argument("--database", default=DATABASE_NAME, help="the database that they belong to")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not folder.is_dir():
        parser.error(f"{arguments.folder} is not a folder")
    with Connection() as connection:
        try:
            failures = register_all(connection, folder, arguments.database)
        except grpc.RpcError as error:
            sys.exit(explain(error))
    if failures:
        sys.exit(f"{failures} files were not registered")


if __name__ == "__main__":
    main()
