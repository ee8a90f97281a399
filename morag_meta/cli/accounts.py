"""What the commands for users and keys share: a database that is ready for them, and finding people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from morag_meta.cli.failures import CommandError
from morag_meta.cli.output import say
from morag_meta.config.settings import Settings
from morag_meta.db.unit import Row
from morag_meta.exits import ExitCode
from morag_meta.server.preparation import add_admin, opened, require_schema
from morag_meta.uow import UnitOfWork
from morag_meta.users.rules import check_email


@contextlib.contextmanager
def unit_of_work(settings: Settings) -> Iterator[UnitOfWork]:
    """Open a unit of work on a database whose schema is current.

    Raises:
        MigrationError: the schema is not current, or cannot be reached.
    """
    require_schema(settings)
    with opened(settings) as database, database.unit_of_work() as uow:
        yield uow


def find_user(uow: UnitOfWork, email: str) -> Row | None:
    """Return the user of an email in any spelling that normalises to it, or None.

    Raises:
        Invalid: it is no email.
    """
    return uow.users.find_by_email(check_email(email, "email"))


def person(uow: UnitOfWork, email: str) -> Row:
    """Return the user of an email.

    Raises:
        CommandError: there is none.
    """
    row = find_user(uow, email)
    if row is None:
        raise CommandError(f"there is no user {email}", ExitCode.NOT_FOUND)
    return row


def create_admin(settings: Settings, email: str) -> None:
    """Create an ADMIN with a printed API key, unless somebody has the email."""
    with unit_of_work(settings) as uow:
        if find_user(uow, email) is not None:
            say(f"there is a user {email} already")
            return
        key = add_admin(uow, settings, email=email)
        uow.commit()
    say(f"admin API key: {key}")
