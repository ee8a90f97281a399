"""``morag-meta workers``: looking at those who take a running server's jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table
from morag_meta.cli.target import KeyFile, Target, credentials, open_channel
from morag_meta.cli.watch import message_to_dict
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub

app = typer.Typer(name="workers", help="Workers of a running server.", no_args_is_help=True)

_COLUMNS = ("id", "name", "kinds", "document types", "execution", "leases", "serves", "last seen")
_SECONDS = 30.0
PAGE = 500


@app.callback()
def _group() -> None:
    """Take no options; it makes ``list`` a command of its own."""


@app.command(name="list")
def list_(
    owner: Annotated[
        str, typer.Option("--owner", metavar="ID", help="ADMIN only: whose workers, '-' for everybody's.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, newest first.")] = 50,
    *,
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """List workers, newest first, with the leases that they hold."""
    settings = read_settings(database_url)
    with open_channel(target or settings.grpc_address) as channel:
        workers = _fetch(WorkerServiceStub(channel), owner, limit, credentials(key_file))
    if output is Format.JSON:
        for worker in workers:
            print_json(message_to_dict(worker))
    else:
        print_table(_COLUMNS, [_row(worker) for worker in workers])


def _fetch(stub: Any, owner: str, limit: int, metadata: Any) -> list[pb.Worker]:
    workers: list[pb.Worker] = []
    token = ""
    while len(workers) < limit:
        size = min(limit - len(workers), PAGE)
        request = pb.ListWorkersRequest(owner_id=owner, page_size=size, page_token=token)
        response = stub.ListWorkers(request, metadata=metadata, timeout=_SECONDS)
        workers += response.workers
        token = response.next_page_token
        if not token:
            break
    return workers


def _row(worker: pb.Worker) -> list[Any]:
    execution = jobs_pb2.JobExecution.Name(worker.execution).removeprefix("JOB_EXECUTION_")
    return [
        worker.id,
        worker.name,
        ", ".join(worker.kinds) or "all",
        ", ".join(worker.document_types) or "all",
        execution if worker.execution else "both",
        worker.leased_jobs,
        "everybody" if worker.serves_everyone else "its owner",
        worker.last_seen_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ"),
    ]
