"""``morag-meta db seed``: development data, which may be planted any number of times."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from morag_meta.auth.principal import Role
from morag_meta.cli.accounts import find_user, unit_of_work
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, read_settings
from morag_meta.cli.output import say
from morag_meta.config.settings import Settings
from morag_meta.db.unit import Row
from morag_meta.db.url import masked
from morag_meta.documents.actions import create_document
from morag_meta.documents.identity import OnDuplicate
from morag_meta.exits import ExitCode
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user

ADMIN: Final = "admin@morag.dev"
TESTER: Final = "test@morag.dev"
_SERVER: Final = "Local Qdrant"
_DATABASE: Final = "Development"
_DOCUMENTS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "Welcome", "type": "text", "metadata": {"language": "en"}},
    {"name": "Release notes", "type": "markdown", "metadata": {"language": "en", "tags": ["product"]}},
    {"name": "Handbook", "type": "pdf", "metadata": {"language": "en", "pages": 12}},
)


def seed(
    yes: Annotated[bool, typer.Option("--yes", help="Also on a database other than SQLite.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Add development data: an admin, a test user, and their server, database and documents.

    What is there already stays. The accounts have no password; make them keys with key create.
    """
    plant(read_settings(database_url), yes=yes)


def plant(settings: Settings, *, yes: bool) -> None:
    """Add what is missing of the development data.

    Raises:
        CommandError: the database is not SQLite, and ``yes`` was not said.
    """
    if not settings.is_sqlite and not yes:
        where = masked(settings.database_url)
        raise CommandError(f"{where} may be more than a toy: say --yes for development data", ExitCode.USAGE)
    with unit_of_work(settings) as uow:
        _user(uow, ADMIN, "Admin", Role.ADMIN)
        tester = _user(uow, TESTER, "Test User", Role.USER)
        server = _server(uow, tester["id"])
        database = _database(uow, tester["id"], server["id"])
        for fields in _DOCUMENTS:
            document = {**fields, "database_id": database["id"]}
            create_document(uow, tester["id"], document, OnDuplicate.RETURN_EXISTING)
        uow.commit()
    say(f"development data is there: {ADMIN}, {TESTER}, {_SERVER}, {_DATABASE}, {len(_DOCUMENTS)} documents")


def _user(uow: UnitOfWork, email: str, name: str, role: Role) -> Row:
    found = find_user(uow, email)
    if found is not None:
        return found
    row = create_user(uow, name=name, email=email, role=role)
    if email == TESTER:
        uow.settings.change(uow.settings.lock(row["id"], row["id"]), theme="SYSTEM")
    return row


def _server(uow: UnitOfWork, owner_id: str) -> Row:
    for row in uow.servers.page(owner_id, None, 1000, name_contains=_SERVER):
        if row["name"] == _SERVER:
            return row
    return uow.servers.add(
        new_id(), owner_id, name=_SERVER, kind="QDRANT", host="localhost", port=6333, active=True
    )


def _database(uow: UnitOfWork, owner_id: str, server_id: str) -> Row:
    for row in uow.databases.page(owner_id, None, 1000, name_contains=_DATABASE):
        if row["name"] == _DATABASE:
            return row
    uow.servers.hold(owner_id, server_id)
    return uow.databases.add(new_id(), owner_id, server_id=server_id, name=_DATABASE)
