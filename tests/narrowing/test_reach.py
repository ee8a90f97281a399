"""What a narrowed key reaches: what lies outside is exactly like what does not exist."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.rpc.access import access_of
from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2, servers_pb2
from tests.grants.scene import WRITER, tenant
from tests.grants.sweep import SWEPT, Caller
from tests.narrowing.scene import House, documents_of, jobs_of
from tests.refusals import refused
from tests.service import Service, User

# Workers are the owner's, whatever a key is narrowed to: any of them may be named to lease jobs. And a
# database within shows on which server it is.
TOLD = {
    ("WorkerService.LeaseJobs", "worker_id", "worker"),
    ("DatabaseService.ListDatabases", "server_id", "server of the inside"),
}


def _outside(house: House) -> dict[str, str]:
    """Give an id of each kind of what the user has outside."""
    document = house.all.document(house.outside)
    loose = house.all.document("")
    return {
        "database": house.outside,
        "server": house.all.server,
        "document": document.id,
        "document in none": loose.id,
        "job": house.all.job(document.id).id,
        "job of a document in none": house.all.job(loose.id).id,
        "worker": house.all.worker(),
        "key": house.all.user.key_id,
    }


def test_what_is_outside_is_as_if_it_did_not_exist(service: Service, house: House, way: str) -> None:
    """No id of the outside makes a difference in any field of any method to a narrowed key."""
    key, ids, wrong = house.narrowed(way), _outside(house), []
    caller = Caller(replace(house.all, private=house.inside, server=house.inner_server))
    caller.mine = replace(caller.mine, user=key)
    if way == "database":
        ids["server of the inside"] = house.inner_server
    other = tenant(service)
    other.give(house.all.user, WRITER)
    ids |= {"shared database": other.shared, "shared document": other.document().id}
    ids["shared job"] = other.job(ids["shared document"]).id
    for name, path, method in SWEPT:
        missing = caller.answer(method, path, str(uuid.uuid4()))
        for kind, id in ids.items():
            found = caller.answer(method, path, id)
            if found != missing and (name, ".".join(path), kind) not in TOLD:
                wrong.append(f"{name} with {kind} in {'.'.join(path)}: {found}, expected {missing}")
    assert wrong == []


def test_what_is_inside_is_there(house: House, way: str) -> None:
    """A narrowed key gets, lists and changes the database, its documents and their jobs."""
    key = house.narrowed(way)
    channel: Any = key.channel
    document = house.all.document(by=key)
    job = house.all.job(document.id, by=key)
    database = channel.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=house.inside))
    assert (database.id, database.document_count) == (house.inside, 1)
    assert channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id)) == document
    assert channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id)).id == job.id
    renamed = databases_pb2.Database(id=house.inside, description="new")
    channel.databases.UpdateDatabase(databases_pb2.UpdateDatabaseRequest(database=renamed))
    assert channel.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(job_id=job.id)).events
    cancelled = channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert cancelled.state == jobs_pb2.JOB_STATE_CANCELLED
    assert channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job.id)).document_id == document.id
    channel.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    servers = [s.id for s in channel.servers.ListServers(servers_pb2.ListServersRequest()).servers]
    assert servers == ([] if way == "database" else [house.inner_server])


def test_lists_hold_the_inside_alone_page_by_page(house: House, way: str) -> None:
    """Lists page through what is inside without gaps, however it lies among the rest; figures agree."""
    inside, jobs = [], []
    for _ in range(5):
        house.all.job(house.all.document(house.outside).id)
        inside.append(house.all.document().id)
        house.all.document("")
        jobs.append(house.all.job(inside[-1]).id)
    key = house.narrowed(way)
    for order in ("create_time", "update_time", "name"):
        assert sorted(documents_of(key, page_size=2, order_by=order)) == sorted(inside)
    assert documents_of(key, page_size=2) == inside[::-1]
    assert documents_of(key, database_id=house.inside) == inside[::-1]
    assert documents_of(key, database_id=house.outside) == documents_of(key, database_id="-") == []
    assert jobs_of(key, page_size=2) == jobs[::-1]
    assert jobs_of(key, kinds=["REINDEX"], database_id=house.inside) == jobs[::-1]
    assert jobs_of(key, database_id=house.outside) == []
    stats = key.channel.jobs.GetJobStats(jobs_pb2.GetJobStatsRequest())
    assert stats.total == 5
    databases = key.channel.databases.ListDatabases(databases_pb2.ListDatabasesRequest()).databases
    assert [database.id for database in databases] == [house.inside]
    batch = documents_pb2.BatchGetDocumentsRequest(ids=[inside[0], documents_of(house.all.user)[0]])
    found = key.channel.documents.BatchGetDocuments(batch)
    assert ([d.id for d in found.documents], list(found.missing_ids)) == ([inside[0]], [batch.ids[1]])


def test_several_databases_and_servers_are_reached_together(house: House) -> None:
    """A key that names a database and another server reaches both, in one list and its order."""
    third = house.database("third", house.all.server)
    key = house.key(database_ids=[third], server_ids=[house.inner_server])
    inside = [house.all.document(place).id for place in (house.inside, third, house.inside, third)]
    house.all.document(house.outside)
    assert documents_of(key, page_size=1) == inside[::-1]
    later = house.database("later", house.inner_server)
    assert house.all.document(later, by=key).id in documents_of(key)


def test_nothing_is_made_outside(house: House, way: str) -> None:
    """Documents in no database, jobs of no document and moves out are KEY_NARROWED, other places missing."""
    key = house.narrowed(way)
    document = house.all.document(by=key)
    documents: Any = key.channel.documents
    loose = documents_pb2.CreateDocumentRequest(document=documents_pb2.Document(name="loose", type="pdf"))
    batch = documents_pb2.BatchCreateDocumentsRequest(requests=[loose])
    move = documents_pb2.UpdateDocumentRequest(
        document=documents_pb2.Document(id=document.id), update_mask=FieldMask(paths=["database_id"])
    )
    job = jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX"))
    calls: list[tuple[Any, Any]] = [
        (documents.CreateDocument, loose),
        (documents.BatchCreateDocuments, batch),
        (documents.UpdateDocument, move),
        (key.channel.jobs.CreateJob, job),
    ]
    for call, request in calls:
        with refused("PERMISSION_DENIED", "KEY_NARROWED"):
            call(request)
    loose.document.database_id = move.document.database_id = house.outside
    for call, request in ((documents.CreateDocument, loose), (documents.UpdateDocument, move)):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            call(request)
    assert documents_of(house.all.user) == [document.id]


def test_a_database_is_made_on_a_server_within(house: House) -> None:
    """A key that names servers makes databases there; one that names databases alone makes none."""
    request = databases_pb2.CreateDatabaseRequest(
        database=databases_pb2.Database(name="new", server_id=house.inner_server)
    )
    with refused("PERMISSION_DENIED", "KEY_NARROWED"):
        house.narrowed("database").channel.databases.CreateDatabase(request)
    key = house.narrowed("server")
    made = key.channel.databases.CreateDatabase(request)
    assert house.all.document(made.id, by=key).database_id == made.id
    request.database.server_id = house.all.server
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        key.channel.databases.CreateDatabase(request)
    with refused("PERMISSION_DENIED", "KEY_NARROWED"):
        server = servers_pb2.Server(name="x", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
        key.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))


def test_a_job_whose_document_has_left_is_only_looked_at(house: House, way: str) -> None:
    """The job of a document that was moved outside is seen, and not canceled or done again."""
    key, document = house.narrowed(way), house.all.document()
    job = house.all.job(document.id)
    _move(house.all.user, document.id, house.outside)
    assert jobs_of(key) == [job.id]
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        key.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert refusal.metadata["resource_type"] == "document"
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        key.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=job.id))
    cancelled = house.all.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        key.channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=cancelled.id))


def _move(user: User, document_id: str, database_id: str) -> None:
    document = documents_pb2.Document(id=document_id, database_id=database_id)
    user.channel.documents.UpdateDocument(documents_pb2.UpdateDocumentRequest(document=document))


def test_deleting_a_moved_document_cancels_its_job(house: House, way: str) -> None:
    """What a narrowed key does inside has its whole effect: also on a job from before the document came."""
    document = house.all.document(house.outside)
    job = house.all.job(document.id, kind="INGESTION")
    _move(house.all.user, document.id, house.inside)
    key = house.narrowed(way)
    key.channel.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    seen = house.all.user.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))
    assert seen.state == jobs_pb2.JOB_STATE_CANCELLED
    assert jobs_of(key) == []


def test_purge_is_of_the_inside(house: House, way: str) -> None:
    """PurgeJobs by a narrowed key removes ended jobs of the inside, and no other."""
    jobs = [house.all.job(house.all.document(place).id) for place in (house.inside, house.outside)]
    for job in jobs:
        house.all.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    request = jobs_pb2.PurgeJobsRequest()
    request.end_time_before.FromSeconds(4_000_000_000)
    assert house.narrowed(way).channel.jobs.PurgeJobs(request).purged_jobs == 1
    assert jobs_of(house.all.user) == [jobs[1].id]


def test_tokens_and_request_ids_are_of_one_reach(house: House, way: str) -> None:
    """A page token or request id of a wide key is of no use to a narrowed one of the same user."""
    key = house.narrowed(way)
    for _ in range(2):
        house.all.document(house.outside)
    listing = documents_pb2.ListDocumentsRequest(page_size=1)
    listing.page_token = house.all.user.channel.documents.ListDocuments(listing).next_page_token
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        key.channel.documents.ListDocuments(listing)
    deletion = documents_pb2.DeleteDocumentRequest(
        id=documents_of(house.all.user)[0], request_id=str(uuid.uuid4())
    )
    house.all.user.channel.documents.DeleteDocument(deletion)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        key.channel.documents.DeleteDocument(deletion)


@pytest.mark.parametrize("fields", [{"filter": jobs_pb2.JobFilter(owner_id="-")}])
def test_narrowing_opens_nothing_to_others(house: House, fields: dict[str, Any]) -> None:
    """A narrowed key is bounded by its owner's role as any: it names no other owner."""
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        house.narrowed().channel.jobs.ListJobs(jobs_pb2.ListJobsRequest(**fields))


def test_the_sweep_reaches_what_is_admitted() -> None:
    """Methods that admit narrowed keys and name an id are swept."""
    swept = {name for name, _, method in SWEPT if access_of(method).admits_narrowed}
    assert len(swept) > 35
