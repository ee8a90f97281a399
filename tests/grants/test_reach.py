"""What a grant opens beyond single calls: lists, batches, moves, roles, and whose the rows are."""

from __future__ import annotations

from typing import Any

import pytest

from morag_meta.auth.principal import Role
from moragmeta.v1 import databases_pb2, documents_pb2, grants_pb2, jobs_pb2
from tests.grants.scene import READER, WRITER, Tenant, tenant
from tests.refusals import refused
from tests.service import Service, User


def _shared(user: User, **fields: Any) -> list[databases_pb2.Database]:
    request = databases_pb2.ListDatabasesRequest(shared=True, **fields)
    return list(user.channel.databases.ListDatabases(request).databases)


def _documents(user: User, database_id: str, **fields: Any) -> list[str]:
    """List a database's documents, two a page."""
    request = documents_pb2.ListDocumentsRequest(database_id=database_id, page_size=2, **fields)
    found: list[str] = []
    while True:
        page = user.channel.documents.ListDocuments(request)
        found += [document.id for document in page.documents]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _move(user: User, document_id: str, database_id: str | None) -> documents_pb2.Document:
    request = documents_pb2.UpdateDocumentRequest(
        document=documents_pb2.Document(id=document_id, database_id=database_id)
    )
    request.update_mask.paths.append("database_id")
    moved: documents_pb2.Document = user.channel.documents.UpdateDocument(request)
    return moved


def _count(owner: Tenant) -> int:
    request = databases_pb2.GetDatabaseRequest(id=owner.shared)
    return int(owner.user.channel.databases.GetDatabase(request).document_count)


def test_shared_databases_are_a_list_of_their_own(service: Service, friend: User) -> None:
    """ListDatabases shows the own databases, or with shared those of others, the last shared first."""
    owners = [tenant(service) for _ in range(3)]
    for each in owners:
        each.give(friend, READER)
    listed = _shared(friend)
    assert [database.id for database in listed] == [each.shared for each in reversed(owners)]
    assert {database.granted_level for database in listed} == {READER}
    own = friend.channel.databases.ListDatabases(databases_pb2.ListDatabasesRequest()).databases
    assert list(own) == []
    pages = databases_pb2.ListDatabasesRequest(shared=True, page_size=2)
    first = friend.channel.databases.ListDatabases(pages)
    pages.page_token = first.next_page_token
    rest = friend.channel.databases.ListDatabases(pages)
    assert [*first.databases, *rest.databases] == listed
    assert [one.id for one in _shared(friend, server_id=owners[0].server)] == [owners[0].shared]
    assert _shared(friend, name_contains="priv") == []
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "shared"):
        _shared(friend, owner_id=friend.id)


def test_a_database_says_what_the_caller_may(service: Service, owner: Tenant, friend: User) -> None:
    """Its level shows to who reaches it by a grant, and is unspecified to the owner and to an ADMIN."""
    owner.give(friend, WRITER)
    request = databases_pb2.GetDatabaseRequest(id=owner.shared)
    unspecified = grants_pb2.GRANT_LEVEL_UNSPECIFIED
    expected = ((friend, WRITER), (owner.user, unspecified), (service.admin, unspecified))
    for user, level in expected:
        assert user.channel.databases.GetDatabase(request).granted_level == level


def test_documents_are_listed_by_their_database(owner: Tenant, friend: User) -> None:
    """A list that names the shared database shows all of it, in pages; one that names none shows nothing."""
    made = [owner.document().id for _ in range(5)]
    owner.document(owner.private)
    owner.give(friend, READER)
    assert _documents(friend, owner.shared) == made[::-1] == _documents(owner.user, owner.shared)
    assert _documents(friend, owner.shared, order_by="create_time") == made
    assert _documents(friend, "") == _documents(friend, "-") == _documents(friend, owner.private) == []
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        _documents(friend, owner.shared, owner_id=owner.user.id)


def test_a_page_token_is_of_no_use_without_the_grant(owner: Tenant, friend: User) -> None:
    """The second page of a list is empty once the grant is gone."""
    for _ in range(3):
        owner.document()
    owner.give(friend, READER)
    request = documents_pb2.ListDocumentsRequest(database_id=owner.shared, page_size=1)
    request.page_token = friend.channel.documents.ListDocuments(request).next_page_token
    assert len(friend.channel.documents.ListDocuments(request).documents) == 1
    owner.revoke(friend)
    assert list(friend.channel.documents.ListDocuments(request).documents) == []


