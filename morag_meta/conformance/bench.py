"""The rows of one case: made with names that nothing else has, and removed when the case has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import grpc

from morag_meta.conformance import expect
from morag_meta.conformance.caller import Caller, with_key, with_token
from morag_meta.conformance.stream import Stream
from morag_meta.conformance.waits import all_that_ended
from morag_meta.conformance.world import Member, World
from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    jobs_pb2,
    options_pb2,
    servers_pb2,
    users_pb2,
    workers_pb2,
)

_GONE = {"NOT_FOUND", "FAILED_PRECONDITION"}
# A user of the run who was shut out is deleted with everything that is the user's.
_SHUT_OUT = {"UNAUTHENTICATED", "PERMISSION_DENIED"}


class Bench:
    """What a case works with: the callers, and rows in the shortest form; ``me`` makes them."""

    def __init__(self, world: World) -> None:
        """Begin without rows."""
        self._world = world
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self._streams: list[Stream] = []
        self.kind = self.name()
        """A kind of jobs, and a type of documents, that no other case has."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was made, the newest first; what is gone already was removed by the case."""
        for stream in self._streams:
            stream.__exit__()
        for what, undo in reversed(self._undo):
            try:
                undo()
            except grpc.RpcError as error:
                seen = expect.read(error)
                if seen.code not in (_GONE if self._world.lacks else _GONE | _SHUT_OUT):
                    self._world.left.append(f"{what} ({seen.code})")

    @property
    def me(self) -> Member:
        """Who most calls are made by."""
        return self._world.me

    @property
    def mine(self) -> Caller:
        """The stubs of that user."""
        return self._world.me.caller

    @property
    def other(self) -> Member:
        """Somebody else; only in admin cases."""
        return self._world.other

    @property
    def admin(self) -> Caller:
        """An ADMIN; only in admin cases."""
        return self._world.admin

    @property
    def nobody(self) -> Caller:
        """A caller without any credential."""
        return Caller(self._world.channel)

    def name(self) -> str:
        """Give a name that nothing else has."""
        return self._world.new_name()

    def secret(self) -> str:
        """Give a secret that nothing else has, kept out of every report."""
        return self._world.new_secret()

    def conceal(self, secret: str) -> str:
        """Keep a secret out of every report; give it back."""
        return self._world.conceal(secret)

    def keyed(self, secret: str) -> Caller:
        """Give the caller with an API key."""
        return Caller(self._world.channel, with_key(self.conceal(secret)))

    def bearer(self, token: str) -> Caller:
        """Give the caller with an access token."""
        return Caller(self._world.channel, with_token(self.conceal(token)))

    def later(self, what: str, undo: Callable[[], object]) -> None:
        """Remove something when the case has ended."""
        self._undo.append((what, undo))

    def add_user(self, role: options_pb2.Role.ValueType = options_pb2.ROLE_USER) -> Member:
        """Make a user that no other case has; only in admin cases."""
        member = self._world.new_member(role)
        self.later(f"user {member.id}", lambda: self._world.remove(member.id))
        return member

    def login(self, member: Member) -> users_pb2.LoginResponse:
        """Open a session."""
        request = users_pb2.LoginRequest(email=member.email, password=member.password)
        session = self.nobody.users.Login(request)
        for token in (session.access_token, session.refresh_token):
            self.conceal(token)
        return session

    def add_key(self, *scopes: str, by: Caller | None = None, **fields: Any) -> tuple[str, Caller]:
        """Make an API key; give its id and the caller that it makes."""
        by = by or self.mine
        key = api_keys_pb2.ApiKey(**{"name": self.name(), "scopes": scopes} | fields)
        made = by.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))
        request = api_keys_pb2.DeleteApiKeyRequest(id=made.api_key.id)
        self.later(f"api key {made.api_key.id}", lambda: by.api_keys.DeleteApiKey(request))
        return made.api_key.id, self.keyed(made.secret)

    def add_server(self, by: Caller | None = None, **fields: Any) -> servers_pb2.Server:
        """Register a server."""
        by = by or self.mine
        made = by.servers.CreateServer(servers_pb2.CreateServerRequest(server=self.a_server(**fields)))
        request = servers_pb2.DeleteServerRequest(id=made.id, force=True)
        self.later(f"server {made.id}", lambda: by.servers.DeleteServer(request))
        return made

    def a_server(self, **fields: Any) -> servers_pb2.Server:
        """Give a server as one would register it."""
        given: dict[str, Any] = {"name": self.name(), "kind": servers_pb2.SERVER_KIND_QDRANT}
        given |= {"host": "vectors.example.com", "port": 6333}
        return servers_pb2.Server(**given | fields)

    def add_database(self, by: Caller | None = None, **fields: Any) -> databases_pb2.Database:
        """Create a database, on a server of its own unless one is named."""
        by = by or self.mine
        server_id = fields.pop("server_id", "") or self.add_server(by).id
        given: dict[str, Any] = {"name": self.name(), "server_id": server_id} | fields
        database = databases_pb2.Database(**given)
        made = by.databases.CreateDatabase(databases_pb2.CreateDatabaseRequest(database=database))
        request = databases_pb2.DeleteDatabaseRequest(id=made.id, force=True)
        self.later(f"database {made.id}", lambda: by.databases.DeleteDatabase(request))
        return made

    def add_document(self, by: Caller | None = None, **fields: Any) -> documents_pb2.Document:
        """Register a document of the case's own type."""
        return self.create_document(by, **fields).document

    def create_document(
        self, by: Caller | None = None, on_duplicate: Any = 0, **fields: Any
    ) -> documents_pb2.CreateDocumentResponse:
        """Register a document, or learn what an earlier one means."""
        by = by or self.mine
        document = documents_pb2.Document(**{"name": self.name(), "type": self.kind} | fields)
        asked = documents_pb2.CreateDocumentRequest(document=document, on_duplicate=on_duplicate)
        made = by.documents.CreateDocument(asked)
        request = documents_pb2.DeleteDocumentRequest(id=made.document.id)
        self.later(f"document {made.document.id}", lambda: by.documents.DeleteDocument(request))
        return made

    def document(self, document_id: str) -> documents_pb2.Document:
        """Read a document."""
        return self.mine.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document_id))

    def ingested(self) -> documents_pb2.Document:
        """Register a document and see it ingested."""
        job = self.started(self.add_job(document_id=self.add_document().id, kind="INGESTION").id)
        self.complete(job, 1)
        return self.document(job.document_id)

    def add_job(self, by: Caller | None = None, **fields: Any) -> jobs_pb2.Job:
        """Create a job of the case's own kind, which needs no document."""
        by = by or self.mine
        job = jobs_pb2.Job(**{"kind": self.kind} | fields)
        made = by.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job))
        self._world.purge_at_end(by, made)
        request = jobs_pb2.CancelJobRequest(id=made.id)
        self.later(f"job {made.id}", lambda: by.jobs.CancelJob(request))
        return made

    def purge(self, job: jobs_pb2.Job) -> jobs_pb2.PurgeJobsResponse:
        """Remove the jobs of a job's kind and document that have ended; for cases that run alone."""
        return self.mine.jobs.PurgeJobs(all_that_ended(job.kind, job.document_id))

    def job(self, job_id: str) -> jobs_pb2.Job:
        """Read a job."""
        return self.mine.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id))

    def started(self, job_id: str, **fields: Any) -> jobs_pb2.Job:
        """Start a job."""
        return self.mine.jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id, **fields))

    def running(self, **fields: Any) -> jobs_pb2.Job:
        """Create a job and start it."""
        return self.started(self.add_job(**fields).id)

    def progress(
        self, job: jobs_pb2.Job, number: int, percentage: int = 0, **fields: Any
    ) -> jobs_pb2.UpdateJobProgressResponse:
        """Report progress."""
        given: dict[str, Any] = {
            "id": job.id,
            "attempt": job.attempt,
            "report_number": number,
            "percentage": percentage,
        }
        return self.mine.jobs.UpdateJobProgress(jobs_pb2.UpdateJobProgressRequest(**given | fields))

    def complete(self, job: jobs_pb2.Job, number: int, **fields: Any) -> jobs_pb2.CompleteJobResponse:
        """Report success."""
        given: dict[str, Any] = {"id": job.id, "attempt": job.attempt, "report_number": number}
        return self.mine.jobs.CompleteJob(jobs_pb2.CompleteJobRequest(**given | fields))

    def fail(self, job: jobs_pb2.Job, number: int, error: str = "it broke") -> jobs_pb2.FailJobResponse:
        """Report failure."""
        given: dict[str, Any] = {
            "id": job.id,
            "attempt": job.attempt,
            "report_number": number,
            "error": error,
        }
        return self.mine.jobs.FailJob(jobs_pb2.FailJobRequest(**given))

    def cancel(self, job_id: str, **fields: Any) -> jobs_pb2.Job:
        """Cancel a job."""
        return self.mine.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id, **fields))

    def add_worker(self, by: Caller | None = None, **fields: Any) -> workers_pb2.Worker:
        """Register a worker that takes the jobs of this case alone."""
        worker = workers_pb2.Worker(**{"name": self.name(), "kinds": [self.kind]} | fields)
        request = workers_pb2.RegisterWorkerRequest(worker=worker)
        return (by or self.mine).workers.RegisterWorker(request)

    def lease(self, worker_id: str, by: Caller | None = None, **fields: Any) -> list[workers_pb2.Lease]:
        """Lease jobs."""
        request = workers_pb2.LeaseJobsRequest(worker_id=worker_id, **fields)
        return list((by or self.mine).workers.LeaseJobs(request).leases)

    def watch(self, job_id: str, after: int = 0, by: Caller | None = None) -> Stream:
        """Watch one job."""
        request = jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=after)
        return self.stream((by or self.mine).jobs.WatchJob(request))

    def watch_jobs(self, by: Caller | None = None, token: str = "", **filter_: Any) -> Stream:
        """Watch the jobs of the case's kind from a snapshot on, or from a token."""
        return self.follow(by, token, snapshot=True, kinds=[self.kind], **filter_)

    def follow(
        self, by: Caller | None = None, token: str = "", *, snapshot: bool = False, **filter_: Any
    ) -> Stream:
        """Watch the jobs that match a filter."""
        request = jobs_pb2.WatchJobsRequest(
            filter=jobs_pb2.JobFilter(**filter_), resume_token=token, include_snapshot=snapshot
        )
        return self.stream((by or self.mine).jobs.WatchJobs(request))

    def stream(self, call: Any) -> Stream:
        """Read a stream, which is cancelled with the case at the latest."""
        self._streams.append(Stream(call))
        return self._streams[-1]
