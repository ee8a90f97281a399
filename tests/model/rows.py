"""What stands in the tables beside what the model says is there: nothing is left, and nothing is lost."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from morag_meta.db.schema import (
    api_keys,
    database_grants,
    databases,
    documents,
    job_events,
    jobs,
    quotas,
    servers,
    sessions,
    users,
    workers,
)
from tests.model.caller import Caller
from tests.model.world import World
from tests.service import Service

_TABLES: dict[str, sa.Table] = {
    "users": users,
    "keys": api_keys,
    "servers": servers,
    "databases": databases,
    "documents": documents,
    "jobs": jobs,
    "workers": workers,
}


def differences(service: Service, caller: Caller, world: World) -> list[str]:
    """Name what is in a table and not in the model, or the other way round."""
    found: list[str] = []
    with service.database.engine.connect() as connection:

        def compare(name: str, model: set[Any], statement: sa.Select[Any]) -> None:
            table = {tuple(map(_labeled, row)) for row in connection.execute(statement)}
            found.extend(f"{name} holds {row}, the model does not" for row in table - model)
            found.extend(f"{name} does not hold {row}, the model does" for row in model - table)

        def _labeled(value: Any) -> Any:
            return caller.label_of(value) if isinstance(value, str) else value

        for name, table in _TABLES.items():
            compare(name, {(label,) for label in getattr(world, name)}, sa.select(table.c.id))
        places = {(grant.database, grant.grantee) for grant in world.grants.values()}
        compare("grants", places, sa.select(database_grants.c.database_id, database_grants.c.grantee_id))
        compare("quotas", {(owner,) for owner in world.limits}, sa.select(quotas.c.owner_id))
        live = {(session.id,) for session in world.sessions.values() if not session.over}
        compare("sessions", live, sa.select(sessions.c.id).where(sessions.c.end_time.is_(None)))
        events = {(job.id, number + 1) for job in world.jobs.values() for number in range(len(job.events))}
        compare("job_events", events, sa.select(job_events.c.job_id, job_events.c.number))
    return sorted(found)
