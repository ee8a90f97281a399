"""A USER whose databases a READER and a WRITER share, and a valid request for each line of the table.

Whatever a request acts on is the estate's own; what is in a database is in one that both grantees share.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.auth.passwords import hash_password
from moragmeta.v1 import (
    api_keys_pb2,
    audit_pb2,
    databases_pb2,
    documents_pb2,
    exports_pb2,
    grants_pb2,
    jobs_pb2,
    quotas_pb2,
    servers_pb2,
    users_pb2,
    workers_pb2,
)
from tests.rpc.changes import CHANGES, PASSWORD, World
from tests.service import Service, User

HASHED: Final = hash_password(PASSWORD, 4)
_ALWAYS: Final = Timestamp(seconds=4_000_000_000)


class Estate(World):
    """What is a USER's."""

    def __init__(self, service: Service, sharers: Mapping[grants_pb2.GrantLevel.ValueType, User]) -> None:
        """Make the user; ``sharers`` are granted their levels on every database that is made."""
        super().__init__(service)
        self.user = service.new_user(password_hash=HASHED)
        self._sharers = sharers
        self.place = self.database_id()
        """The database that the documents are in."""
        self.borrow()

    def borrow(self) -> None:
        """Have somebody share a database with the user."""
        lender = World(self.service)
        shared = grants_pb2.GrantAccessRequest(
            database_id=lender.database_id(), grantee_id=self.user.id, level=grants_pb2.GRANT_LEVEL_READER
        )
        lender.mine.grants.GrantAccess(shared)

    def database_id(self) -> str:
        """A database that is shared."""
        id = super().database_id()
        for level, user in self._sharers.items():
            self.mine.grants.GrantAccess(
                grants_pb2.GrantAccessRequest(database_id=id, grantee_id=user.id, level=level)
            )
        return id

    def lend(self) -> None:
        """Share the database with somebody more."""
        shared = {"database_id": self.place, "grantee_id": self.other_id()}
        request = grants_pb2.GrantAccessRequest(**shared, level=grants_pb2.GRANT_LEVEL_READER)
        self.mine.grants.GrantAccess(request)

    def document(self) -> Any:
        """A message of a document in the shared database."""
        return documents_pb2.Document(name=self.name(), type="pdf", database_id=self.place)

    def job(self) -> Any:
        """A message of a job on such a document."""
        return jobs_pb2.Job(kind="REINDEX", document_id=self.document_id())

    def job_id(self, *, started: bool = False, failed: bool = False) -> str:
        """A job on such a document, perhaps started, perhaps failed."""
        job = self.mine.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=self.job()))
        if started or failed:
            self.mine.jobs.StartJob(jobs_pb2.StartJobRequest(id=job.id))
        if failed:
            report = jobs_pb2.FailJobRequest(id=job.id, attempt=1, report_number=1, error="no")
            self.mine.jobs.FailJob(report)
        return str(job.id)

    def worker_id(self) -> str:
        """A worker that finds one job, and takes no others."""
        job = self.job()
        job.kind = uuid.uuid4().hex
        self.mine.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job))
        worker = workers_pb2.Worker(name=self.name(), kinds=[job.kind])
        return str(self.mine.workers.RegisterWorker(workers_pb2.RegisterWorkerRequest(worker=worker)).id)

    def busy_worker_id(self) -> str:
        """A worker that has done a job, of which its name stays; that of a lease would go with it."""
        id = self.worker_id()
        (lease,) = self.mine.workers.LeaseJobs(workers_pb2.LeaseJobsRequest(worker_id=id)).leases
        done: dict[str, Any] = {"attempt": 1, "report_number": 1, "lease_token": lease.token}
        self.mine.jobs.CompleteJob(jobs_pb2.CompleteJobRequest(id=lease.job.id, **done))
        return id

    def lease(self) -> Any:
        """A job that is leased by name, whatever else waits."""
        job = self.mine.jobs.StartJob(jobs_pb2.StartJobRequest(id=self.job_id()))
        return workers_pb2.Lease(job=job, token=job.lease_token)

    def key(self) -> Any:
        """A message of an API key, of no scope beyond that of whatever key it is made or changed with."""
        return api_keys_pb2.ApiKey(name=self.name(), scopes=["api_keys:write"])

    def report(self) -> dict[str, Any]:
        """What every first report of a leased job says."""
        lease = self.lease()
        return {"id": lease.job.id, "attempt": 1, "report_number": 1, "lease_token": lease.token}

    def refresh_token(self) -> str:
        """A session's refresh token."""
        return str(self.service.channel().users.Login(self.log_in()).refresh_token)

    def log_in(self) -> Any:
        """A request to log in as the user."""
        return users_pb2.LoginRequest(email=self.user.email, password=PASSWORD)

    def reset_token(self) -> str:
        """A token with which a password that nobody uses is replaced."""
        forgetful = self.service.new_user(password_hash=HASHED)
        request = users_pb2.CreatePasswordResetRequest(email=forgetful.email)
        return str(self.admin.channel.users.CreatePasswordReset(request).token)

    def asked_for_reset(self) -> Any:
        """A request to take what somebody asked for."""
        forgetful = self.service.new_user(password_hash=HASHED)
        request = users_pb2.RequestPasswordResetRequest(email=forgetful.email)
        self.service.channel().users.RequestPasswordReset(request)
        return users_pb2.TakePasswordResetsRequest(limit=50)


