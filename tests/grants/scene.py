"""An owner with a shared and a private database, and whoever else takes part."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    grants_pb2,
    jobs_pb2,
    servers_pb2,
    workers_pb2,
)
from tests.access.estate import HASHED
from tests.service import Service, User

READER, WRITER = grants_pb2.GRANT_LEVEL_READER, grants_pb2.GRANT_LEVEL_WRITER
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Tenant:
    """A user with two databases on one server, the first of which may be shared."""

    user: User
    server: str
    shared: str
    private: str

    def give(self, grantee: User, level: grants_pb2.GrantLevel.ValueType, **fields: Any) -> grants_pb2.Grant:
        """Share the first database."""
        given: dict[str, Any] = {"database_id": self.shared, "grantee_id": grantee.id, "level": level}
        request = grants_pb2.GrantAccessRequest(**given | fields)
        grant: grants_pb2.Grant = self.user.channel.grants.GrantAccess(request)
        return grant

    def revoke(self, grantee: User, **fields: Any) -> None:
        """End that."""
        given: dict[str, Any] = {"database_id": self.shared, "grantee_id": grantee.id}
        self.user.channel.grants.RevokeAccess(grants_pb2.RevokeAccessRequest(**given | fields))

    def document(self, database_id: str | None = None, by: User | None = None) -> documents_pb2.Document:
        """Register a document: in the shared database, the one that is named, or none where that is empty."""
        place = self.shared if database_id is None else database_id
        document = documents_pb2.Document(name=f"d{next(_numbers)}", type="pdf", database_id=place or None)
        request = documents_pb2.CreateDocumentRequest(document=document)
        made: documents_pb2.Document = (by or self.user).channel.documents.CreateDocument(request).document
        return made

    def job(self, document_id: str, by: User | None = None, kind: str = "REINDEX") -> jobs_pb2.Job:
        """Make a job of a document."""
        request = jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind=kind, document_id=document_id))
        made: jobs_pb2.Job = (by or self.user).channel.jobs.CreateJob(request)
        return made

    def worker(self) -> str:
        """Register a worker; give its id."""
        request = workers_pb2.RegisterWorkerRequest(worker=workers_pb2.Worker(name="w", kinds=["NONE"]))
        return str(self.user.channel.workers.RegisterWorker(request).id)

    def key(self) -> str:
        """Make an API key; give its id."""
        key = api_keys_pb2.ApiKey(name=f"k{next(_numbers)}", scopes=["jobs:read"])
        made = self.user.channel.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))
        return str(made.api_key.id)


def tenant(service: Service) -> Tenant:
    """Make a user with a server and two databases."""
    user = service.new_user(password_hash=HASHED)
    server = servers_pb2.Server(name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1, password="p")
    server_id = user.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server)).id
    made = []
    for name in ("shared", "private"):
        database = databases_pb2.Database(name=name, server_id=server_id)
        request = databases_pb2.CreateDatabaseRequest(database=database)
        made.append(user.channel.databases.CreateDatabase(request).id)
    return Tenant(user, server_id, *made)
