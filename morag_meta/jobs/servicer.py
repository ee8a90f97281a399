"""JobService: what each call does, in the words of ``actions.py`` and the store.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from morag_meta.auth.generations import Keys
from morag_meta.auth.narrowing import Reach
from morag_meta.auth.sharing import Level
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import invalid
from morag_meta.jobs import actions
from morag_meta.jobs.actions import Report
from morag_meta.jobs.convert import (
    event_to_proto,
    filter_from_proto,
    job_to_proto,
    lease_ms_of,
    outcome_to_proto,
    plan_from_proto,
    started_to_proto,
)
from morag_meta.jobs.feed import Feed
from morag_meta.jobs.figures import figures_of, window_of
from morag_meta.jobs.leases import LEASE_MS
from morag_meta.jobs.limits import FALLBACK_MS
from morag_meta.jobs.listing import parse_order
from morag_meta.jobs.removal import MOST_JOBS
from morag_meta.jobs.rules import INGESTION, Holder
from morag_meta.jobs.sharing import as_owner_sees
from morag_meta.jobs.watch import watch
from morag_meta.jobs.watch_jobs import watch_jobs, wish_of
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import reads, streams, writes
from morag_meta.rpc.pages import Pages
from morag_meta.rpc.stream import Stream
from morag_meta.rpc.structs import struct_to_json
from morag_meta.rpc.times import from_timestamp
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2 as pb


def _report_receipt(response: pb.CompleteJobResponse | pb.FailJobResponse) -> dict[str, Any]:
    return {"id": response.job.id, "ignored": response.outcome == pb.REPORT_OUTCOME_IGNORED}


def _outcome_of(receipt: dict[str, Any]) -> pb.ReportOutcome.ValueType:
    return pb.REPORT_OUTCOME_IGNORED if receipt["ignored"] else pb.REPORT_OUTCOME_REPEATED


def reporter(call: Call, token: str) -> tuple[Reach, Holder]:
    """Give whose jobs a report may be of, and who makes it.

    A key that may only work shows the token of its lease, whoever's job it is.
    """
    everyone = call.principal.has_scope("jobs:work:all")
    if call.principal.has_scope("jobs:write") and not (everyone and token):
        return call.reach, Holder(token)
    return Reach(EVERYONE if everyone else call.own, call.narrowing), Holder(token, must_show=True)


def reach_of_reports(call: Call) -> Reach:
    """Give whose jobs the caller may have reported, of which an earlier answer is repeated."""
    if call.principal.has_scope("jobs:work:all"):
        return Reach(EVERYONE, call.narrowing)
    return call.reach if call.principal.has_scope("jobs:write") else Reach(call.own, call.narrowing)


class JobServicer:
    """The jobs of a user; see ``protos/moragmeta/v1/jobs.proto``."""

    SERVICE = "moragmeta.v1.JobService"

    def __init__(
        self,
        pages: Pages,
        feed: Feed,
        token_keys: bytes | Keys,
        *,
        lease_ms: int = LEASE_MS,
        fallback_ms: int = FALLBACK_MS,
    ) -> None:
        """Take what seals page tokens, what follows the changes, the key of resume tokens, and defaults."""
        self._pages = pages
        self._feed = feed
        self._token_keys = token_keys
        self._lease_ms = lease_ms
        self._fallback_ms = fallback_ms

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Job:
        return job_to_proto(uow.jobs.get(call.reach, receipt["id"], call.grantee(Level.READER)))

    def _replay_completion(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.CompleteJobResponse:
        job = job_to_proto(uow.jobs.get(reach_of_reports(call), receipt["id"]))
        return pb.CompleteJobResponse(job=job, outcome=_outcome_of(receipt))

    def _replay_failure(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.FailJobResponse:
        job = job_to_proto(uow.jobs.get(reach_of_reports(call), receipt["id"]))
        return pb.FailJobResponse(job=job, outcome=_outcome_of(receipt))

    @writes(replay=_replay)
    def CreateJob(self, uow: UnitOfWork, request: pb.CreateJobRequest, call: Call) -> pb.Job:
        job = request.job
        if job.kind == INGESTION and not job.document_id:
            raise invalid("job.document_id", "is required for the kind INGESTION")
        row = actions.create_job(
            uow,
            call.reach_of(request.owner_id),
            kind=job.kind,
            document_id=job.document_id or None,
            priority=job.priority or pb.JOB_PRIORITY_NORMAL,
            remote=job.execution == pb.JOB_EXECUTION_REMOTE,
            parameters=struct_to_json(job.parameters, "job.parameters"),
            plan=plan_from_proto(job, self._fallback_ms),
            grantee=call.grantee(Level.WRITER),
        )
        return job_to_proto(row)

    def _replay_start(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Job:
        row = uow.jobs.get(call.reach, receipt["id"])
        # The token of the lease that the first call got, and of no later one, which is another's.
        return started_to_proto(row) if row["attempt"] == receipt["attempt"] else job_to_proto(row)

    @writes(replay=_replay_start, receipt=lambda job: {"id": job.id, "attempt": job.attempt})
    def StartJob(self, uow: UnitOfWork, request: pb.StartJobRequest, call: Call) -> pb.Job:
        lease_ms = lease_ms_of(request, self._lease_ms)
        row = actions.start_job(uow, call.reach, request.id, etag=request.etag, lease_ms=lease_ms)
        return started_to_proto(row)

    @writes()
    def UpdateJobProgress(
        self, uow: UnitOfWork, request: pb.UpdateJobProgressRequest, call: Call
    ) -> pb.UpdateJobProgressResponse:
        reach, holder = reporter(call, request.lease_token)
        row, outcome = actions.report_progress(
            uow,
            reach,
            request.id,
            Report(request.attempt, request.report_number, request.summary, holder),
            percentage=request.percentage,
            phase=request.phase,
        )
        return pb.UpdateJobProgressResponse(job=job_to_proto(row), outcome=outcome_to_proto(outcome))

    @writes(replay=_replay_completion, receipt=_report_receipt)
    def CompleteJob(
        self, uow: UnitOfWork, request: pb.CompleteJobRequest, call: Call
    ) -> pb.CompleteJobResponse:
        reach, holder = reporter(call, request.lease_token)
        row, outcome = actions.complete_job(
            uow,
            reach,
            request.id,
            Report(request.attempt, request.report_number, request.summary, holder),
            chunks=request.result.chunks,
            quality=request.result.quality,
            metadata=struct_to_json(request.result.metadata, "result.metadata"),
        )
        return pb.CompleteJobResponse(job=job_to_proto(row), outcome=outcome_to_proto(outcome))

    @writes(replay=_replay_failure, receipt=_report_receipt)
    def FailJob(self, uow: UnitOfWork, request: pb.FailJobRequest, call: Call) -> pb.FailJobResponse:
        reach, holder = reporter(call, request.lease_token)
        row, outcome = actions.fail_job(
            uow,
            reach,
            request.id,
            Report(request.attempt, request.report_number, request.summary, holder),
            error=request.error,
        )
        return pb.FailJobResponse(job=job_to_proto(row), outcome=outcome_to_proto(outcome))

    @writes(replay=_replay)
    def CancelJob(self, uow: UnitOfWork, request: pb.CancelJobRequest, call: Call) -> pb.Job:
        row = actions.cancel_job(
            uow,
            call.reach,
            request.id,
            reason=request.reason,
            etag=request.etag,
            grantee=call.grantee(Level.WRITER),
        )
        return job_to_proto(row)

    @writes(replay=_replay)
    def RetryJob(self, uow: UnitOfWork, request: pb.RetryJobRequest, call: Call) -> pb.Job:
        return job_to_proto(actions.retry_job(uow, call.reach, request.id, call.grantee(Level.WRITER)))

    @reads(point=True)
    def GetJob(self, uow: UnitOfWork, request: pb.GetJobRequest, call: Call) -> pb.Job:
        return job_to_proto(uow.jobs.get(call.reach, request.id, call.grantee(Level.READER)))

    @reads()
    def ListJobs(self, uow: UnitOfWork, request: pb.ListJobsRequest, call: Call) -> pb.ListJobsResponse:
        order, grantee = parse_order(request.order_by), call.grantee(Level.READER)
        chosen = filter_from_proto(request.filter, call.reach_of(request.filter.owner_id))

        def fetch(after: Row | None, limit: int) -> list[Row]:
            rows = uow.jobs.page(chosen, order, after, limit)
            seen = chosen if rows else as_owner_sees(uow, chosen, grantee)
            return rows if seen is chosen else uow.jobs.page(seen, order, after, limit)

        page = self._pages.page(call, request, keys=(order.column, "id"), fetch=fetch, convert=job_to_proto)
        return pb.ListJobsResponse(jobs=page.items, next_page_token=page.next_token)

    @reads()
    def ListJobEvents(
        self, uow: UnitOfWork, request: pb.ListJobEventsRequest, call: Call
    ) -> pb.ListJobEventsResponse:
        owner_id = uow.jobs.get(call.reach, request.job_id, call.grantee(Level.READER))["owner_id"]
        page = self._pages.page(
            call,
            request,
            keys=("number",),
            fetch=lambda after, limit: uow.jobs.events_after(
                owner_id, request.job_id, after["number"] if after else 0, limit
            ),
            convert=event_to_proto,
        )
        return pb.ListJobEventsResponse(events=page.items, next_page_token=page.next_token)

    @streams
    def WatchJob(self, request: pb.WatchJobRequest, call: Call, stream: Stream) -> Awaitable[None]:
        # Itself no coroutine, which would hold the request for as long as the stream waits.
        grantee = call.grantee(Level.READER)
        return watch(self._feed, stream, call.reach, request.job_id, request.after_sequence, grantee)

    def _replay_purge(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.PurgeJobsResponse:
        return pb.PurgeJobsResponse(**receipt)

    @writes(
        replay=_replay_purge, receipt=lambda purged: {"purged_jobs": purged.purged_jobs, "more": purged.more}
    )
    def PurgeJobs(self, uow: UnitOfWork, request: pb.PurgeJobsRequest, call: Call) -> pb.PurgeJobsResponse:
        chosen = filter_from_proto(request.filter, call.reach_of(request.filter.owner_id))
        limit = min(request.max_jobs or MOST_JOBS, MOST_JOBS)
        purged = uow.job_removals.purge(chosen, from_timestamp(request.end_time_before), limit)
        return pb.PurgeJobsResponse(purged_jobs=purged.jobs, more=purged.more)

    @reads(snapshot=True)
    def GetJobStats(self, uow: UnitOfWork, request: pb.GetJobStatsRequest, call: Call) -> pb.JobStats:
        chosen = filter_from_proto(request.filter, call.reach_of(request.filter.owner_id))
        figures = figures_of(uow, chosen, window_of(request))
        if not figures.total:
            seen = as_owner_sees(uow, chosen, call.grantee(Level.READER))
            figures = figures if seen is chosen else figures_of(uow, seen, window_of(request))
        return figures

    @streams
    def WatchJobs(self, request: pb.WatchJobsRequest, call: Call, stream: Stream) -> Awaitable[None]:
        wish, must_own = wish_of(request, call)
        return watch_jobs(self._feed, self._token_keys, stream, wish, must_own, call.grantee(Level.READER))
