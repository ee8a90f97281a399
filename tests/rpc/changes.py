"""One valid request for each method that takes a request id, and what it acts on."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.auth.principal import Role
from morag_meta.ids import new_id
from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    grants_pb2,
    jobs_pb2,
    options_pb2,
    quotas_pb2,
    servers_pb2,
    users_pb2,
    workers_pb2,
)
from tests.service import Channel, Service, User

PASSWORD: Final = "correct horse battery"


class World:
    """A user's things, made as they are asked for."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.user: User = service.new_user()
        self.admin: User = service.admin
        self._numbers = itertools.count(1)

    @property
    def mine(self) -> Channel:
        """The user's stubs."""
        return self.user.channel

    def name(self) -> str:
        """A name that nothing has yet."""
        return f"thing {next(self._numbers)} {uuid.uuid4().hex[:6]}"

    def server(self) -> Any:
        """A message of a server to be made."""
        kind = servers_pb2.SERVER_KIND_QDRANT
        return servers_pb2.Server(name=self.name(), kind=kind, host="h", port=1)

    def server_id(self) -> str:
        """A server."""
        made = self.mine.servers.CreateServer(servers_pb2.CreateServerRequest(server=self.server()))
        return made.id

    def database(self) -> Any:
        """A message of a database to be made."""
        return databases_pb2.Database(name=self.name(), server_id=self.server_id())

    def database_id(self) -> str:
        """A database."""
        request = databases_pb2.CreateDatabaseRequest(database=self.database())
        return self.mine.databases.CreateDatabase(request).id

    def grant(self) -> Any:
        """A message that shares a database with somebody."""
        shared = {"database_id": self.database_id(), "grantee_id": self.other_id()}
        return grants_pb2.GrantAccessRequest(**shared, level=grants_pb2.GRANT_LEVEL_READER)

    def granted(self) -> dict[str, str]:
        """Share a database; give the fields that say which, and with whom."""
        made = self.mine.grants.GrantAccess(self.grant())
        return {"database_id": made.database_id, "grantee_id": made.grantee_id}

    def document(self) -> Any:
        """A message of a document to be made."""
        return documents_pb2.Document(name=self.name(), type="pdf")

    def document_id(self) -> str:
        """A document."""
        request = documents_pb2.CreateDocumentRequest(document=self.document())
        return self.mine.documents.CreateDocument(request).document.id

    def job_id(self, *, started: bool = False, failed: bool = False) -> str:
        """A job, perhaps started, perhaps failed."""
        request = jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX"))
        job = self.mine.jobs.CreateJob(request)
        if started or failed:
            self.mine.jobs.StartJob(jobs_pb2.StartJobRequest(id=job.id))
        if failed:
            report = jobs_pb2.FailJobRequest(id=job.id, attempt=1, report_number=1, error="no")
            self.mine.jobs.FailJob(report)
        return job.id

    def key_id(self) -> str:
        """Another API key of the user."""
        request = api_keys_pb2.CreateApiKeyRequest(api_key=self.key())
        return self.mine.api_keys.CreateApiKey(request).api_key.id

    def disabled_key_id(self) -> str:
        """Another API key of the user, disabled."""
        id = self.key_id()
        self.mine.api_keys.DisableApiKey(api_keys_pb2.DisableApiKeyRequest(id=id))
        return id

    def key(self) -> Any:
        """A message of an API key to be made."""
        return api_keys_pb2.ApiKey(name=self.name(), scopes=["jobs:read"])

    def other_id(self, *, active: bool = True) -> str:
        """Another user."""
        id = self.service.new_user(Role.USER).id
        if not active:
            self.admin.channel.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=id))
        return id

    def session_id(self) -> str:
        """A session of the user."""
        id = new_id()
        with self.service.database.unit_of_work() as uow:
            end = uow.now + dt.timedelta(hours=1)
            uow.sessions.add(self.user.id, id, refresh_hash=uuid.uuid4().hex, expire_time=end)
            uow.commit()
        return id

    def ingested_id(self) -> str:
        """A document that was ingested."""
        id, jobs = self.document_id(), self.mine.jobs
        made = jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="INGESTION", document_id=id)))
        jobs.StartJob(jobs_pb2.StartJobRequest(id=made.id))
        jobs.CompleteJob(jobs_pb2.CompleteJobRequest(id=made.id, attempt=1, report_number=1))
        return id

    def deprecated_id(self) -> str:
        """A deprecated document."""
        id = self.ingested_id()
        self.mine.documents.DeprecateDocument(documents_pb2.DeprecateDocumentRequest(id=id))
        return id

    def deleted_id(self) -> str:
        """A deleted document."""
        id = self.document_id()
        self.mine.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=id))
        return id

    def ended_id(self) -> str:
        """A job that was cancelled."""
        return str(self.mine.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=self.job_id())).id)

    def worker_id(self) -> str:
        """A worker that finds a job."""
        self.job_id()
        worker = workers_pb2.Worker(name=self.name())
        return str(self.mine.workers.RegisterWorker(workers_pb2.RegisterWorkerRequest(worker=worker)).id)

    def lease(self) -> Any:
        """A leased job."""
        request = workers_pb2.LeaseJobsRequest(worker_id=self.worker_id())
        return self.mine.workers.LeaseJobs(request).leases[0]


