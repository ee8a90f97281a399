"""That a deleted user leaves nothing, and that only a deactivated one is deleted."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import job_events, job_floors, metadata
from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    grants_pb2,
    jobs_pb2,
    options_pb2,
    quotas_pb2,
    servers_pb2,
    workers_pb2,
)
from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Service, User
from tests.users.conftest import PASSWORD, NewPerson


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
    """Count the rows of an owner in every table, the user's own among them."""
    counts = {}
    with service.database.engine.connect() as connection:
        for table in metadata.sorted_tables:
            column = table.c.get("owner_id", table.c.id if table.name == "users" else None)
            if column is not None:
                statement = sa.select(sa.func.count()).select_from(table).where(column == owner_id)
                counts[table.name] = connection.execute(statement).scalar_one()
    return counts


def _calls_of(user: User) -> dict[str, Any]:
    """Give a figure of the calls of a user's key, as the service writes it now and then."""
    (key,) = [
        key
        for key in user.channel.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest()).api_keys
        if key.name == "k"
    ]
    figures = {"calls": 1, "errors": 0, "total_us": 1, "longest_us": 1}
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return {"of_key": key.id, "of_day": day, "of_method": "UserService.GetUser", **figures}


def test_deleted_user_leaves_no_row(service: Service, new_person: NewPerson) -> None:
    """Deleting a deactivated user removes every row of every table that is the user's, and only those."""
    bystander, person = service.new_user(), new_person()
    goner = User(person.id, person.email, Role.USER, person.key, "", service.channel(api_key=person.key))
    _populate(bystander, service.new_user())
    _populate(goner, bystander)
    admin = service.admin.channel.users
    for user in (bystander, goner):
        admin.CreatePasswordReset(pb.CreatePasswordResetRequest(email=user.email))
        quotas = quotas_pb2.Quotas(owner_id=user.id, servers=9)
        service.admin.channel.quotas.SetQuotas(quotas_pb2.SetQuotasRequest(quotas=quotas))
    with service.database.unit_of_work() as uow:
        uow.api_keys.add_calls([_calls_of(user) for user in (bystander, goner)])
        for user in (bystander, goner):
            uow.connection.execute(sa.insert(job_floors).values(owner_id=user.id, position=1))
        uow.commit()
    service.on_loop(service.app._usage.flush())  # noqa: SLF001 - or it might come between
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


def _places_of(service: Service, needles: set[str]) -> set[str]:
    """Give every column of every table in which one of the texts stands, however deep in a value."""
    found = set()
    with service.database.engine.connect() as connection:
        for table in metadata.tables.values():
            for row in connection.execute(sa.select(table)).mappings():
                for column, value in row.items():
                    told = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                    if any(needle in told for needle in needles):
                        found.add(f"{table.name}.{column}")
    return found


def _ids_of(service: Service, owner_id: str) -> set[str]:
    """Give the user's id and those of everything that is the user's."""
    with service.database.engine.connect() as connection:
        return {owner_id}.union(
            *(
                connection.execute(sa.select(table.c.id).where(table.c.owner_id == owner_id)).scalars()
                for table in metadata.tables.values()
                if {"id", "owner_id"} <= set(table.c.keys())
            )
        )


def _have_an_admin_act(service: Service, made: pb.User, unique: str) -> None:
    """Let an ADMIN do things to a user and the user's things, under request ids, and give a floor."""
    admin = service.admin.channel
    server = servers_pb2.Server(
        name=f"{unique} server", kind=servers_pb2.SERVER_KIND_QDRANT, host=unique, port=1
    )
    admin.servers.CreateServer(servers_pb2.CreateServerRequest(server=server, owner_id=made.id))
    of_admin = admin.servers.CreateServer(
        servers_pb2.CreateServerRequest(
            server=servers_pb2.Server(
                name=f"{unique} 2", kind=servers_pb2.SERVER_KIND_QDRANT, host=unique, port=1
            ),
            owner_id=made.id,
            request_id=f"{made.id}-made"[-40:],
        )
    )
    narrowed = api_keys_pb2.ApiKey(name="narrowed to what goes", server_ids=[of_admin.id])
    admin.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=narrowed))
    changed = servers_pb2.Server(id=of_admin.id, port=2)
    admin.servers.UpdateServer(
        servers_pb2.UpdateServerRequest(server=changed, request_id=f"{made.id}-changed"[-40:])
    )
    with service.database.unit_of_work() as uow:
        uow.connection.execute(sa.insert(job_floors).values(owner_id=made.id, position=1))
        uow.commit()
    for id in ("s", "r"):
        admin.users.SetUserRole(
            pb.SetUserRoleRequest(id=made.id, role=options_pb2.ROLE_USER, request_id=f"{made.id}{id}"[-40:])
        )


