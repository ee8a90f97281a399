"""A user of very many jobs and documents, who goes in parts: also by two calls, where the first one fails."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.db.schema import documents, jobs, metadata, request_records, users
from morag_meta.errors import Reason, Unavailable
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork
from morag_meta.users import deletions
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.jobs.written import write_jobs
from tests.refusals import refused
from tests.service import Service, User

_JOBS, _EVENTS, _DOCUMENTS = 1200, 3, 1300
_KINDS: Final = ("jobs", "job_events", "documents")
_PART: Final = Counter(jobs=250, job_events=5000, documents=500)  # of one transaction
_DELETED: Final = re.compile(r"DELETE FROM (\w+)")
_LOG_TAKEN: Final = re.compile(r"SELECT job_log\.position[, \n]")


class _Held:
    """What each transaction of a server removed, altogether and with the log's row held."""

    def __init__(self) -> None:
        """Begin with no transaction."""
        self.wholes: list[Counter[str]] = []
        self.parts: list[Counter[str]] = []
        self.last: Counter[str] | None = None
        """What the transaction removed that removed the user."""
        self._open: dict[int, tuple[Counter[str], Counter[str] | None, bool]] = {}

    def note(self, connection: Any, cursor: Any, text: str, *_: Any) -> None:
        """Take in a statement that has run."""
        key = id(connection.connection.driver_connection)
        removed, with_log, of_user = self._open.pop(key, (Counter(), None, False))
        plain = text.replace('"', "").replace("`", "")
        if plain in ("COMMIT", "ROLLBACK"):
            self._end(removed, with_log, kept=plain == "COMMIT", of_user=of_user)
            return
        deleted = _DELETED.search(plain)
        if _LOG_TAKEN.search(plain):
            with_log = Counter() if with_log is None else with_log
        elif deleted is not None:
            of_user = of_user or deleted[1] == "users"
            for counted in (removed, with_log):
                if counted is not None and deleted[1] in _KINDS:
                    counted[deleted[1]] += cursor.rowcount
        self._open[key] = removed, with_log, of_user

    def _end(
        self, removed: Counter[str], with_log: Counter[str] | None, *, kept: bool, of_user: bool
    ) -> None:
        if kept and with_log is not None:
            self.parts.append(with_log)
        if kept and removed:
            self.wholes.append(removed)
        if kept and of_user:
            self.last = removed


@contextmanager
def _heard(service: Service) -> Iterator[_Held]:
    """Hear every statement of the server."""
    held, engine = _Held(), service.app.database.engine
    hearing = {"before_cursor_execute": lambda *_: None, "after_cursor_execute": held.note}
    for event, hear in hearing.items():
        sa.event.listen(engine, event, hear)
    try:
        yield held
    finally:
        for event, hear in hearing.items():
            sa.event.remove(engine, event, hear)


def _fill(
    service: Service, owner_id: str, *, jobs_each: int = _JOBS, documents_each: int = _DOCUMENTS
) -> None:
    """Give a user jobs in every kind of state, with events that have no positions yet, and documents."""
    with service.database.unit_of_work() as uow:
        template = uow.documents.add(owner_id, {"name": "template", "type": "pdf"})
        made = [{**template, "id": new_id(), "name": f"{n}.pdf"} for n in range(documents_each - 1)]
        for start in range(0, len(made), 250):
            uow.run_many(sa.insert(documents), made[start : start + 250])
        ids = [row["id"] for row in made]
        given = [
            {"document_id": ids[n % len(ids)], "state": "FAILED" if n % 2 else "PENDING"}
            for n in range(jobs_each)
        ]
        write_jobs(uow, owner_id, given, events=_EVENTS, first=None)
        uow.commit()


def _left(service: Service, owner_id: str) -> Counter[str]:
    """Count the rows of an owner in every table, the user's own among them."""
    counts: Counter[str] = Counter()
    with service.database.engine.connect() as connection:
        for table in metadata.sorted_tables:
            column = table.c.get("owner_id", table.c.id if table is users else None)
            if column is not None:
                found = sa.select(sa.func.count()).select_from(table).where(column == owner_id)
                counts[table.name] = connection.execute(found).scalar_one()
    return +counts


def _ids(service: Service, table: sa.Table, owner_id: str) -> set[str]:
    with service.database.engine.connect() as connection:
        return set(connection.execute(sa.select(table.c.id).where(table.c.owner_id == owner_id)).scalars())


def _receipts(service: Service) -> str:
    """Give what all requests noted."""
    with service.database.engine.connect() as connection:
        return " ".join(map(str, connection.execute(sa.select(request_records.c.receipt)).scalars()))


