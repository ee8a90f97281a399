"""Grants: what they open to another user, what they do not, and that they end."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2
from moragmeta.v1 import grants_pb2 as pb

AREA = Area("grants")


def _give(bench: Bench, database_id: str, level: pb.GrantLevel.ValueType) -> pb.Grant:
    request = pb.GrantAccessRequest(database_id=database_id, grantee_id=bench.other.id, level=level)
    grant: pb.Grant = bench.mine.grants.GrantAccess(request)
    return grant


def _revoke(bench: Bench, database_id: str) -> None:
    request = pb.RevokeAccessRequest(database_id=database_id, grantee_id=bench.other.id)
    bench.mine.grants.RevokeAccess(request)


@AREA.admin_case
def a_grant_is_listed_on_both_sides(bench: Bench) -> None:
    """A grant is listed on the database to its owner, and among the own ones to its user."""
    database = bench.add_database()
    grant = _give(bench, database.id, pb.GRANT_LEVEL_READER)
    on = bench.mine.grants.ListGrants(pb.ListGrantsRequest(database_id=database.id))
    same("grants on the database", list(on.grants), [grant])
    to = bench.other.caller.grants.ListGrants(pb.ListGrantsRequest())
    of_this = [each for each in to.grants if each.database_id == database.id]
    same("grants to the user, of this database", of_this, [grant])
    same("its level", _give(bench, database.id, pb.GRANT_LEVEL_WRITER).level, pb.GRANT_LEVEL_WRITER)
    same("the level after another one", _give(bench, database.id, pb.GRANT_LEVEL_READER).level, grant.level)


@AREA.case
def nothing_is_shared_with_nobody(bench: Bench) -> None:
    """A grant to a user who does not exist is NOT_FOUND, to the owner INVALID_ARGUMENT."""
    database = bench.add_database()
    request = pb.GrantAccessRequest(
        database_id=database.id, grantee_id=missing_id(), level=pb.GRANT_LEVEL_READER
    )
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="user"):
        bench.mine.grants.GrantAccess(request)
    request.grantee_id = bench.me.id
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "grantee_id"):
        bench.mine.grants.GrantAccess(request)


@AREA.admin_case
def a_reader_reads(bench: Bench) -> None:
    """A READER gets and lists the database, its documents and its jobs, and changes none of them."""
    database, reader = bench.add_database(), bench.other.caller
    document = bench.add_document(database_id=database.id)
    job = bench.add_job(document_id=document.id)
    _give(bench, database.id, pb.GRANT_LEVEL_READER)
    got = reader.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=database.id))
    same("the level that the database shows", got.granted_level, pb.GRANT_LEVEL_READER)
    shared = reader.databases.ListDatabases(databases_pb2.ListDatabasesRequest(shared=True)).databases
    same("whether it is listed as shared", database.id in [each.id for each in shared], True)
    listed = reader.documents.ListDocuments(documents_pb2.ListDocumentsRequest(database_id=database.id))
    same("documents of the database", list(listed.documents), [document])
    chosen = jobs_pb2.JobFilter(database_id=database.id)
    jobs = reader.jobs.ListJobs(jobs_pb2.ListJobsRequest(filter=chosen)).jobs
    same("jobs of the database", [each.id for each in jobs], [job.id])
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW", required_level="WRITER"):
        reader.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW", required_level="WRITER"):
        reader.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))


@AREA.admin_case
def a_writer_writes_what_is_the_owners(bench: Bench) -> None:
    """What a WRITER creates belongs to the database's owner; the database itself the WRITER cannot change."""
    database = bench.add_database()
    _give(bench, database.id, pb.GRANT_LEVEL_WRITER)
    made = bench.add_document(by=bench.other.caller, database_id=database.id)
    same("the owner of the document", made.owner_id, bench.me.id)
    same("the document as its owner sees it", bench.document(made.id), made)
    job = bench.add_job(by=bench.other.caller, document_id=made.id)
    same("the owner of the job", job.owner_id, bench.me.id)
    with refused("PERMISSION_DENIED", "GRANT_TOO_LOW", required_level="OWNER"):
        bench.other.caller.databases.DeleteDatabase(
            databases_pb2.DeleteDatabaseRequest(id=database.id, force=True)
        )


@AREA.admin_case
def a_grant_is_given_up(bench: Bench) -> None:
    """Who has been given a grant ends it themselves, and then has none."""
    database = bench.add_database()
    _give(bench, database.id, pb.GRANT_LEVEL_READER)
    mine = pb.RevokeAccessRequest(database_id=database.id, grantee_id=bench.other.id)
    bench.other.caller.grants.RevokeAccess(mine)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
        bench.other.caller.grants.RevokeAccess(mine)
    listed = bench.mine.grants.ListGrants(pb.ListGrantsRequest(database_id=database.id)).grants
    same("grants on it", len(listed), 0)


@AREA.admin_case
def a_revoked_grant_opens_nothing(bench: Bench) -> None:
    """After the revocation the next call finds nothing, and streams by the grant end with NOT_FOUND."""
    database = bench.add_database()
    document = bench.add_document(database_id=database.id)
    job = bench.add_job(document_id=document.id)
    _give(bench, database.id, pb.GRANT_LEVEL_READER)
    with (
        bench.watch(job.id, by=bench.other.caller) as one,
        bench.follow(bench.other.caller, database_id=database.id) as many,
    ):
        one.changes(1)
        many.frames("sync")
        _revoke(bench, database.id)
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="document"):
            bench.other.caller.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document.id))
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="job"):
            one.ended()
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
            many.ended()
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="grant"):
        _revoke(bench, database.id)
