"""An open job of a document that moved: that there is one is told, and which one to who reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moragmeta.v1 import jobs_pb2
from tests.grants.scene import WRITER
from tests.narrowing.scene import House
from tests.narrowing.test_reach import _move
from tests.refusals import Refusal, refused
from tests.service import Service, User

_OPEN = "INGESTION"


@contextmanager
def _already_open() -> Iterator[Refusal]:
    with refused("ALREADY_EXISTS", "JOB_ALREADY_OPEN") as refusal:
        yield refusal


def _told(house: House, by: User, document_id: str) -> dict[str, str]:
    with _already_open() as refusal:
        house.all.job(document_id, by=by, kind=_OPEN)
    return refusal.metadata


def _told_of_retry(by: User, job_id: str) -> dict[str, str]:
    with _already_open() as refusal:
        by.channel.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job_id))
    return refusal.metadata


def _writer(service: Service, house: House) -> User:
    writer = service.new_user()
    house.all.give(writer, WRITER)
    return writer


def test_an_open_job_of_outside_is_not_named(service: Service, house: House, way: str) -> None:
    """A narrowed key, and a WRITER, learn from CreateJob that a job is open, and from no details which."""
    document = house.all.document(house.outside)
    job = house.all.job(document.id, kind=_OPEN)
    _move(house.all.user, document.id, house.inside)
    assert _told(house, house.narrowed(way), document.id) == {}
    assert _told(house, _writer(service, house), document.id) == {}
    assert _told(house, house.all.user, document.id) == {"job_id": job.id}


def test_a_retry_names_no_open_job_of_outside(service: Service, house: House, way: str) -> None:
    """Nor does RetryJob, of a job of inside whose document was outside meanwhile."""
    document = house.all.document()
    ended = house.all.job(document.id, kind=_OPEN)
    house.all.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=ended.id))
    _move(house.all.user, document.id, house.outside)
    job = house.all.job(document.id, kind=_OPEN)
    _move(house.all.user, document.id, house.inside)
    assert _told_of_retry(house.narrowed(way), ended.id) == {}
    assert _told_of_retry(_writer(service, house), ended.id) == {}
    assert _told_of_retry(house.all.user, ended.id) == {"job_id": job.id}


def test_an_open_job_within_reach_is_named(service: Service, house: House, way: str) -> None:
    """A narrowed key, a WRITER and an ADMIN are told the id of a job that they can get."""
    document = house.all.document()
    job = house.all.job(document.id, kind=_OPEN)
    for by in (house.narrowed(way), _writer(service, house), house.all.user):
        assert _told(house, by, document.id) == {"job_id": job.id}
        by.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))
    request = jobs_pb2.CreateJobRequest(
        owner_id=house.all.user.id, job=jobs_pb2.Job(kind=_OPEN, document_id=document.id)
    )
    with _already_open() as refusal:
        service.admin.channel.jobs.CreateJob(request)
    assert refusal.metadata == {"job_id": job.id}
