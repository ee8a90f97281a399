"""``morag-meta grant``: which databases are shared with whom, set straight in the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from morag_meta.audit.actions import note_operator
from morag_meta.cli.accounts import person, unit_of_work
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table, say
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.exits import ExitCode
from morag_meta.grants.actions import grant_access, revoke_access
from morag_meta.uow import UnitOfWork

app = typer.Typer(name="grant", help="Databases that are shared, and with whom.", no_args_is_help=True)

DatabaseId = Annotated[str, typer.Argument(help="The id of the database.")]
Email = Annotated[str, typer.Argument(help="The email of the user with whom it is shared.")]

_PAGE = 500
_SHOWN = ("database_id", "owner_id", "grantee_id", "level", "grantor_id", "create_time", "update_time")


@app.command()
def give(
    database_id: DatabaseId,
    email: Email,
    writer: Annotated[
        bool, typer.Option("--writer", help="Let the user write documents, instead of only read.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Share a database with a user, or change how."""
    with unit_of_work(read_settings(database_url)) as uow:
        user = person(uow, email)
        level = "WRITER" if writer else "READER"
        grant_access(uow, EVERYONE, database_id, user["id"], level=level)
        note_operator(uow, "grant give", "database.grant", target_id=database_id)
        uow.commit()
    say(f"{user['email']} is {level} of {database_id}")


@app.command()
def revoke(database_id: DatabaseId, email: Email, database_url: DatabaseUrl = None) -> None:
    """End a grant; the user's open streams on the database end within seconds."""
    with unit_of_work(read_settings(database_url)) as uow:
        user = person(uow, email)
        revoke_access(uow, EVERYONE, database_id, user["id"])
        note_operator(uow, "grant revoke", "database.revoke_grant", target_id=database_id)
        uow.commit()
    say(f"{database_id} is no longer shared with {user['email']}")


@app.command(name="list")
def list_(
    database_id: Annotated[str, typer.Option("--database", metavar="ID", help="Grants on this one.")] = "",
    email: Annotated[str, typer.Option("--user", metavar="EMAIL", help="Grants to this one.")] = "",
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """List the grants on a database, or to a user, newest first."""
    if bool(database_id) == bool(email):
        raise CommandError("say either --database or --user", ExitCode.USAGE)
    with unit_of_work(read_settings(database_url)) as uow:
        rows = list(_on(uow, database_id) if database_id else _to(uow, person(uow, email)["id"]))
    if output is Format.JSON:
        for row in rows:
            print_json({name: _plain(row[name]) for name in _SHOWN})
        return
    print_table(_SHOWN, [[_cell(row[name]) for name in _SHOWN] for row in rows])


def _on(uow: UnitOfWork, database_id: str) -> Iterator[Row]:
    owner_id = uow.databases.get(EVERYONE, database_id)["owner_id"]
    return _pages(lambda after: uow.grants.page_on(owner_id, database_id, after, _PAGE))


def _to(uow: UnitOfWork, user_id: str) -> Iterator[Row]:
    return _pages(lambda after: uow.grants.page_to(user_id, after, _PAGE))


def _pages(read: Callable[[Row | None], list[Row]]) -> Iterator[Row]:
    after: Row | None = None
    while rows := read(after):
        yield from rows
        after = rows[-1]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _cell(value: Any) -> Any:
    return value.strftime("%Y-%m-%d %H:%M:%SZ") if isinstance(value, dt.datetime) else value
