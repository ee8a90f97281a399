"""How jobs of a database that is shared come within a filter, and how a stream on them hangs on the grant.

What does not live here: finding one job by a grant (``store.py``), and ending streams (``rpc/streams.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from morag_meta.auth.sharing import Grantee
from morag_meta.errors import NotFound
from morag_meta.jobs.feed import Feed
from morag_meta.jobs.listing import Filter
from morag_meta.rpc.grounds import Ground
from morag_meta.rpc.stream import Stream
from morag_meta.uow import UnitOfWork


def may_be_shared(chosen: Filter, grantee: Grantee | None) -> bool:
    """Whether a filter says whose jobs it means by a database alone, which may be another's."""
    return grantee is not None and bool(chosen.database_id) and chosen.owner_id == grantee.user_id


def as_owner_sees(uow: UnitOfWork, chosen: Filter, grantee: Grantee | None) -> Filter:
    """Give a filter of the database that it names as its owner would; as it is where it is not shared."""
    if grantee is None or not may_be_shared(chosen, grantee):
        return chosen
    owner_id = uow.grants.owner_of(grantee, chosen.database_id)
    return chosen if owner_id is None else replace(chosen, owner_id=owner_id)


def lean(
    feed: Feed, stream: Stream, grantee: Grantee, database_id: str, lost: Callable[[], NotFound]
) -> None:
    """Let a stream end with ``lost`` once the database is no longer shared with the grantee."""

    async def holds() -> bool:
        found = await feed.read(lambda uow: uow.grants.owner_of(grantee, database_id), point=True)
        return found is not None

    stream.ground = Ground((grantee.user_id, database_id), holds, lost)
