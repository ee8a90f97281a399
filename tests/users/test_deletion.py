"""That a deleted user leaves nothing, and that only a deactivated one is deleted."""

from __future__ import annotations

import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import job_floors, metadata
from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    grants_pb2,
    jobs_pb2,
    servers_pb2,
    workers_pb2,
)
from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Service, User
from tests.users.conftest import NewPerson


def _populate(user: User, friend: User) -> None:
    """Give a user at least one row in every table; a database is shared with the friend."""
    channel = user.channel
    server = channel.servers.CreateServer(
        servers_pb2.CreateServerRequest(
            server=servers_pb2.Server(
                name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1, password="p"
            )
        )
    )
    database = channel.databases.CreateDatabase(
        databases_pb2.CreateDatabaseRequest(database=databases_pb2.Database(name="d", server_id=server.id))
    )
    channel.users.UpdateUserSettings(
        pb.UpdateUserSettingsRequest(settings=pb.UserSettings(default_database_id=database.id))
    )
    channel.grants.GrantAccess(
        grants_pb2.GrantAccessRequest(
            database_id=database.id, grantee_id=friend.id, level=grants_pb2.GRANT_LEVEL_READER
        )
    )
    document = channel.documents.CreateDocument(
        documents_pb2.CreateDocumentRequest(
            document=documents_pb2.Document(name="a.txt", type="txt", database_id=database.id)
        )
    ).document
    job = channel.jobs.CreateJob(
        jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="INGESTION", document_id=document.id))
    )
    channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job.id))
    worker = workers_pb2.Worker(name="w")
    worker_id = channel.workers.RegisterWorker(workers_pb2.RegisterWorkerRequest(worker=worker)).id
    (lease,) = channel.workers.LeaseJobs(workers_pb2.LeaseJobsRequest(worker_id=worker_id)).leases
    channel.workers.HeartbeatJob(
        workers_pb2.HeartbeatJobRequest(job_id=lease.job.id, lease_token=lease.token, checkpoint=b"half")
    )
    channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name="k"), request_id="made-once")
    )


def _rows_of(service: Service, owner_id: str) -> dict[str, int]:
    """Count the rows of an owner in every table, the user's own among them.

    Not the floor of the log, a bare number that stays: it tells who watches everybody that events are gone.
    """
    counts = {}
    with service.database.engine.connect() as connection:
        for table in metadata.sorted_tables:
            column = table.c.get("owner_id", table.c.id if table.name == "users" else None)
            if column is not None and table is not job_floors:
                statement = sa.select(sa.func.count()).select_from(table).where(column == owner_id)
                counts[table.name] = connection.execute(statement).scalar_one()
    return counts


def test_deleted_user_leaves_no_row(service: Service, new_person: NewPerson) -> None:
    """Deleting a deactivated user removes every row of every table that is the user's, and only those."""
    bystander, person = service.new_user(), new_person()
    goner = User(person.id, person.email, Role.USER, person.key, "", service.channel(api_key=person.key))
    _populate(bystander, service.new_user())
    _populate(goner, bystander)
    admin = service.admin.channel.users
    for user in (bystander, goner):
        admin.CreatePasswordReset(pb.CreatePasswordResetRequest(email=user.email))
    kept = _rows_of(service, bystander.id)
    assert all(_rows_of(service, goner.id).values()), _rows_of(service, goner.id)
    admin.DeactivateUser(pb.DeactivateUserRequest(id=goner.id))
    admin.DeleteUser(pb.DeleteUserRequest(id=goner.id, request_id=f"delete-{goner.id}"))
    assert not any(_rows_of(service, goner.id).values())
    assert _rows_of(service, bystander.id) == kept
    with refused("NOT_FOUND"):
        admin.GetUser(pb.GetUserRequest(id=goner.id))
    admin.DeleteUser(pb.DeleteUserRequest(id=goner.id, request_id=f"delete-{goner.id}"))
    with refused("NOT_FOUND"):
        admin.DeleteUser(pb.DeleteUserRequest(id=goner.id))
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        goner.channel.users.GetUser(pb.GetUserRequest(id="me"))


def test_active_user_is_not_deleted(service: Service, user: User) -> None:
    """Only a deactivated user can be deleted; an ADMIN cannot delete the own, active account."""
    for id in (user.id, "me"):
        with refused("FAILED_PRECONDITION", "USER_ACTIVE"):
            service.admin.channel.users.DeleteUser(pb.DeleteUserRequest(id=id))
    assert user.channel.users.GetUser(pb.GetUserRequest(id="me")).active
