"""A user with two servers: on the first is one database, the inside; on the other the rest, the outside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from moragmeta.v1 import api_keys_pb2, databases_pb2, documents_pb2, jobs_pb2, servers_pb2, workers_pb2
from tests.api_keys.calls import create
from tests.grants.scene import Tenant
from tests.service import Service, User


@dataclass(frozen=True)
class House:
    """The user, as a tenant whose ``shared`` database is inside and ``private`` one outside."""

    service: Service
    all: Tenant
    inner_server: str

    @classmethod
    def of(cls, service: Service, owner: Tenant) -> House:
        """Add a server with one database to those of a tenant, and let that be the inside."""
        channel = owner.user.channel
        server = servers_pb2.Server(name="inner", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
        server_id = channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server)).id
        database = databases_pb2.Database(name="inside", server_id=server_id)
        made = channel.databases.CreateDatabase(databases_pb2.CreateDatabaseRequest(database=database))
        return cls(service, replace(owner, shared=made.id), server_id)

    @property
    def inside(self) -> str:
        """The database that narrowed keys reach."""
        return self.all.shared

    @property
    def outside(self) -> str:
        """A database that they do not."""
        return self.all.private

    def names(self, way: str) -> dict[str, Any]:
        """Give what a key is narrowed to, to reach the inside by a way."""
        return {
            "database": {"database_ids": [self.inside]},
            "server": {"server_ids": [self.inner_server]},
            "both": {"database_ids": [self.inside], "server_ids": [self.inner_server]},
        }[way]

    def narrowed(self, way: str = "database", **fields: Any) -> User:
        """Make a key of the user that reaches the inside alone."""
        return self.key(**self.names(way), **fields)

    def key(self, **fields: Any) -> User:
        """Make a key, and give the user as who comes by it."""
        made = create(self.all.user.channel, fields.pop("name", f"key {len(made_keys(self))}"), **fields)
        channel = self.service.channel(api_key=made.secret)
        return replace(self.all.user, key=made.secret, key_id=made.api_key.id, channel=channel)

    def database(self, name: str, server_id: str) -> str:
        """Make a database with the user's wide key; give its id."""
        request = databases_pb2.CreateDatabaseRequest(
            database=databases_pb2.Database(name=name, server_id=server_id)
        )
        return str(self.all.user.channel.databases.CreateDatabase(request).id)


def made_keys(house: House) -> list[api_keys_pb2.ApiKey]:
    """List the keys of the user."""
    return list(house.all.user.channel.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest()).api_keys)


def delete_database(user: User, database_id: str) -> None:
    """Delete a database with whatever is in it."""
    user.channel.databases.DeleteDatabase(databases_pb2.DeleteDatabaseRequest(id=database_id, force=True))


def documents_of(user: User, **fields: Any) -> list[str]:
    """List documents to the end, page by page, and give their ids."""
    request, found = documents_pb2.ListDocumentsRequest(**fields), []
    while True:
        page = user.channel.documents.ListDocuments(request)
        found += [document.id for document in page.documents]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def jobs_of(user: User, page_size: int = 0, **filters: Any) -> list[str]:
    """List jobs to the end, page by page, and give their ids."""
    request, found = (
        jobs_pb2.ListJobsRequest(page_size=page_size, filter=jobs_pb2.JobFilter(**filters)),
        [],
    )
    while True:
        page = user.channel.jobs.ListJobs(request)
        found += [job.id for job in page.jobs]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def lease(user: User, worker_id: str, **fields: Any) -> list[workers_pb2.Lease]:
    """Lease jobs."""
    request = workers_pb2.LeaseJobsRequest(worker_id=worker_id, **fields)
    return list(user.channel.workers.LeaseJobs(request).leases)


def register(user: User, **fields: Any) -> str:
    """Register a worker, and give its id."""
    worker = workers_pb2.Worker(name="w", **fields)
    return str(user.channel.workers.RegisterWorker(workers_pb2.RegisterWorkerRequest(worker=worker)).id)