def _note_request(uow: UnitOfWork, caller_id: str, job_id: str) -> None:
    """Write the record of a request that did something to a job."""
    record = {"owner_id": caller_id, "method": "JobService.CancelJob", "request_id": new_id()}
    told = {"fingerprint": "x", "receipt": {"id": job_id}, "create_time": uow.now}
    uow.run(sa.insert(request_records), **record, **told)


@pytest.fixture
def goner(service: Service) -> User:
    """Give a deactivated user."""
    user = service.new_user()
    service.admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=user.id))
    return user


def test_no_transaction_removes_more_than_a_part(service: Service, goner: User) -> None:
    """However much a user has, a part goes with the log's row held, and nothing with the user's own row."""
    _fill(service, goner.id)
    with _heard(service) as held:
        service.admin.channel.users.DeleteUser(pb.DeleteUserRequest(id=goner.id), timeout=60)
    assert _left(service, goner.id) == Counter()
    removed = sum(held.wholes, Counter())
    assert removed == Counter(jobs=_JOBS, job_events=_JOBS * _EVENTS, documents=_DOCUMENTS)
    assert all(whole <= _PART for whole in held.wholes), held.wholes
    assert all(part["jobs"] <= 250 and part["job_events"] <= 250 * _EVENTS for part in held.parts)
    assert held.last == Counter()


def test_a_deletion_that_is_broken_off_is_finished_by_the_next(
    service: Service, goner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone by then no request names any more, though the next call does not know its ids."""
    _fill(service, goner.id, jobs_each=600, documents_each=10)
    admin, ids = service.admin, sorted(_ids(service, jobs, goner.id))
    gone = ids[0]
    calls, remove = [], deletions._remove  # noqa: SLF001 - where a process may end

    def broken(uow: UnitOfWork, **given: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:
            raise Unavailable("broken off", reason=Reason.DATABASE_UNAVAILABLE)
        _note_request(uow, admin.id, gone)  # as if somebody had done so just before
        return remove(uow, **given)

    monkeypatch.setattr(deletions, "_remove", broken)
    with refused("UNAVAILABLE"):
        admin.channel.users.DeleteUser(pb.DeleteUserRequest(id=goner.id))
    assert set(ids) - _ids(service, jobs, goner.id) == set(ids[:250])
    assert gone not in _receipts(service)
    assert not admin.channel.users.GetUser(pb.GetUserRequest(id=goner.id)).active
    monkeypatch.undo()
    admin.channel.users.DeleteUser(pb.DeleteUserRequest(id=goner.id))
    assert _left(service, goner.id) == Counter()


def test_what_may_not_be_deleted_loses_nothing(service: Service, goner: User) -> None:
    """A call that is refused in the end has removed no part before."""
    _fill(service, goner.id, jobs_each=10, documents_each=10)
    admin, other = service.admin.channel.users, service.new_user()
    kept = _left(service, goner.id)
    admin.DeactivateUser(pb.DeactivateUserRequest(id=other.id))
    admin.DeleteUser(pb.DeleteUserRequest(id=other.id, request_id=f"once-{other.id}"))
    with refused("ABORTED", "ETAG_MISMATCH"):
        admin.DeleteUser(pb.DeleteUserRequest(id=goner.id, etag="another"))
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        admin.DeleteUser(pb.DeleteUserRequest(id=goner.id, request_id=f"once-{other.id}"))
    with refused("PERMISSION_DENIED"):
        service.new_user().channel.users.DeleteUser(pb.DeleteUserRequest(id=goner.id))
    admin.ReactivateUser(pb.ReactivateUserRequest(id=goner.id))
    with refused("FAILED_PRECONDITION", "USER_ACTIVE"):
        admin.DeleteUser(pb.DeleteUserRequest(id=goner.id))
    assert _left(service, goner.id) == kept


def test_jobs_that_are_made_meanwhile_go_as_well(service: Service, goner: User) -> None:
    """Whoever makes jobs for the user while the parts go is refused in the end."""
    _fill(service, goner.id, jobs_each=600, documents_each=600)
    made: list[str] = []
    refusals: set[str] = set()
    begun = threading.Event()

    def make() -> None:
        job = jobs_pb2.Job(kind="ODD")
        while "NOT_FOUND" not in refusals:
            request = jobs_pb2.CreateJobRequest(job=job, owner_id=goner.id, request_id=new_id())
            try:
                made.append(service.admin.channel.jobs.CreateJob(request).id)
            except grpc.RpcError as error:
                refusals.add(error.code().name)
            begun.set()

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    service.admin.channel.users.DeleteUser(pb.DeleteUserRequest(id=goner.id), timeout=60)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert made
    assert refusals <= {"NOT_FOUND", "ABORTED"}
    assert _left(service, goner.id) == Counter()
    told = _receipts(service)
    assert not any(job_id in told for job_id in made)