def test_a_batch_is_read_across_owners(service: Service, owner: Tenant) -> None:
    """BatchGetDocuments gives own and shared documents, and calls the others missing."""
    other, mine = tenant(service), tenant(service)
    owner.give(mine.user, READER)
    ids = [mine.document("").id, owner.document().id, owner.document(owner.private).id, other.document().id]
    answer = mine.user.channel.documents.BatchGetDocuments(documents_pb2.BatchGetDocumentsRequest(ids=ids))
    assert [document.id for document in answer.documents] == ids[:2]
    assert list(answer.missing_ids) == ids[2:]


def test_a_batch_is_written_across_owners(service: Service, owner: Tenant) -> None:
    """One batch puts documents into own and shared databases, each of its database's owner, and counts."""
    mine = tenant(service)
    owner.give(mine.user, WRITER)
    places = [mine.private, owner.shared, None, owner.shared]
    requests = [
        documents_pb2.CreateDocumentRequest(
            document=documents_pb2.Document(name=f"{number}", type="pdf", database_id=place)
        )
        for number, place in enumerate(places)
    ]
    send = mine.user.channel.documents.BatchCreateDocuments
    answer = send(documents_pb2.BatchCreateDocumentsRequest(requests=requests, request_id="b"))
    owners = [item.document.owner_id for item in answer.responses]
    assert owners == [mine.user.id, owner.user.id, mine.user.id, owner.user.id]
    assert _count(owner) == 2
    again = send(documents_pb2.BatchCreateDocumentsRequest(requests=requests, request_id="b"))
    assert [item.document for item in again.responses] == [item.document for item in answer.responses]
    for number, request in enumerate(requests):
        request.document.name = f"another {number}"
    requests[3].document.database_id = owner.private
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        send(documents_pb2.BatchCreateDocumentsRequest(requests=requests))
    assert _count(owner) == 2


def test_a_batch_says_what_is_wrong_with_the_first_document_that_has_an_error(
    owner: Tenant, friend: User
) -> None:
    """A grant that is too low is said of the item in its turn: after what is wrong with one before it."""
    owner.give(friend, READER)
    documents = [
        documents_pb2.Document(name="twice", type="pdf"),
        documents_pb2.Document(name="twice", type="pdf"),
        documents_pb2.Document(name="other", type="pdf", database_id=owner.shared),
    ]
    requests = [documents_pb2.CreateDocumentRequest(document=document) for document in documents]
    send = friend.channel.documents.BatchCreateDocuments
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        send(documents_pb2.BatchCreateDocumentsRequest(requests=requests))
    assert refusal.metadata["field"] == "requests[1].document.name"
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW") as refusal:
        send(documents_pb2.BatchCreateDocumentsRequest(requests=requests[1:]))
    assert refusal.metadata == {"required_level": "WRITER"}
    assert refusal.message.startswith("requests[1]: ")


def test_what_a_writer_makes_is_the_owners(owner: Tenant, friend: User) -> None:
    """A WRITER's document and job belong to the owner, stay after the grant, and are among the owner's."""
    owner.give(friend, WRITER)
    document = owner.document(by=friend)
    job = owner.job(document.id, by=friend, kind="INGESTION")
    assert document.owner_id == job.owner_id == owner.user.id
    taken = documents_pb2.Document(name=document.name, type="pdf", database_id=owner.shared)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        friend.channel.documents.CreateDocument(documents_pb2.CreateDocumentRequest(document=taken))
    friend.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    retried = friend.channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job.id))
    assert (retried.owner_id, retried.predecessor_id) == (owner.user.id, job.id)
    friend.channel.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    assert _count(owner) == 0
    friend.channel.documents.UndeleteDocument(documents_pb2.UndeleteDocumentRequest(id=document.id))
    owner.revoke(friend)
    assert _count(owner) == 1
    own = owner.user.channel.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs
    assert [each.id for each in own] == [retried.id, job.id]


