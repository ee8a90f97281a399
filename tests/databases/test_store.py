"""What the stores of servers and databases do below the wire: for one owner, and under the constraints."""

from __future__ import annotations

import pytest

from morag_meta.errors import MetaError, NotFound
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork
from tests.service import Service, User


def _add(uow: UnitOfWork, owner: User) -> tuple[str, str]:
    server = uow.servers.add(new_id(), owner.id, name="main", kind="NEO4J", host="neo", port=7687)
    database = uow.databases.add(new_id(), owner.id, server_id=server["id"], name="papers")
    return server["id"], database["id"]


def test_everything_of_one_owner_goes_and_nothing_of_another(service: Service, user: User) -> None:
    """Removing a user's rows leaves everybody else's."""
    other = service.new_user()
    with service.database.unit_of_work() as uow:
        server, database = _add(uow, user)
        kept_server, kept_database = _add(uow, other)
        uow.databases.delete_all(user.id)
        uow.servers.delete_all(user.id)
        with pytest.raises(NotFound):
            uow.databases.get(user.id, database)
        with pytest.raises(NotFound):
            uow.servers.get(user.id, server)
        assert uow.databases.get(other.id, kept_database)["server_id"] == kept_server
        assert uow.servers.get("-", kept_server)["owner_id"] == other.id


def test_a_database_on_another_owners_server_cannot_be_written(service: Service, user: User) -> None:
    """The constraint refuses it even where no code looked for the server first."""
    other = service.new_user()
    with service.database.unit_of_work() as uow:
        server, _ = _add(uow, other)
        with pytest.raises(MetaError):
            uow.databases.add(new_id(), user.id, server_id=server, name="stray")


def test_a_server_with_databases_cannot_be_removed(service: Service, user: User) -> None:
    """Foreign keys restrict: what a deletion forgot to detach stops it."""
    with service.database.unit_of_work() as uow:
        server, _ = _add(uow, user)
        with pytest.raises(MetaError):
            uow.servers.remove(uow.servers.lock(user.id, server))


def test_a_server_is_held_for_its_owner_alone(service: Service, user: User) -> None:
    """A database is made on a server of the same owner, and also an ADMIN's reach does not widen that."""
    with service.database.unit_of_work() as uow:
        server, _ = _add(uow, user)
        uow.servers.hold(user.id, server)
        for owner in (new_id(), "-"):
            with pytest.raises(NotFound):
                uow.servers.hold(owner, server)


def test_a_units_rows_are_gone_without_a_commit(service: Service, user: User) -> None:
    """Leaving the block undoes what was not committed."""
    with service.database.unit_of_work() as uow:
        server, _ = _add(uow, user)
    with service.database.unit_of_work() as uow, pytest.raises(NotFound):
        uow.servers.get(user.id, server)
