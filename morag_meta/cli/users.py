"""``morag-meta user``: accounts, their sessions and forgotten passwords, straight in the database."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from morag_meta.audit.actions import note_operator
from morag_meta.auth.passwords import hash_password
from morag_meta.auth.principal import Role
from morag_meta.cli.accounts import person, unit_of_work
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table, say
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.exits import ExitCode
from morag_meta.exports.convert import line_of
from morag_meta.exports.store import TABLES
from morag_meta.server.app import make_reset_tokens
from morag_meta.server.preparation import opened
from morag_meta.server.secrets import root_secrets
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user, end_all_sessions, end_session

_PAGE = 500
_SHOWN = ("id", "create_time", "refresh_time", "expire_time", "address", "user_agent")
Email = Annotated[str, typer.Argument(help="The user's email.")]

app = typer.Typer(name="user", help="Accounts, their sessions and passwords.", no_args_is_help=True)


@app.command()
def create(
    email: Annotated[str, typer.Argument(help="The email, by which the user logs in.")],
    name: Annotated[
        str, typer.Option("--name", help="The full name; the email's first part if not given.")
    ] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Make an ADMIN, instead of a USER.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="The user cannot log in, and calls with API keys alone.")
    ] = False,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Create a user. The password is asked for, or is the first line of standard input."""
    settings = read_settings(database_url)
    hashed = None if no_password else hash_password(_password(), settings.bcrypt_cost)
    role = Role.ADMIN if admin else Role.USER
    with unit_of_work(settings) as uow:
        local = email.strip().partition("@")[0]
        given = name or (local if len(local) > 1 else email.strip())  # a name has two characters at least
        row = create_user(uow, name=given, email=email, role=role, password_hash=hashed)
        note_operator(uow, "user create", "user.create", target_id=row["id"], owner_id=row["id"])
        uow.commit()
    if output is Format.JSON:
        print_json({"id": row["id"], "email": row["email"], "role": row["role"]})
    else:
        say(f"created {row['role']} {row['email']} {row['id']}")


@app.command()
def sessions(email: Email, output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> None:
    """List a user's sessions that go on, newest first: when and from where each was used last."""
    with unit_of_work(read_settings(database_url)) as uow:
        rows = list(_pages(uow, person(uow, email)["id"]))
    if output is Format.JSON:
        for row in rows:
            print_json({name: _plain(row[name]) for name in _SHOWN})
        return
    print_table(_SHOWN, [[_cell(row[name]) for name in _SHOWN] for row in rows])


@app.command(name="end-sessions")
def end_sessions(
    email: Email,
    session: Annotated[
        str, typer.Option("--session", metavar="ID", help="This one alone, as user sessions shows it.")
    ] = "",
    database_url: DatabaseUrl = None,
) -> None:
    """End a user's sessions, or one; every process refuses their tokens within seconds. API keys stay."""
    with unit_of_work(read_settings(database_url)) as uow:
        user = person(uow, email)
        if session:
            uow.sessions.owner(user["id"], session)  # the user's own, or none
            ended = int(end_session(uow, user["id"], session))
        else:
            ended = end_all_sessions(uow, user["id"])
        note_operator(uow, "user end-sessions", "user.end_sessions", target_id=user["id"])
        uow.commit()
    say(f"ended {ended} session{'' if ended == 1 else 's'} of {user['email']}")


@app.command(name="reset-password")
def reset_password(email: Email, output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> None:
    """Print a token with which the user sets a new password, once (ResetPassword); a newer one replaces it.

    The password and the sessions of before hold until it is used.
    """
    settings = read_settings(database_url)
    tokens = make_reset_tokens(settings, root_secrets(settings))
    with unit_of_work(settings) as uow:
        reset = tokens.issue(uow, person(uow, email)["email"])
        if reset is None:
            raise CommandError(f"the user {email} is deactivated", ExitCode.REFUSED)
        user_id = reset.user["id"]
        note_operator(uow, "user reset-password", "user.create_password_reset", target_id=user_id)
        uow.commit()
    end = reset.expire_time.isoformat(timespec="seconds")
    if output is Format.JSON:
        print_json({"user_id": reset.user["id"], "token": reset.token, "expire_time": end})
    else:
        say(f"reset token: {reset.token}")
        say(f"until {end}")


@app.command()
def export(email: Email, database_url: DatabaseUrl = None) -> None:
    """Print everything that is kept of a user as JSON lines, one row each, without any secret.

    It is what ExportUserData sends: to the user's own session, or an ADMIN's.
    """
    settings = read_settings(database_url)
    with unit_of_work(settings) as uow:
        user_id = person(uow, email)["id"]
        note_operator(uow, "user export", "user.export_data", target_id=user_id, owner_id=user_id)
        uow.commit()
    with opened(settings) as database:
        for table in TABLES:
            for row in _rows(database, user_id, table):
                say(line_of(table, row))


def _rows(database: Database, user_id: str, table: str) -> Iterator[Row]:
    """Read each page in a unit of its own: whoever reads the lines may take more time than that is given."""
    after: Row | None = None
    while True:
        with database.unit_of_work() as uow:
            rows = uow.exports.page(user_id, table, after, _PAGE)
        if not rows:
            return
        yield from rows
        after = rows[-1]


def _pages(uow: UnitOfWork, owner_id: str) -> Iterator[Row]:
    after: Row | None = None
    while rows := uow.sessions.page(owner_id, after, _PAGE):
        yield from rows
        after = rows[-1]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _cell(value: Any) -> Any:
    return value.strftime("%Y-%m-%d %H:%M:%SZ") if isinstance(value, dt.datetime) else value


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandError("no password: give it on standard input, or say --no-password", ExitCode.USAGE)
    return password
