"""``morag-meta quotas``: what users may have and have, straight from the database."""

from __future__ import annotations

from typing import Annotated

import typer

from morag_meta.audit.actions import note_operator
from morag_meta.cli.accounts import person, unit_of_work
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table, say
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.exits import ExitCode
from morag_meta.quotas.store import RESOURCES
from morag_meta.uow import UnitOfWork

app = typer.Typer(name="quotas", help="What users may have, and have.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="The email of the user.")]


@app.command()
def get(email: Email, output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> None:
    """Show what a user may have and has, by the defaults that this command itself is given."""
    with unit_of_work(read_settings(database_url)) as uow:
        _show(uow, person(uow, email), output)


@app.command(name="set")
def set_(
    email: Email,
    limits: Annotated[
        list[str],
        typer.Argument(
            metavar="RESOURCE=LIMIT…",
            help=f"Limits to set, of {', '.join(RESOURCES)}; 'none' gives one up, so that the default holds.",
            show_default=False,
        ),
    ],
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Set limits of a user; what is above them already stays."""
    wanted = dict(_limit(each) for each in limits)
    settings = read_settings(database_url)
    with unit_of_work(settings) as uow:
        user = uow.users.lock(EVERYONE, person(uow, email)["id"])
        uow.quotas.set(user["id"], wanted)
        fields = {f"quotas.{resource}": limit for resource, limit in wanted.items()}
        note_operator(
            uow, "quotas set", "user.set_quotas", target_id=user["id"], owner_id=user["id"], fields=fields
        )
        uow.commit()
    with unit_of_work(settings) as uow:
        _show(uow, user, output)


def _limit(text: str) -> tuple[str, int | None]:
    resource, _, number = text.partition("=")
    if resource not in RESOURCES:
        raise CommandError(f"{resource} is none of {', '.join(RESOURCES)}", ExitCode.USAGE)
    if number == "none":
        return resource, None
    if not number.isascii() or not number.isdigit() or int(number) > 2**53:
        raise CommandError(f"{text}: the limit is a whole number from 0 to 2^53, or 'none'", ExitCode.USAGE)
    return resource, int(number)


def _show(uow: UnitOfWork, user: Row, output: Format) -> None:
    uses = uow.quotas.uses(user["id"], uow.quotas.get(user["id"]))
    if output is Format.JSON:
        print_json(
            {use.resource: {"used": use.used, "limit": use.limit, "default": use.is_default} for use in uses}
        )
        return
    rows = [
        [
            use.resource,
            use.used,
            use.limit,
            None if use.limit is None else "default" if use.is_default else "user",
            "yes" if use.is_near else "",
        ]
        for use in uses
    ]
    print_table(("resource", "used", "limit", "limit of", "near limit"), rows)
    given = ", ".join(f"{resource}={limit}" for resource, limit in uow.quotas.defaults.items()) or "none"
    say(f"defaults given to this command (MORAG_DEFAULT_QUOTA_...): {given}")
