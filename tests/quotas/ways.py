"""Every way in which a user comes to have more of something that a quota can bound."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from moragmeta.v1 import api_keys_pb2, databases_pb2, documents_pb2, jobs_pb2, quotas_pb2, servers_pb2
from tests.service import Service, User

_numbers = itertools.count(1)


def name() -> str:
    """Give a name that nothing has."""
    return f"counted {next(_numbers)}"


def set_limits(service: Service, user: User, **limits: int) -> quotas_pb2.Quotas:
    """Set limits of a user."""
    quotas = quotas_pb2.Quotas(owner_id=user.id)
    for resource, limit in limits.items():
        setattr(quotas, resource, limit)
    done: quotas_pb2.Quotas = service.admin.channel.quotas.SetQuotas(
        quotas_pb2.SetQuotasRequest(quotas=quotas)
    )
    return done


def usage(user: User) -> quotas_pb2.Usage:
    """Read what a user has."""
    found: quotas_pb2.Usage = user.channel.quotas.GetUsage(quotas_pb2.GetUsageRequest())
    return found


def a_server(user: User, by: User | None = None) -> servers_pb2.Server:
    """Register a server of a user."""
    server = servers_pb2.Server(name=name(), kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    owner_id = "" if by is None else user.id
    request = servers_pb2.CreateServerRequest(server=server, owner_id=owner_id)
    made: servers_pb2.Server = (by or user).channel.servers.CreateServer(request)
    return made


def a_database(user: User) -> Callable[[], Any]:
    """Prepare the creation of a database."""
    server_id = a_server(user).id
    return lambda: user.channel.databases.CreateDatabase(
        databases_pb2.CreateDatabaseRequest(database=databases_pb2.Database(name=name(), server_id=server_id))
    )


def a_document(user: User, **fields: Any) -> documents_pb2.Document:
    """Register a document."""
    document = documents_pb2.Document(**{"name": name(), "type": "txt"} | fields)
    request = documents_pb2.CreateDocumentRequest(document=document)
    made: documents_pb2.Document = user.channel.documents.CreateDocument(request).document
    return made


def a_job(user: User, **fields: Any) -> jobs_pb2.Job:
    """Make a job that is open."""
    job = jobs_pb2.Job(**{"kind": "MEASURE"} | fields)
    made: jobs_pb2.Job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job))
    return made


def a_key(user: User) -> Any:
    """Make an API key."""
    key = api_keys_pb2.ApiKey(name=name())
    return user.channel.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))


def batch(user: User, sizes: Iterable[int]) -> Any:
    """Register a document of each size, all or none."""
    items = [
        documents_pb2.CreateDocumentRequest(
            document=documents_pb2.Document(name=name(), type="txt", size_bytes=size)
        )
        for size in sizes
    ]
    return user.channel.documents.BatchCreateDocuments(
        documents_pb2.BatchCreateDocumentsRequest(requests=items)
    )


def _undelete(user: User, size: int = 0) -> Callable[[], Any]:
    id = a_document(user, size_bytes=size).id
    user.channel.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=id))
    return lambda: user.channel.documents.UndeleteDocument(documents_pb2.UndeleteDocumentRequest(id=id))


def _grow(user: User) -> Callable[[], Any]:
    document = documents_pb2.Document(id=a_document(user, size_bytes=1).id, size_bytes=11)
    mask = FieldMask(paths=["size_bytes"])
    return lambda: user.channel.documents.UpdateDocument(
        documents_pb2.UpdateDocumentRequest(document=document, update_mask=mask)
    )


def _new_version(user: User) -> Callable[[], Any]:
    old = a_document(user, size_bytes=1)
    document = documents_pb2.Document(name=old.name, type="txt", size_bytes=11, content_hash="b")
    return lambda: user.channel.documents.CreateDocument(
        documents_pb2.CreateDocumentRequest(
            document=document, on_duplicate=documents_pb2.ON_DUPLICATE_NEW_VERSION
        )
    )


def _retry(user: User) -> Callable[[], Any]:
    id = a_job(user).id
    user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=id))
    return lambda: user.channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=id))


def together(count: int, call: Any) -> list[str]:
    """Make a call so many times at once; give how each ended."""
    barrier, answers = threading.Barrier(count), []

    def run() -> None:
        barrier.wait()
        try:
            call()
        except grpc.RpcError as error:
            answers.append(error.code().name)
        else:
            answers.append("OK")

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@dataclass(frozen=True)
class Way:
    """One way: the resource that grows, by how much, and what prepares the call that adds to it."""

    resource: str
    growth: int
    prepare: Callable[[User], Callable[[], Any]]


WAYS: Final = {
    "ServerService.CreateServer": Way("servers", 1, lambda user: lambda: a_server(user)),
    "DatabaseService.CreateDatabase": Way("databases", 1, a_database),
    "ApiKeyService.CreateApiKey": Way("api_keys", 1, lambda user: lambda: a_key(user)),
    "DocumentService.CreateDocument": Way("documents", 1, lambda user: lambda: a_document(user)),
    "DocumentService.CreateDocument, its size": Way(
        "storage_bytes", 10, lambda user: lambda: a_document(user, size_bytes=10)
    ),
    "DocumentService.CreateDocument, a new version's size": Way("storage_bytes", 10, _new_version),
    "DocumentService.BatchCreateDocuments": Way("documents", 3, lambda user: lambda: batch(user, [0] * 3)),
    "DocumentService.BatchCreateDocuments, their sizes": Way(
        "storage_bytes", 10, lambda user: lambda: batch(user, [4, 6])
    ),
    "DocumentService.UpdateDocument, its size": Way("storage_bytes", 10, _grow),
    "DocumentService.UndeleteDocument": Way("documents", 1, _undelete),
    "DocumentService.UndeleteDocument, its size": Way("storage_bytes", 10, lambda user: _undelete(user, 10)),
    "JobService.CreateJob": Way("open_jobs", 1, lambda user: lambda: a_job(user)),
    "JobService.RetryJob": Way("open_jobs", 1, _retry),
}
"""Every way in. Moves between databases are none: a document stays its owner's."""