def _filter(**fields: Any) -> Any:
    return {"filter": jobs_pb2.JobFilter(**fields)}


def _with_a_job(estate: Estate) -> str:
    """Give the shared database, with a job that is open in it."""
    estate.job_id()
    return estate.place


def _purge(estate: Estate, **fields: Any) -> Any:
    """Give a request for one job, so that it takes nothing from the others."""
    job = estate.mine.jobs.GetJob(jobs_pb2.GetJobRequest(id=estate.ended_id()))
    only = _filter(document_id=job.document_id, **fields)
    return jobs_pb2.PurgeJobsRequest(**only, end_time_before=_ALWAYS)


def _batch(estate: Estate, **fields: Any) -> Any:
    one = documents_pb2.CreateDocumentRequest(document=estate.document())
    return documents_pb2.BatchCreateDocumentsRequest(requests=[one], **fields)


Make = Callable[[Estate], Any]
_READS: Final[dict[str, Make]] = {
    "UserService.ListSessions": lambda e: (
        e.session_id() and users_pb2.ListSessionsRequest(owner_id=e.user.id)
    ),
    "UserService.GetUser": lambda e: users_pb2.GetUserRequest(id=e.user.id),
    "UserService.ListUsers": lambda _: users_pb2.ListUsersRequest(),
    "UserService.GetUserSettings": lambda e: users_pb2.GetUserSettingsRequest(owner_id=e.user.id),
    "ApiKeyService.GetApiKey": lambda e: api_keys_pb2.GetApiKeyRequest(id=e.user.key_id),
    "ApiKeyService.ListApiKeys": lambda e: api_keys_pb2.ListApiKeysRequest(owner_id=e.user.id),
    "ApiKeyService.VerifyApiKey": lambda e: api_keys_pb2.VerifyApiKeyRequest(key=e.user.key),
    "ApiKeyService.GetApiKeyUsage": lambda e: api_keys_pb2.GetApiKeyUsageRequest(id=e.user.key_id),
    "ApiKeyService.GetCurrentPrincipal": lambda _: api_keys_pb2.GetCurrentPrincipalRequest(),
    "ServerService.GetServer": lambda e: servers_pb2.GetServerRequest(id=e.server_id()),
    "ServerService.ListServers": lambda e: servers_pb2.ListServersRequest(owner_id=e.user.id),
    "DatabaseService.GetDatabase": lambda e: databases_pb2.GetDatabaseRequest(id=e.place),
    "DatabaseService.ListDatabases": lambda e: databases_pb2.ListDatabasesRequest(owner_id=e.user.id),
    "DatabaseService.ListDatabases/shared": lambda _: databases_pb2.ListDatabasesRequest(shared=True),
    "GrantService.ListGrants": lambda e: grants_pb2.ListGrantsRequest(database_id=e.place),
    "GrantService.ListGrants/to": lambda e: grants_pb2.ListGrantsRequest(grantee_id=e.user.id),
    "DocumentService.GetDocument": lambda e: documents_pb2.GetDocumentRequest(id=e.document_id()),
    "DocumentService.BatchGetDocuments": lambda e: documents_pb2.BatchGetDocumentsRequest(
        ids=[e.document_id()]
    ),
    "DocumentService.ListDocuments": lambda e: (
        e.document_id() and documents_pb2.ListDocumentsRequest(owner_id=e.user.id)
    ),
    "DocumentService.ListDocuments/in": lambda e: (
        e.document_id() and documents_pb2.ListDocumentsRequest(database_id=e.place)
    ),
    "JobService.GetJob": lambda e: jobs_pb2.GetJobRequest(id=e.job_id()),
    "JobService.ListJobs": lambda e: e.job_id() and jobs_pb2.ListJobsRequest(**_filter(owner_id=e.user.id)),
    "JobService.ListJobs/in": lambda e: jobs_pb2.ListJobsRequest(**_filter(database_id=_with_a_job(e))),
    "JobService.GetJobStats": lambda e: (
        e.job_id() and jobs_pb2.GetJobStatsRequest(**_filter(owner_id=e.user.id))
    ),
    "JobService.GetJobStats/in": lambda e: jobs_pb2.GetJobStatsRequest(**_filter(database_id=_with_a_job(e))),
    "JobService.ListJobEvents": lambda e: jobs_pb2.ListJobEventsRequest(job_id=e.job_id()),
    "JobService.WatchJob": lambda e: jobs_pb2.WatchJobRequest(job_id=e.job_id()),
    "JobService.WatchJobs": lambda e: (
        e.job_id() and jobs_pb2.WatchJobsRequest(**_filter(owner_id=e.user.id), include_snapshot=True)
    ),
    "JobService.WatchJobs/in": lambda e: jobs_pb2.WatchJobsRequest(
        **_filter(database_id=_with_a_job(e)), include_snapshot=True
    ),
    "JobService.WatchJobs/by": lambda e: jobs_pb2.WatchJobsRequest(
        **_filter(worker_ids=[e.busy_worker_id()]), include_snapshot=True
    ),
    "WorkerService.GetWorker": lambda e: workers_pb2.GetWorkerRequest(id=e.worker_id()),
    "WorkerService.ListWorkers": lambda e: (
        e.worker_id() and workers_pb2.ListWorkersRequest(owner_id=e.user.id)
    ),
    "QuotaService.GetQuotas": lambda e: quotas_pb2.GetQuotasRequest(owner_id=e.user.id),
    "QuotaService.GetUsage": lambda e: quotas_pb2.GetUsageRequest(owner_id=e.user.id),
    "ExportService.ExportUserData": lambda e: exports_pb2.ExportUserDataRequest(owner_id=e.user.id),
    "AuditService.ListAuditEvents": lambda _: audit_pb2.ListAuditEventsRequest(page_size=1),
}
_WRITES: Final[dict[str, Make]] = {
    "UserService.Login": lambda e: e.log_in(),
    "UserService.RefreshToken": lambda e: users_pb2.RefreshTokenRequest(refresh_token=e.refresh_token()),
    "UserService.RequestPasswordReset": lambda e: users_pb2.RequestPasswordResetRequest(email=e.user.email),
    "UserService.ResetPassword": lambda e: users_pb2.ResetPasswordRequest(
        token=e.reset_token(), new_password=uuid.uuid4().hex
    ),
    "UserService.Logout": lambda _: users_pb2.LogoutRequest(),
    "UserService.ChangePassword": lambda _: users_pb2.ChangePasswordRequest(
        current_password=PASSWORD, new_password=uuid.uuid4().hex
    ),
    "UserService.TakePasswordResets": lambda e: e.asked_for_reset(),
    "UserService.CreatePasswordReset": lambda e: users_pb2.CreatePasswordResetRequest(email=e.user.email),
    "UserService.UpdateUserSettings": lambda e: users_pb2.UpdateUserSettingsRequest(
        settings=users_pb2.UserSettings(owner_id=e.user.id, language="de"),
        update_mask=FieldMask(paths=["language"]),
    ),
    "ApiKeyService.CreateApiKey": lambda e: api_keys_pb2.CreateApiKeyRequest(
        api_key=e.key(), owner_id=e.user.id
    ),
    "ServerService.CreateServer": lambda e: servers_pb2.CreateServerRequest(
        server=e.server(), owner_id=e.user.id
    ),
    "DatabaseService.CreateDatabase": lambda e: databases_pb2.CreateDatabaseRequest(
        database=e.database(), owner_id=e.user.id
    ),
    "DatabaseService.CreateDatabase/on": lambda e: databases_pb2.CreateDatabaseRequest(database=e.database()),
    "DocumentService.CreateDocument": lambda e: documents_pb2.CreateDocumentRequest(
        document=e.document(), owner_id=e.user.id
    ),
    "DocumentService.CreateDocument/in": lambda e: documents_pb2.CreateDocumentRequest(document=e.document()),
    "DocumentService.BatchCreateDocuments": lambda e: _batch(e, owner_id=e.user.id),
    "DocumentService.BatchCreateDocuments/in": _batch,
    "JobService.CreateJob": lambda e: jobs_pb2.CreateJobRequest(job=e.job(), owner_id=e.user.id),
    "JobService.CreateJob/of": lambda e: jobs_pb2.CreateJobRequest(job=e.job()),
    "JobService.UpdateJobProgress": lambda e: jobs_pb2.UpdateJobProgressRequest(**e.report(), percentage=5),
    "JobService.CompleteJob": lambda e: jobs_pb2.CompleteJobRequest(**e.report()),
    "JobService.FailJob": lambda e: jobs_pb2.FailJobRequest(**e.report(), error="no"),
    "JobService.PurgeJobs": lambda e: _purge(e, owner_id=e.user.id),
    "JobService.PurgeJobs/in": lambda e: _purge(e, database_id=e.place),
    "WorkerService.HeartbeatJob": lambda e: _beat(e.lease()),
}


def _beat(lease: Any) -> Any:
    return workers_pb2.HeartbeatJobRequest(job_id=lease.job.id, lease_token=lease.token)


REQUESTS: Final[dict[str, Make]] = {**CHANGES, **_WRITES, **_READS}
"""A maker of a valid request by the title of its line: anew each time, so that it can be carried out."""

OF_SESSIONS: Final = ("UserService.RefreshToken", "UserService.ListSessions", "UserService.EndSession")
"""The lines that need a session of the user's, which a change of role ends."""