def _released(lease: Any) -> Any:
    return workers_pb2.ReleaseJobRequest(job_id=lease.job.id, lease_token=lease.token)


def _purged(job_id: str) -> Any:
    del job_id
    return jobs_pb2.PurgeJobsRequest(end_time_before=Timestamp(seconds=4_000_000_000))


def _named(**fields: Any) -> dict[str, Any]:
    """Give the fields of an update that changes the name."""
    return fields | {"update_mask": FieldMask(paths=["name"])}


_USERS: Final[dict[str, Callable[[World], Any]]] = {
    "RegisterUser": lambda _: users_pb2.RegisterUserRequest(
        name="Jo", email=f"{uuid.uuid4().hex}@replay.test", password=PASSWORD
    ),
    "EndSession": lambda w: users_pb2.EndSessionRequest(id=w.session_id()),
    "UpdateUser": lambda w: users_pb2.UpdateUserRequest(
        **_named(user=users_pb2.User(id=w.user.id, name="Changed"))
    ),
    "SetUserRole": lambda w: users_pb2.SetUserRoleRequest(id=w.other_id(), role=options_pb2.ROLE_VIEWER),
    "DeactivateUser": lambda w: users_pb2.DeactivateUserRequest(id=w.other_id()),
    "ReactivateUser": lambda w: users_pb2.ReactivateUserRequest(id=w.other_id(active=False)),
    "DeleteUser": lambda w: users_pb2.DeleteUserRequest(id=w.other_id(active=False)),
    "UpdateUserSettings": lambda _: users_pb2.UpdateUserSettingsRequest(
        settings=users_pb2.UserSettings(language="de"), update_mask=FieldMask(paths=["language"])
    ),
}
_KEYS: Final[dict[str, Callable[[World], Any]]] = {
    "CreateApiKey": lambda w: api_keys_pb2.CreateApiKeyRequest(api_key=w.key()),
    "UpdateApiKey": lambda w: api_keys_pb2.UpdateApiKeyRequest(
        **_named(api_key=api_keys_pb2.ApiKey(id=w.key_id(), name=w.name()))
    ),
    "DeleteApiKey": lambda w: api_keys_pb2.DeleteApiKeyRequest(id=w.key_id()),
    "RevokeApiKey": lambda w: api_keys_pb2.RevokeApiKeyRequest(id=w.key_id()),
    "DisableApiKey": lambda w: api_keys_pb2.DisableApiKeyRequest(id=w.key_id()),
    "EnableApiKey": lambda w: api_keys_pb2.EnableApiKeyRequest(id=w.disabled_key_id()),
    "RotateApiKey": lambda w: api_keys_pb2.RotateApiKeyRequest(id=w.key_id()),
}
_SERVERS: Final[dict[str, Callable[[World], Any]]] = {
    "CreateServer": lambda w: servers_pb2.CreateServerRequest(server=w.server()),
    "UpdateServer": lambda w: servers_pb2.UpdateServerRequest(
        **_named(server=servers_pb2.Server(id=w.server_id(), name=w.name()))
    ),
    "DeleteServer": lambda w: servers_pb2.DeleteServerRequest(id=w.server_id(), force=True),
}
_DATABASES: Final[dict[str, Callable[[World], Any]]] = {
    "CreateDatabase": lambda w: databases_pb2.CreateDatabaseRequest(database=w.database()),
    "UpdateDatabase": lambda w: databases_pb2.UpdateDatabaseRequest(
        **_named(database=databases_pb2.Database(id=w.database_id(), name=w.name()))
    ),
    "DeleteDatabase": lambda w: databases_pb2.DeleteDatabaseRequest(id=w.database_id(), force=True),
    "RecountDocuments": lambda w: databases_pb2.RecountDocumentsRequest(id=w.database_id()),
}
_GRANTS: Final[dict[str, Callable[[World], Any]]] = {
    "GrantAccess": lambda w: w.grant(),
    "RevokeAccess": lambda w: grants_pb2.RevokeAccessRequest(**w.granted()),
}
_DOCUMENTS: Final[dict[str, Callable[[World], Any]]] = {
    "CreateDocument": lambda w: documents_pb2.CreateDocumentRequest(document=w.document()),
    "BatchCreateDocuments": lambda w: documents_pb2.BatchCreateDocumentsRequest(
        requests=[documents_pb2.CreateDocumentRequest(document=w.document()) for _ in range(3)]
    ),
    "UpdateDocument": lambda w: documents_pb2.UpdateDocumentRequest(
        **_named(document=documents_pb2.Document(id=w.document_id(), name=w.name()))
    ),
    "DeprecateDocument": lambda w: documents_pb2.DeprecateDocumentRequest(id=w.ingested_id()),
    "ReinstateDocument": lambda w: documents_pb2.ReinstateDocumentRequest(id=w.deprecated_id()),
    "DeleteDocument": lambda w: documents_pb2.DeleteDocumentRequest(id=w.document_id()),
    "UndeleteDocument": lambda w: documents_pb2.UndeleteDocumentRequest(id=w.deleted_id()),
}
_JOBS: Final[dict[str, Callable[[World], Any]]] = {
    "CreateJob": lambda _: jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")),
    "StartJob": lambda w: jobs_pb2.StartJobRequest(id=w.job_id()),
    "CompleteJob": lambda w: jobs_pb2.CompleteJobRequest(
        id=w.job_id(started=True), attempt=1, report_number=1, result=jobs_pb2.JobResult(chunks=1)
    ),
    "FailJob": lambda w: jobs_pb2.FailJobRequest(
        id=w.job_id(started=True), attempt=1, report_number=1, error="no"
    ),
    "CancelJob": lambda w: jobs_pb2.CancelJobRequest(id=w.job_id()),
    "RetryJob": lambda w: jobs_pb2.RetryJobRequest(id=w.job_id(failed=True)),
    "PurgeJobs": lambda w: _purged(w.ended_id()),
}
_WORKERS: Final[dict[str, Callable[[World], Any]]] = {
    "RegisterWorker": lambda w: workers_pb2.RegisterWorkerRequest(worker=workers_pb2.Worker(name=w.name())),
    "LeaseJobs": lambda w: workers_pb2.LeaseJobsRequest(worker_id=w.worker_id()),
    "ReleaseJob": lambda w: _released(w.lease()),
}
_QUOTAS: Final[dict[str, Callable[[World], Any]]] = {
    "SetQuotas": lambda w: quotas_pb2.SetQuotasRequest(
        quotas=quotas_pb2.Quotas(owner_id=w.other_id(), servers=9)
    ),
}
CHANGES: Final = {
    f"{service}.{method}": make
    for service, methods in {
        "UserService": _USERS,
        "ApiKeyService": _KEYS,
        "ServerService": _SERVERS,
        "DatabaseService": _DATABASES,
        "GrantService": _GRANTS,
        "DocumentService": _DOCUMENTS,
        "JobService": _JOBS,
        "QuotaService": _QUOTAS,
        "WorkerService": _WORKERS,
    }.items()
    for method, make in methods.items()
}
"""A maker of a valid request by method; ChangePassword, which ends its own session, is told apart."""

_STUBS: Final = {
    "UserService": "users",
    "ApiKeyService": "api_keys",
    "ServerService": "servers",
    "DatabaseService": "databases",
    "GrantService": "grants",
    "DocumentService": "documents",
    "JobService": "jobs",
    "QuotaService": "quotas",
    "WorkerService": "workers",
}
_BY_ADMIN: Final = frozenset({"SetUserRole", "DeactivateUser", "ReactivateUser", "DeleteUser", "SetQuotas"})


def stub(world: World, name: str) -> Any:
    """Give the stub with which the right caller calls a method."""
    service, _, method = name.partition(".")
    caller = world.admin if method in _BY_ADMIN else world.user
    return getattr(getattr(caller.channel, _STUBS[service]), method)
