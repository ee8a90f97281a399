"""``morag-meta audit``: what was done and refused on a running server, listed and exported."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table
from morag_meta.cli.target import KeyFile, Target, credentials, open_channel
from morag_meta.cli.watch import message_to_dict
from moragmeta.v1 import audit_pb2 as pb
from moragmeta.v1.audit_pb2_grpc import AuditServiceStub

app = typer.Typer(name="audit", help="Who did what on a running server.", no_args_is_help=True)

_COLUMNS = ("time", "event", "outcome", "count", "user", "by", "credential", "address", "target")
_SECONDS = 30.0
_PAGE = 1000

Since = Annotated[
    dt.datetime | None, typer.Option("--since", help="From this time on, in UTC: 2026-01-31T12:00:00.")
]
Until = Annotated[dt.datetime | None, typer.Option("--until", help="Before this time, in UTC.")]
Who = Annotated[str, typer.Option("--user", metavar="ID", help="What this user did.")]
Credential = Annotated[
    str, typer.Option("--credential", metavar="ID", help="What was done with this API key or session.")
]
Event = Annotated[str, typer.Option("--event", help="Events of this name, as document.create.")]
TargetId = Annotated[str, typer.Option("--target-id", metavar="ID", help="What was done to this.")]
Outcome = Annotated[str, typer.Option("--outcome", help="OK, PERMISSION_DENIED, NOT_FOUND …")]


@app.command(name="list")
def list_(
    *,
    since: Since = None,
    until: Until = None,
    user: Who = "",
    credential: Credential = "",
    event: Event = "",
    target_id: TargetId = "",
    outcome: Outcome = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, newest first.")] = 50,
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """List events, newest first. For an ADMIN."""
    wanted = _request(
        since,
        until,
        subject_user_id=user,
        credential_id=credential,
        event=event,
        target_id=target_id,
        outcome=outcome,
    )
    settings = read_settings(database_url)
    found: list[pb.AuditEvent] = []
    with open_channel(target or settings.grpc_address) as channel:
        for each in _events(AuditServiceStub(channel), wanted, credentials(key_file), limit):
            found.append(each)
            if len(found) == limit:
                break
    if output is Format.JSON:
        for each in found:
            print_json(message_to_dict(each))
    else:
        print_table(_COLUMNS, [_row(each) for each in found])


@app.command()
def export(
    *,
    since: Since = None,
    until: Until = None,
    user: Who = "",
    credential: Credential = "",
    event: Event = "",
    target_id: TargetId = "",
    outcome: Outcome = "",
    target: Target = None,
    key_file: KeyFile = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Print events as JSON lines, oldest first, page by page, however many there are. For an ADMIN."""
    wanted = _request(
        since,
        until,
        subject_user_id=user,
        credential_id=credential,
        event=event,
        target_id=target_id,
        outcome=outcome,
    )
    wanted.order_by = "time"
    settings = read_settings(database_url)
    with open_channel(target or settings.grpc_address) as channel:
        for each in _events(AuditServiceStub(channel), wanted, credentials(key_file), _PAGE):
            print_json(message_to_dict(each))


def _request(
    since: dt.datetime | None, until: dt.datetime | None, **wanted: Any
) -> pb.ListAuditEventsRequest:
    request = pb.ListAuditEventsRequest(**wanted)
    if since is not None:
        request.start_time.FromDatetime(since)
    if until is not None:
        request.end_time.FromDatetime(until)
    return request


def _events(
    stub: Any, wanted: pb.ListAuditEventsRequest, metadata: Any, size: int
) -> Iterator[pb.AuditEvent]:
    wanted.page_size = min(size, _PAGE)
    while True:
        page = stub.ListAuditEvents(wanted, metadata=metadata, timeout=_SECONDS)
        yield from page.audit_events
        wanted.page_token = page.next_page_token
        if not wanted.page_token:
            return


def _row(event: pb.AuditEvent) -> list[Any]:
    return [
        event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ"),
        event.event if event.event != "call.refuse" else event.method,
        event.outcome,
        event.count,
        event.subject_user_id or event.subject,
        pb.AuditActor.Name(event.actor).removeprefix("AUDIT_ACTOR_"),
        event.credential_id,
        event.address,
        event.target_user_id or event.target_id,
    ]
