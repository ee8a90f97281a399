"""WorkerService: what each call does, in the words of ``actions.py`` and the store.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from morag_meta.auth.principal import Principal
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import Forbidden, Reason
from morag_meta.jobs import leases
from morag_meta.jobs.actions import lock_with_document
from morag_meta.jobs.convert import job_to_proto, lease_ms_of
from morag_meta.jobs.leases import LEASE_MS
from morag_meta.jobs.servicer import reach_of_reports, reporter
from morag_meta.rpc.access import access_of, check_access, service
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import composes, reads, writes
from morag_meta.rpc.pages import Pages
from morag_meta.rpc.times import from_duration, to_timestamp
from morag_meta.uow import UnitOfWork
from morag_meta.workers import actions
from morag_meta.workers.actions import Haul
from morag_meta.workers.convert import lease_to_proto, verdict_to_proto, worker_from_proto, worker_to_proto
from morag_meta.workers.openings import Openings
from morag_meta.workers.rules import Appetite, appetite
from morag_meta.workers.store import SEEN_EVERY
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb

_LONGEST_WAIT: Final = 60
_BEFORE_DEADLINE: Final = 0.3  # seconds that an empty answer gets to arrive in
_TRIES: Final = 12
_LAST_TRIES: Final = 6
_MOST_PASSED_BY: Final = 5000
_PAUSE_SECONDS: Final = 0.002
_LONGEST_PAUSE: Final = 0.25

Leases = Haul[pb.Lease]


def _reach(call: Call) -> str:
    """Whose workers the caller sees: a key that may only work sees its owner's."""
    return call.whole_reach if call.principal.has_scope("jobs:read") else call.own


def _reach_of(call: Call, owner_id: str) -> str:
    """Whose workers a list shows.

    Raises:
        Forbidden: they are not the caller's to see (OWNER_NOT_ALLOWED).
    """
    owner = call.owner_for(owner_id)
    if _reach(call) not in (owner, EVERYONE):
        raise Forbidden("a key that may only work names no other owner", reason=Reason.OWNER_NOT_ALLOWED)
    return owner


