"""API keys that are narrowed to databases or servers: what is outside does not exist to them."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import Caller
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2, users_pb2

AREA = Area("narrowed keys")


def _documents(caller: Caller) -> list[str]:
    """List the documents, two at a time, to the end."""
    request, found = documents_pb2.ListDocumentsRequest(page_size=2), []
    while True:
        page = caller.documents.ListDocuments(request)
        found += [document.id for document in page.documents]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


@AREA.case
def a_narrowed_key_says_so(bench: Bench) -> None:
    """GetApiKey and GetCurrentPrincipal tell what a key is narrowed to, and an update leaves it."""
    inside = bench.add_database()
    key_id, caller = bench.add_key(database_ids=[inside.id], server_ids=[inside.server_id])
    principal = caller.api_keys.GetCurrentPrincipal(pb.GetCurrentPrincipalRequest())
    key = pb.ApiKey(id=key_id, description="x")
    key = bench.mine.api_keys.UpdateApiKey(pb.UpdateApiKeyRequest(api_key=key))
    for each in (principal, key):
        named = list(each.database_ids), list(each.server_ids)
        same("databases and servers", named, ([inside.id], [inside.server_id]))


@AREA.case
def a_key_names_what_there_is(bench: Bench) -> None:
    """A key that names a database or server which the owner does not reach is NOT_FOUND."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
        bench.add_key(database_ids=[missing_id()])
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="server"):
        bench.add_key(server_ids=[missing_id()])


@AREA.case
def what_is_outside_does_not_exist(bench: Bench) -> None:
    """A key narrowed to a database, or to its server, gets and lists what is in it, and nothing else."""
    inside, outside = bench.add_database(), bench.add_database()
    held = {}
    for place in (inside, outside):
        held[place.id] = [bench.add_document(database_id=place.id).id for _ in range(3)]
    by_database = bench.add_key(database_ids=[inside.id])
    by_server = bench.add_key(server_ids=[inside.server_id])
    for _, caller in (by_database, by_server):
        same("its documents", sorted(_documents(caller)), sorted(held[inside.id]))
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
            caller.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=outside.id))
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="document"):
            caller.documents.GetDocument(documents_pb2.GetDocumentRequest(id=held[outside.id][0]))


@AREA.case
def nothing_is_made_outside(bench: Bench) -> None:
    """A narrowed key is refused what would lie outside, and what is about the account: KEY_NARROWED."""
    inside = bench.add_database()
    _, caller = bench.add_key(database_ids=[inside.id])
    loose = documents_pb2.Document(name=bench.name(), type="pdf")
    with refused("PERMISSION_DENIED", "KEY_NARROWED"):
        caller.documents.CreateDocument(documents_pb2.CreateDocumentRequest(document=loose))
    with refused("PERMISSION_DENIED", "KEY_NARROWED"):
        caller.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind=bench.kind)))
    with refused("PERMISSION_DENIED", "KEY_NARROWED"):
        caller.users.GetUser(users_pb2.GetUserRequest(id="me"))


@AREA.case
def a_narrowed_key_makes_only_narrower_keys(bench: Bench) -> None:
    """A key made by way of a narrowed key must be narrowed, to what that one reaches."""
    inside, outside = bench.add_database(), bench.add_database()
    _, maker = bench.add_key(server_ids=[inside.server_id])
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.database_ids"):
        maker.api_keys.CreateApiKey(pb.CreateApiKeyRequest(api_key=pb.ApiKey(name=bench.name())))
    beyond = pb.ApiKey(name=bench.name(), database_ids=[outside.id])
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
        maker.api_keys.CreateApiKey(pb.CreateApiKeyRequest(api_key=beyond))
    within = pb.CreateApiKeyRequest(api_key=pb.ApiKey(name=bench.name(), database_ids=[inside.id]))
    made = maker.api_keys.CreateApiKey(within)
    bench.conceal(made.secret)
    delete = pb.DeleteApiKeyRequest(id=made.api_key.id)
    bench.later(f"api key {delete.id}", lambda: bench.mine.api_keys.DeleteApiKey(delete))
    same("what it is narrowed to", list(made.api_key.database_ids), [inside.id])


@AREA.case
def a_narrowed_stream_tells_of_the_inside(bench: Bench) -> None:
    """WatchJobs by a narrowed key tells of the jobs of its database alone."""
    inside, outside = bench.add_database(), bench.add_database()
    _, caller = bench.add_key(database_ids=[inside.id])
    with bench.watch_jobs(by=caller) as stream:
        stream.frames("sync")
        bench.add_job(document_id=bench.add_document(database_id=outside.id).id)
        job = bench.add_job(document_id=bench.add_document(database_id=inside.id).id)
        frame = stream.frames("event")[-1]
        same("the first job told of", frame.event.job_id, job.id)


@AREA.case
def any_key_ends_itself(bench: Bench) -> None:
    """A key without `api_keys:write` revokes itself, and no other key: NOT_FOUND."""
    key_id, caller = bench.add_key("documents:read")
    other_id, _ = bench.add_key("documents:read")
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="api_key"):
        caller.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=other_id))
    revoked = caller.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
    same("its state", revoked.state, pb.API_KEY_STATE_REVOKED)
