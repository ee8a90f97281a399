"""A queue of a few owners, for tests of who is next."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.schema import jobs
from morag_meta.jobs import actions, leases
from morag_meta.jobs.rules import NOBODY
from morag_meta.jobs.wanted import Wanted
from morag_meta.users.actions import create_user

OWNERS: Final = 4


class Queue:
    """A queue of a few owners, of which every test empties what it made."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.unit_of_work() as uow:
            self.owners = [
                str(create_user(uow, name="Owner", email=f"{number}@queue.test")["id"])
                for number in range(OWNERS)
            ]
            uow.commit()

    def clear(self) -> None:
        """Remove every job."""
        with self.database.unit_of_work() as uow:
            for owner_id in self.owners:
                uow.jobs.delete_all(owner_id)
                uow.queue.turns.delete_all(owner_id)
            uow.commit()

    def create(self, owner: int, **fields: Any) -> str:
        """Make a job of an owner."""
        with self.database.unit_of_work() as uow:
            row = actions.create_job(uow, self.owners[owner], **{"kind": "X"} | fields)
            uow.commit()
        return str(row["id"])

    def lease_next(self, *kinds: str) -> tuple[int, str] | None:
        """Lease the next job, of some kinds or of any, and give its owner and its id."""
        with self.database.unit_of_work() as uow:
            found = uow.queue.candidates(Wanted("-", kinds=kinds), 1)
            if not found:
                return None
            leases.lease(uow, uow.jobs.lock("-", found[0]["id"]), worker_id=None)
            uow.queue.turns.note(found)
            uow.commit()
        return self.owners.index(found[0]["owner_id"]), found[0]["id"]

    def lease_all(self) -> list[tuple[int, str]]:
        """Lease one after the other until there is none."""
        leased = []
        while (lease := self.lease_next()) is not None:
            leased.append(lease)
        return leased

    def give_back(self, job_id: str) -> None:
        """Take a job back from its holder."""
        with self.database.unit_of_work() as uow:
            leases.release(uow, uow.jobs.lock("-", job_id), NOBODY)
            uow.commit()

    def come(self, owner: int) -> None:
        """Let the time come of every delayed job of an owner."""
        with self.database.unit_of_work() as uow:
            now = uow.queue.now()
            delayed = (jobs.c.owner_id == self.owners[owner], jobs.c.not_before > now)
            uow.connection.execute(sa.update(jobs).where(*delayed).values(not_before=now, ready_time=now))
            uow.commit()