class WorkerServicer:
    """The workers; see ``protos/moragmeta/v1/workers.proto``."""

    SERVICE = "moragmeta.v1.WorkerService"

    def __init__(
        self,
        database: Database,
        pages: Pages,
        openings: Openings,
        recheck: Callable[[Principal, str], Awaitable[Principal]],
        *,
        lease_ms: int = LEASE_MS,
    ) -> None:
        """Take what seals page tokens, where calls wait, and what says who a caller is after a wait."""
        self._database = database
        self._pages = pages
        self._openings = openings
        self._recheck = recheck
        self._lease_ms = lease_ms
        self._access = access_of(service(self.SERVICE).methods_by_name["LeaseJobs"])

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Worker:
        return _shown(uow, uow.workers.get(call.own, receipt["id"]))

    @writes(replay=_replay)
    def RegisterWorker(self, uow: UnitOfWork, request: pb.RegisterWorkerRequest, call: Call) -> pb.Worker:
        everyone = call.principal.has_scope("jobs:work:all")
        row = uow.workers.add(call.own, **worker_from_proto(request.worker), serves_everyone=everyone)
        return worker_to_proto(row, 0)

    @composes
    async def LeaseJobs(self, request: pb.LeaseJobsRequest, call: Call) -> pb.LeaseJobsResponse:
        lease_ms = lease_ms_of(request, self._lease_ms)
        wait = (from_duration(request, "wait", path="", least=0, most=_LONGEST_WAIT) or 0) / 1000
        end = time.monotonic() + wait
        if call.deadline is not None:
            end = min(end, call.deadline - _BEFORE_DEADLINE)
        worker = await self._database.read(
            lambda uow: uow.workers.get(call.own, request.worker_id), point=True, deadline=call.deadline
        )
        repeats_of = worker["id"] if request.request_id else None
        with self._openings.ticket(call.own, _appetite(worker, request, call), repeats_of) as ticket:
            last, tries = end <= time.monotonic(), _TRIES
            while True:
                ticket.set_out()
                found = await self._lease(worker, request, call, lease_ms, tries)
                if found.leases or last or call.replayed:
                    ticket.got(lease.job.id for lease in found.leases)
                    return pb.LeaseJobsResponse(leases=found.leases)
                last = not await ticket.wait(end - time.monotonic())
                tries = _LAST_TRIES if last else _TRIES  # the time that was asked for is over
                call.principal = await self._recheck(call.principal, call.peer)
                check_access(self._access, call.principal)
                ticket.appetite = _appetite(worker, request, call)

    async def _lease(
        self, worker: Row, request: pb.LeaseJobsRequest, call: Call, lease_ms: int, tries: int
    ) -> Leases:
        """Lease what can be had; again and again while others hold what comes first, and behind that."""
        chosen = _appetite(worker, request, call)
        passed_by: frozenset[str] = frozenset()
        for attempt in range(tries):
            lease = partial(_lease_once, worker, chosen, request, call, lease_ms, passed_by)
            found = await self._database.write(lease, deadline=call.deadline)
            if found.leases or not (found.passed_by or passed_by):
                break
            # Where there is nothing behind what was passed by, some of that may be free by now.
            passed_by = passed_by | found.passed_by if found.passed_by else frozenset()
            if len(passed_by) > _MOST_PASSED_BY:
                break
            pause = min(_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.SystemRandom().uniform(0.5, 1.5))
        return found

    @writes()
    def HeartbeatJob(
        self, uow: UnitOfWork, request: pb.HeartbeatJobRequest, call: Call
    ) -> pb.HeartbeatJobResponse:
        reach, holder = reporter(call, request.lease_token)
        row = uow.jobs.lock(reach, request.job_id)
        checkpoint = request.checkpoint if request.HasField("checkpoint") else None
        verdict, expire_time = actions.renew_lease(uow, row, holder, checkpoint)
        if expire_time is not None and row["worker_id"] is not None:
            uow.workers.seen(call.own, row["worker_id"], row["clock"])
        return pb.HeartbeatJobResponse(
            verdict=verdict_to_proto(verdict), expire_time=to_timestamp(expire_time)
        )

    def _replay_release(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> jobs_pb2.Job:
        return job_to_proto(uow.jobs.get(reach_of_reports(call), receipt["id"]))

    @writes(replay=_replay_release)
    def ReleaseJob(self, uow: UnitOfWork, request: pb.ReleaseJobRequest, call: Call) -> jobs_pb2.Job:
        reach, holder = reporter(call, request.lease_token)
        row = lock_with_document(uow, reach, request.job_id)
        return job_to_proto(leases.release(uow, row, holder, reason=request.reason))

    @reads()
    def GetWorker(self, uow: UnitOfWork, request: pb.GetWorkerRequest, call: Call) -> pb.Worker:
        return _shown(uow, uow.workers.get(_reach(call), request.id))

    @reads()
    def ListWorkers(
        self, uow: UnitOfWork, request: pb.ListWorkersRequest, call: Call
    ) -> pb.ListWorkersResponse:
        owner = _reach_of(call, request.owner_id)

        def fetch(after: Row | None, limit: int) -> list[Row]:
            rows = uow.workers.page(owner, after, limit)
            held = uow.workers.leases([row["id"] for row in rows])
            return [{**row, "leases": held.get(row["id"], 0)} for row in rows]

        page = self._pages.page(
            call,
            request,
            keys=("create_time", "id"),
            fetch=fetch,
            convert=lambda row: worker_to_proto(row, row["leases"]),
        )
        return pb.ListWorkersResponse(workers=page.items, next_page_token=page.next_token)


def _shown(uow: UnitOfWork, row: Row) -> pb.Worker:
    return worker_to_proto(row, uow.workers.leases([row["id"]]).get(row["id"], 0))


def _appetite(worker: Row, request: pb.LeaseJobsRequest, call: Call) -> Appetite | None:
    return appetite(
        worker,
        request.kinds,
        request.document_types,
        owner_id=call.own,
        may_serve_everyone=call.principal.has_scope("jobs:work:all"),
        narrowing=call.narrowing,
    )


def _lease_once(
    worker: Row,
    chosen: Appetite | None,
    request: pb.LeaseJobsRequest,
    call: Call,
    lease_ms: int,
    without: frozenset[str],
    uow: UnitOfWork,
) -> Leases:
    """Lease jobs in one transaction, or find those that the same request leased before."""
    receipt = uow.requests.claim(call, request)
    if receipt is not None:
        return actions.held_leases(uow, worker, receipt["leases"], lease_to_proto, call.narrowing)
    found: Leases = Haul([])
    if chosen is not None:
        most = request.max_jobs or 1
        found = actions.lease_jobs(
            uow, worker, chosen, most=most, lease_ms=lease_ms, show=lease_to_proto, without=without
        )
    if found.leases:
        noted = [[lease.job.id, lease.job.attempt] for lease in found.leases]
        uow.requests.settle(call, request, {"leases": noted})
    else:
        uow.requests.give_back(call, request)
    if worker["clock"] - worker["last_seen_time"] >= SEEN_EVERY:
        uow.workers.seen(call.own, worker["id"], worker["clock"])
    return found