def test_a_document_is_moved_only_within_what_is_shared(
    service: Service, owner: Tenant, friend: User
) -> None:
    """By a grant a document goes to a database where the caller is WRITER too, and nowhere else."""
    third = tenant(service)
    owner.give(friend, WRITER)
    third.give(friend, WRITER)
    document = owner.document()
    for place in (owner.private, third.shared, third.private):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            _move(friend, document.id, place)
        assert refusal.metadata == {"resource_type": "database", "resource_id": place}
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW") as refusal:
        _move(friend, document.id, None)
    assert refusal.metadata == {"required_level": "OWNER"}
    owner.give(friend, READER, database_id=owner.private)
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW") as refusal:
        _move(friend, document.id, owner.private)
    assert refusal.metadata == {"required_level": "WRITER"}
    assert (_move(friend, document.id, owner.shared).database_id, _count(owner)) == (owner.shared, 1)
    owner.give(friend, WRITER, database_id=owner.private)
    assert _move(friend, document.id, owner.private).database_id == owner.private
    assert _count(owner) == 0


def test_a_document_that_leaves_is_out_of_reach(owner: Tenant, friend: User) -> None:
    """What the owner takes out of the shared database is not found; its job can be read, but not retried."""
    owner.give(friend, WRITER)
    document = owner.document()
    job = owner.job(document.id)
    friend.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    _move(owner.user, document.id, owner.private)
    with refused("NOT_FOUND"):
        friend.channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id))
    assert friend.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id)).document_id == document.id
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        friend.channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job.id))
    assert refusal.metadata == {"resource_type": "document", "resource_id": document.id}


@pytest.mark.parametrize("kind", ["INGESTION", "REINDEX"])
def test_a_job_is_not_cancelled_once_its_document_left(owner: Tenant, friend: User, kind: str) -> None:
    """A WRITER does not call off a job of a document that went elsewhere, which would change the document."""
    owner.give(friend, WRITER)
    job = owner.job(owner.document().id, kind=kind)
    owner.user.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=job.id))
    _move(owner.user, job.document_id, owner.private)
    get = documents_pb2.GetDocumentRequest(id=job.document_id)
    before = owner.user.channel.documents.GetDocument(get)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        friend.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert refusal.metadata == {"resource_type": "document", "resource_id": job.document_id}
    assert owner.user.channel.documents.GetDocument(get) == before
    owner.give(friend, WRITER, database_id=owner.private)
    cancelled = friend.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert cancelled.state == jobs_pb2.JOB_STATE_CANCELLED


def test_jobs_and_figures_are_those_of_the_database(owner: Tenant, friend: User) -> None:
    """Lists and figures that name the shared database are its owner's; a purge by a grant removes nothing."""
    jobs = [owner.job(owner.document().id).id for _ in range(2)]
    owner.job(owner.document(owner.private).id)
    owner.give(friend, WRITER)
    chosen = jobs_pb2.JobFilter(database_id=owner.shared)
    calls = friend.channel.jobs
    assert [job.id for job in calls.ListJobs(jobs_pb2.ListJobsRequest(filter=chosen)).jobs] == jobs[::-1]
    assert calls.GetJobStats(jobs_pb2.GetJobStatsRequest(filter=chosen)).total == 2
    assert calls.GetJobStats(jobs_pb2.GetJobStatsRequest()).total == 0
    calls.CancelJob(jobs_pb2.CancelJobRequest(id=jobs[0]))
    purge = jobs_pb2.PurgeJobsRequest(filter=chosen)
    purge.end_time_before.seconds = 4_000_000_000
    assert calls.PurgeJobs(purge).purged_jobs == 0
    assert calls.GetJob(jobs_pb2.GetJobRequest(id=jobs[0])).id == jobs[0]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER])
def test_a_role_bounds_what_a_grant_allows(service: Service, owner: Tenant, role: Role) -> None:
    """A VIEWER with a WRITER's grant reads what is assigned and writes nothing."""
    grantee = service.new_user(role)
    document = owner.document()
    owner.give(grantee, WRITER)
    found = grantee.channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id))
    assert (found.id, _documents(grantee, owner.shared)) == (document.id, [document.id])
    assert [database.id for database in _shared(grantee)] == [owner.shared]
    delete = documents_pb2.DeleteDocumentRequest(id=document.id)
    if role is Role.USER:
        grantee.channel.documents.DeleteDocument(delete)
    else:
        with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
            grantee.channel.documents.DeleteDocument(delete)


def test_a_lesser_grant_says_what_is_needed(owner: Tenant, friend: User) -> None:
    """A READER who writes is told that a WRITER is needed, and nothing is changed."""
    document = owner.document()
    owner.give(friend, READER)
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW") as refusal:
        friend.channel.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    assert refusal.metadata == {"required_level": "WRITER"}
    found = owner.user.channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id))
    assert found == document