def test_a_deleted_user_is_named_nowhere(service: Service) -> None:
    """No column holds the user's id, name, email or text, and only the audit ids of their things."""
    admin, anybody = service.admin.channel, service.channel()
    unique = f"gone-{service.admin.id[-6:]}"
    made = anybody.users.RegisterUser(
        pb.RegisterUserRequest(
            name=f"{unique} name", email=f"{unique}@example.org", password=PASSWORD, request_id=f"{unique}-r"
        )
    )
    login = anybody.users.Login(pb.LoginRequest(email=made.email, password=PASSWORD))
    channel = service.channel(token=login.access_token)
    _populate(User(made.id, made.email, Role.USER, "", "", channel), service.new_user())
    with service.database.unit_of_work() as uow:
        uow.resets.ask(made.email)
        uow.quotas.set(made.id, {"servers": 9})
        uow.commit()
    _have_an_admin_act(service, made, unique)
    needles = {unique, *_ids_of(service, made.id)}
    before = _places_of(service, needles)
    assert {"users.email", "servers.host", "reset_requests.email", "request_records.receipt"} <= before
    assert {"job_floors.owner_id", "api_keys.server_ids"} <= before
    admin.users.DeactivateUser(pb.DeactivateUserRequest(id=made.id))
    admin.users.DeleteUser(pb.DeleteUserRequest(id=made.id))
    # What the audit says was done stays, by ids of what is gone, and of a user known by a pseudonym alone.
    assert _places_of(service, needles) == {"audit_events.credential_id", "audit_events.target_id"}
    assert _places_of(service, {unique, made.id, made.email}) == set()


def test_a_deleted_admins_worker_is_named_in_nobodys_jobs(service: Service, user: User) -> None:
    """What a worker that served everybody did stays in others' jobs, by an id that is nobody's."""
    gone, watcher = service.new_user(Role.ADMIN), service.admin.channel
    kind = f"SERVED_{gone.id[-6:]}"
    worker = workers_pb2.Worker(name="w", kinds=[kind], serves_everyone=True)
    stub = gone.channel.workers
    worker_id = stub.RegisterWorker(workers_pb2.RegisterWorkerRequest(worker=worker)).id
    job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind=kind)))
    (lease,) = stub.LeaseJobs(workers_pb2.LeaseJobsRequest(worker_id=worker_id)).leases
    report = jobs_pb2.CompleteJobRequest(id=job.id, attempt=1, report_number=1, lease_token=lease.token)
    gone.channel.jobs.CompleteJob(report)
    before = _places_of(service, {worker_id})
    assert {"jobs.worker_id", "job_events.worker_id", "workers.id"} <= before
    watcher.users.DeactivateUser(pb.DeactivateUserRequest(id=gone.id))
    watcher.users.DeleteUser(pb.DeleteUserRequest(id=gone.id))
    assert _places_of(service, {worker_id}) <= {"audit_events.target_id"}
    known = user.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))
    assert known.worker_id not in ("", worker_id)
    with service.database.engine.connect() as connection:
        ids = connection.execute(
            sa.select(job_events.c.worker_id).where(job_events.c.job_id == job.id)
        ).scalars()
        assert set(ids) - {None} == {known.worker_id}


def test_who_resumes_on_a_deleted_user_is_told_that_events_are_gone(service: Service, user: User) -> None:
    """The floor of a deleted user goes into that of all who are gone, which holds for each of them."""
    channel = service.admin.channel
    job = jobs_pb2.Job(kind="ODD")
    for _ in range(2):
        made = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job))
        user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=made.id))
    chosen = jobs_pb2.JobFilter(owner_id=user.id)
    stream = channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(filter=chosen, include_snapshot=False))
    token = next(each.resume_token for each in stream if each.resume_token)
    stream.cancel()
    made = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job))
    channel.users.DeactivateUser(pb.DeactivateUserRequest(id=user.id))
    channel.users.DeleteUser(pb.DeleteUserRequest(id=user.id))
    request = jobs_pb2.WatchJobsRequest(filter=chosen, resume_token=token)
    with refused("OUT_OF_RANGE", "POSITION_TRIMMED"):
        list(channel.jobs.WatchJobs(request))


def test_active_user_is_not_deleted(service: Service, user: User) -> None:
    """Only a deactivated user can be deleted; an ADMIN cannot delete the own, active account."""
    for id in (user.id, "me"):
        with refused("FAILED_PRECONDITION", "USER_ACTIVE"):
            service.admin.channel.users.DeleteUser(pb.DeleteUserRequest(id=id))
    assert user.channel.users.GetUser(pb.GetUserRequest(id="me")).active
