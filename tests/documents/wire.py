"""What tests of DocumentService say often, over the wire."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from moragmeta.v1 import databases_pb2, jobs_pb2, servers_pb2
from moragmeta.v1 import documents_pb2 as pb
from tests.service import User

CREATED = pb.CREATE_DOCUMENT_OUTCOME_CREATED
EXISTING = pb.CREATE_DOCUMENT_OUTCOME_EXISTING
NEW_VERSION = pb.CREATE_DOCUMENT_OUTCOME_NEW_VERSION

IDENTITIES = ["name", "external_id", "content_hash"]
INSIDE = pytest.mark.parametrize("inside", [False, True], ids=["in no database", "in a database"])

_numbers = itertools.count(1)


def struct(**values: Any) -> Struct:
    """A Struct of these values."""
    made = Struct()
    made.update(values)
    return made


def request(
    on_duplicate: pb.OnDuplicate.ValueType = pb.ON_DUPLICATE_UNSPECIFIED, /, **fields: Any
) -> pb.CreateDocumentRequest:
    """A request for a document named ``a.pdf``, but for the fields that are given."""
    document = pb.Document(**{"name": "a.pdf", "type": "pdf", **fields})
    return pb.CreateDocumentRequest(document=document, on_duplicate=on_duplicate)


def upload(
    user: User, on_duplicate: pb.OnDuplicate.ValueType = pb.ON_DUPLICATE_UNSPECIFIED, /, **fields: Any
) -> pb.CreateDocumentResponse:
    """Create a document named ``a.pdf``, but for the fields that are given."""
    return user.channel.documents.CreateDocument(request(on_duplicate, **fields))


def new_document(user: User, **fields: Any) -> pb.Document:
    """A document with a name of its own."""
    return upload(user, **{"name": f"{next(_numbers)}.pdf", **fields}).document


def get(user: User, id: str) -> pb.Document:
    """The document as it is now."""
    return user.channel.documents.GetDocument(pb.GetDocumentRequest(id=id))


def new_database(user: User) -> str:
    """The id of a new database on a new server of the user."""
    server = user.channel.servers.CreateServer(
        servers_pb2.CreateServerRequest(
            server=servers_pb2.Server(
                name=f"server {next(_numbers)}",
                kind=servers_pb2.SERVER_KIND_QDRANT,
                host="localhost",
                port=6333,
            )
        )
    )
    database = databases_pb2.Database(server_id=server.id, name=f"database {next(_numbers)}")
    made = user.channel.databases.CreateDatabase(databases_pb2.CreateDatabaseRequest(database=database))
    return made.id


def scope(user: User, *, inside: bool) -> dict[str, Any]:
    """The fields that put a document in a new database, or in none."""
    return {"database_id": new_database(user)} if inside else {}


def count_of(user: User, database_id: str) -> int:
    """How many documents the database says it has."""
    got = user.channel.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=database_id))
    return got.document_count


def new_job(user: User, document_id: str) -> str:
    """The id of a new ingestion job of the document."""
    job = jobs_pb2.Job(kind="INGESTION", document_id=document_id)
    return user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job)).id


def start_ingestion(user: User, document_id: str) -> str:
    """Create and start an ingestion job of the document; its id."""
    job_id = new_job(user, document_id)
    user.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id))
    return job_id


def complete(user: User, job_id: str, chunks: int = 7, quality: float = 0.5, **metadata: Any) -> None:
    """End the job's first attempt well."""
    result = jobs_pb2.JobResult(chunks=chunks, quality=quality, metadata=struct(**metadata))
    user.channel.jobs.CompleteJob(
        jobs_pb2.CompleteJobRequest(id=job_id, attempt=1, report_number=1, result=result)
    )


def fail(user: User, job_id: str, error: str = "no text") -> None:
    """End the job's first attempt with an error."""
    user.channel.jobs.FailJob(jobs_pb2.FailJobRequest(id=job_id, attempt=1, report_number=1, error=error))


def job(user: User, job_id: str) -> jobs_pb2.Job:
    """The job as it is now."""
    return user.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id))


def ingested(user: User, **fields: Any) -> pb.Document:
    """A document that was ingested once."""
    document = new_document(user, **fields)
    complete(user, start_ingestion(user, document.id))
    return get(user, document.id)


def update(user: User, id: str, *paths: str, request_id: str = "", **fields: Any) -> pb.Document:
    """Write fields of a document; with no paths there is no mask."""
    return user.channel.documents.UpdateDocument(
        pb.UpdateDocumentRequest(
            document=pb.Document(id=id, **fields),
            update_mask=FieldMask(paths=paths) if paths else None,
            request_id=request_id,
        )
    )
