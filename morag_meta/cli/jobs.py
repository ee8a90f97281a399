"""``morag-meta jobs``: a running server's jobs, listed, counted, cancelled and retried.

Following them live stands in ``watch.py`` and ``watch_all.py``, and how figures are shown in ``figures.py``.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from morag_meta.cli.figures import print_figures
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table
from morag_meta.cli.target import KeyFile, Target, credentials, open_async_channel, open_channel
from morag_meta.cli.watch import Bars, Lines, Watch, message_to_dict
from morag_meta.cli.watch_all import WatchAll
from morag_meta.exits import ExitCode
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub

app = typer.Typer(name="jobs", help="Jobs of a running server.", no_args_is_help=True)

_COLUMNS = (
    *("id", "kind", "state", "%", "phase", "attempt", "lost", "worker", "document", "created"),
    *("failure", "error"),
)
_SECONDS = 30.0
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as jobs list shows it.")]
PAGE = 500


@app.command(name="list")
def list_(
    state: Annotated[
        list[str] | None, typer.Option("--state", help="PENDING, PROCESSING, FAILED …; repeatable.")
    ] = None,
    document: Annotated[str, typer.Option("--document", metavar="ID", help="Jobs of this document.")] = "",
    owner: Annotated[
        str, typer.Option("--owner", metavar="ID", help="ADMIN only: whose jobs, '-' for everybody's.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, newest first.")] = 50,
    *,
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """List jobs, newest first."""
    settings = read_settings(database_url)
    states = [_state(name) for name in state or []]
    filter_ = pb.JobFilter(owner_id=owner, document_id=document, states=states)
    with open_channel(target or settings.grpc_address) as channel:
        jobs = _fetch(JobServiceStub(channel), filter_, limit, credentials(key_file))
    if output is Format.JSON:
        for job in jobs:
            print_json(message_to_dict(job))
    else:
        print_table(_COLUMNS, [_row(job) for job in jobs])


@app.command()
def watch(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="The jobs to follow; all open ones if none.")
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Follow every open job and each new one, until interrupted.")
    ] = False,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="With --all: end when no job is open.")
    ] = False,
    owner: Annotated[
        str, typer.Option("--owner", metavar="ID", help="With --all, ADMIN only: whose, '-' for everybody's.")
    ] = "",
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this event's number.")] = 0,
    patience: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to try for when the server is away.")
    ] = 120.0,
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> ExitCode:
    """Follow jobs live until each has ended, whatever happens to the connection: 9 if one did not finish.

    Without an id, or with --all, follow all that are open and each new one, until interrupted.
    """
    if every and job_ids:
        raise typer.BadParameter("give either ids or --all", param_hint="--all")
    settings = read_settings(database_url)
    metadata = credentials(key_file)

    async def follow() -> bool:
        async with open_async_channel(target or settings.grpc_address) as channel:
            view = Lines() if output is Format.JSON else Bars()
            with view:
                if not job_ids:
                    everything = WatchAll(channel, metadata, view, patience)
                    return await everything.follow(owner, until_idle=until_idle)
                watches = [Watch(channel, metadata, view, patience).follow(each, after) for each in job_ids]
                return all(await asyncio.gather(*watches))

    return ExitCode.OK if asyncio.run(follow()) else ExitCode.JOB_NOT_FINISHED


@app.command()
def stats(
    days: Annotated[
        float, typer.Option("--days", min=1 / 86_400, max=366, help="Jobs made in so many days.")
    ] = 30.0,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Jobs of this kind; repeatable.")] = None,
    owner: Annotated[
        str, typer.Option("--owner", metavar="ID", help="ADMIN only: whose jobs, '-' for everybody's.")
    ] = "",
    *,
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Count jobs, and say how long they took."""
    settings = read_settings(database_url)
    request = pb.GetJobStatsRequest(filter=pb.JobFilter(owner_id=owner, kinds=kind or []))
    request.window.FromMicroseconds(round(days * 86_400 * 1_000_000))
    with open_channel(target or settings.grpc_address) as channel:
        metadata = credentials(key_file)
        found = JobServiceStub(channel).GetJobStats(request, metadata=metadata, timeout=_SECONDS)
    if output is Format.JSON:
        print_json(message_to_dict(found))
    else:
        print_figures(found)


@app.command()
def cancel(
    job_id: JobId,
    reason: Annotated[str, typer.Option("--reason", help="Why, for people; it becomes the summary.")] = "",
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Cancel a job that has not ended; its document is again what it was before."""
    settings = read_settings(database_url)
    request = pb.CancelJobRequest(id=job_id, reason=reason)
    with open_channel(target or settings.grpc_address) as channel:
        job = JobServiceStub(channel).CancelJob(request, metadata=credentials(key_file), timeout=_SECONDS)
    _print_job(job, output)


@app.command()
def retry(
    job_id: JobId,
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Repeat a FAILED or CANCELLED job: a new job, which is printed."""
    settings = read_settings(database_url)
    request = pb.RetryJobRequest(id=job_id)
    with open_channel(target or settings.grpc_address) as channel:
        job = JobServiceStub(channel).RetryJob(request, metadata=credentials(key_file), timeout=_SECONDS)
    _print_job(job, output)


def _print_job(job: pb.Job, output: Format) -> None:
    if output is Format.JSON:
        print_json(message_to_dict(job))
    else:
        print_table(_COLUMNS, [_row(job)])


def _state(name: str) -> pb.JobState.ValueType:
    known = [each.removeprefix("JOB_STATE_") for each in pb.JobState.keys()[1:]]
    if name.upper() not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--state")
    return pb.JobState.Value(f"JOB_STATE_{name.upper()}")


def _fetch(stub: Any, filter_: pb.JobFilter, limit: int, metadata: Any) -> list[pb.Job]:
    jobs: list[pb.Job] = []
    token = ""
    while len(jobs) < limit:
        request = pb.ListJobsRequest(filter=filter_, page_size=min(limit - len(jobs), PAGE), page_token=token)
        response = stub.ListJobs(request, metadata=metadata, timeout=_SECONDS)
        jobs += response.jobs
        token = response.next_page_token
        if not token:
            break
    return jobs


def _row(job: pb.Job) -> list[Any]:
    return [
        job.id,
        job.kind,
        pb.JobState.Name(job.state).removeprefix("JOB_STATE_"),
        job.percentage,
        job.phase,
        job.attempt,
        job.lost_leases,
        job.worker_id,
        job.document_name or job.document_id,
        job.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ"),
        pb.JobFailure.Name(job.failure).removeprefix("JOB_FAILURE_") if job.failure else "",
        job.error,
    ]
