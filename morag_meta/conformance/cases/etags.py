"""Etags: a change that builds on an old view is refused (AIP-154)."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from moragmeta.v1 import documents_pb2, jobs_pb2
from moragmeta.v1 import servers_pb2 as pb

AREA = Area("etags")


def _move(bench: Bench, server: pb.Server, port: int, etag: str = "") -> pb.Server:
    request = pb.UpdateServerRequest(server=pb.Server(id=server.id, port=port, etag=etag))
    return bench.mine.servers.UpdateServer(request)


@AREA.case
def each_change_has_an_etag_of_its_own(bench: Bench) -> None:
    """Each change gives the resource another etag, and a read gives the present one."""
    server = bench.add_server()
    etags = {server.etag, _move(bench, server, 1).etag, _move(bench, server, 2).etag}
    same("different etags of three changes", len(etags), 3)
    read = bench.mine.servers.GetServer(pb.GetServerRequest(id=server.id))
    same("the etag that is read", read.etag in etags - {server.etag}, True)


@AREA.case
def the_present_etag_is_accepted(bench: Bench) -> None:
    """A change with the present etag is made."""
    server = bench.add_server()
    same("port", _move(bench, server, 7000, server.etag).port, 7000)


@AREA.case
def an_old_etag_is_refused(bench: Bench) -> None:
    """An update with an etag that is not the present one is ABORTED, and changes nothing."""
    server = bench.add_server()
    changed = _move(bench, server, 7000)
    with refused("ABORTED", "ETAG_MISMATCH"):
        _move(bench, server, 8000, server.etag)
    same("the server", bench.mine.servers.GetServer(pb.GetServerRequest(id=server.id)), changed)


@AREA.case
def an_old_etag_deletes_nothing(bench: Bench) -> None:
    """A deletion with an etag that is not the present one is ABORTED, and deletes nothing."""
    server = bench.add_server()
    changed = _move(bench, server, 7000)
    with refused("ABORTED", "ETAG_MISMATCH"):
        bench.mine.servers.DeleteServer(pb.DeleteServerRequest(id=server.id, etag=server.etag))
    same("the server", bench.mine.servers.GetServer(pb.GetServerRequest(id=server.id)), changed)
    bench.mine.servers.DeleteServer(pb.DeleteServerRequest(id=server.id, etag=changed.etag))


@AREA.case
def verbs_take_etags_too(bench: Bench) -> None:
    """StartJob, CancelJob and DeleteDocument with an old etag are ABORTED."""
    job = bench.add_job()
    started = bench.started(job.id, etag=job.etag)
    holds("another etag after the start", fact=started.etag != job.etag, seen="the same")
    with refused("ABORTED", "ETAG_MISMATCH"):
        bench.mine.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id, etag=job.etag))
    document = bench.add_document()
    with refused("ABORTED", "ETAG_MISMATCH"):
        request = documents_pb2.DeleteDocumentRequest(id=document.id, etag='"0"')
        bench.mine.documents.DeleteDocument(request)
