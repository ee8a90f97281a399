"""Whose turn it is: the statements by which workers of everybody's jobs go round the owners.

Within a priority an owner's turn comes by how long it has waited: since its last turn, or since its oldest
job was ready where that is later. So whoever waits is passed by once at most by each other owner, however
many jobs they have, and whatever cannot be leased yet or is of no worker's kind: round-robin over the active
flows of a network (Hahne 1991), where what cannot be sent is not active.

Nobody who leases waits for a lock here: an owner's row is made with the owner's first job of a priority, and
who notes a turn while another transaction notes one of the same owner leaves it to that one, as both turns
are now. Whoever chooses at the same moment may so give an owner two; and where the host of one vanishes in
its midst, that owner's turns are noted again when the database has given it up.

A worker of its owner's jobs alone takes nobody's turn, and notes none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, islice, zip_longest
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.clock import clock
from morag_meta.db.schema import job_turns as turns
from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE, Path, everyone, owned, system
from morag_meta.db.unit import Row, Unit
from morag_meta.jobs.wanted import LIMIT, SHOWN, Wanted, conditions, order

_FEW: Final = 8
"""Of how many owners not only the next job is looked at; where more wait each has one turn in a call."""
_NEVER: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # before any job was ready
_TICK: Final = dt.timedelta(microseconds=1)

_c = jobs.c
_OF_PRIORITY = turns.c.priority == sa.bindparam("priority")
_NEWEST = system(
    sa.select(
        clock,
        sa.select(sa.func.max(turns.c.turn_time)).where(_OF_PRIORITY).scalar_subquery().label("newest"),
    ),
    "a turn comes behind those of all owners",
    Path.QUEUE,
)
_LOCK = sa.select(turns.c.priority).where(owned(turns), _OF_PRIORITY).with_for_update(skip_locked=True)
_BEGIN = sa.insert(turns)
_NEXT = sa.update(turns).where(owned(turns), _OF_PRIORITY).values(turn_time=sa.bindparam("new_turn_time"))
_DELETE = sa.delete(turns).where(owned(turns))


def turns_begun() -> sa.Label[int]:
    """Say beside an insert, as the column ``turns_begun``, whether the turns began: 1 or 0.

    Those of the owner ``turns_of`` in the priority ``turns_at``.
    """
    begun = sa.select(sa.func.count()).select_from(turns)
    asked = turns.c.owner_id == sa.bindparam("turns_of"), turns.c.priority == sa.bindparam("turns_at")
    return begun.where(*asked).scalar_subquery().label("turns_begun")


class JobTurns:
    """The turns of one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def candidates(self, wanted: Wanted, limit: int) -> list[Row]:
        """Give at most ``limit`` jobs of all owners that can be leased now, in turn; none is locked."""
        return list(islice(self._in_turn(wanted, limit), limit))

    def note(self, leased: Sequence[Row]) -> None:
        """Let the owners of jobs that were leased, in this order, wait for their next turns from now."""
        known: dict[tuple[int, str], None] = {}
        for row in leased:
            owner = row["priority"], row["owner_id"]
            known.pop(owner, None)  # the last of an owner's turns counts
            known[owner] = None
        for priority in sorted({priority for priority, _ in known}):
            time = self._after_all(priority)
            for owner_id in (owner_id for of, owner_id in known if of == priority):
                if self._unit.one(_LOCK, owner_id=owner_id, priority=priority):
                    self._unit.run(_NEXT, owner_id=owner_id, priority=priority, new_turn_time=time)
                time += _TICK

    def open(self, owner_id: str, priority: int) -> None:
        """Let an owner have had no turn yet of a priority.

        Raises:
            Collision: another transaction has begun it.
        """
        self._unit.run(_BEGIN, owner_id=owner_id, priority=priority, turn_time=_NEVER)

    def delete_all(self, owner_id: str) -> None:
        """Forget an owner's turns."""
        self._unit.run(_DELETE, owner_id=owner_id)

    def _after_all(self, priority: int) -> dt.datetime:
        """Give a time behind every turn, and every time from which a job waits, by the database's clock."""
        row = self._unit.one(_NEWEST, priority=priority)
        if row is None:
            raise RuntimeError("the database has no time")
        now: dt.datetime = row["clock"]
        return max(now, row["newest"] or now) + _TICK

    def _in_turn(self, wanted: Wanted, limit: int) -> Iterator[Row]:
        heads = self._unit.all(
            _heads(self._unit.dialect == "mariadb", wanted.chosen),
            owner_id=EVERYONE,
            letters=[state[0] for state in wanted.states],
            limit=limit,
            **wanted.lists,
        )
        for _, of_priority in groupby(heads, lambda row: row["priority"]):
            owners: dict[str, list[Row]] = {}
            for head in of_priority:
                owners.setdefault(head["owner_id"], []).append(head)
            if len(owners) > _FEW:
                yield from (min(own, key=order) for own in owners.values())
                return  # they may have more jobs, which come before all that are less urgent
            for turn in zip_longest(*(self._jobs_behind(own, wanted, limit) for own in owners.values())):
                yield from (row for row in turn if row is not None)

    def _jobs_behind(self, heads: list[Row], wanted: Wanted, limit: int) -> list[Row]:
        """Give the jobs of an owner's queues of one priority, the next first."""
        statement, found = _of_queue(wanted.chosen), list[Row]()
        for head in heads:
            rows = self._unit.all(
                statement, owner_id=EVERYONE, in_queue=head["queue"], limit=limit, **wanted.lists
            )
            found += rows
        return sorted(found, key=order)


def _queues(*, grouped: bool) -> sa.CTE:
    """Name the queues in which a job waits, each by one step in an index, however long they are.

    MariaDB goes so where it groups, and nowhere else; the others where the next one is asked for.
    """
    if grouped:
        return sa.select(_c.queue.label("name")).where(_c.queue > "").group_by(_c.queue).cte("queues")
    first = sa.select(sa.func.min(_c.queue).label("name")).cte("queues", recursive=True)
    others = jobs.alias("others")
    following = sa.select(sa.func.min(others.c.queue)).where(others.c.queue > first.c.name).scalar_subquery()
    return first.union_all(sa.select(following).where(first.c.name.is_not(None)))


@lru_cache(maxsize=64)
def _heads(grouped: bool, chosen: frozenset[str]) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    """Find the first job of each queue, by priority and by how long its owner has waited for a turn."""
    queues, waiting = _queues(grouped=grouped), jobs.alias("waiting")
    head = (
        sa.select(waiting.c.id)
        .where(waiting.c.queue == queues.c.name, *conditions(waiting.c, chosen))
        .order_by(waiting.c.ready_time, waiting.c.id)
        .limit(1)
        .scalar_subquery()
    )
    own_turns = sa.and_(turns.c.owner_id == _c.owner_id, turns.c.priority == _c.priority)
    since = sa.case((turns.c.turn_time > _c.ready_time, turns.c.turn_time), else_=_c.ready_time)
    letter = sa.func.substr(queues.c.name, 2, 1)
    wanted = letter.in_(sa.bindparam("letters", expanding=True))
    heads = sa.select(head.label("id")).select_from(queues).where(wanted).cte("heads")
    # Before row security PostgreSQL looks up no row by what it has not seen: a subselect may tell of rows.
    heads = heads.prefix_with("MATERIALIZED", dialect="postgresql")
    return (
        sa.select(*SHOWN)
        .select_from(heads)
        .join(jobs, _c.id == heads.c.id)
        .outerjoin(turns, own_turns)
        .where(everyone())
        .order_by(_c.priority.desc(), since, _c.id)
        .limit(LIMIT)
    )


@lru_cache(maxsize=32)
def _of_queue(chosen: frozenset[str]) -> sa.Select[Any]:
    """Find the jobs of one queue that can be leased, the oldest first."""
    return (
        sa.select(*SHOWN)
        .where(everyone(), _c.queue == sa.bindparam("in_queue"), *conditions(_c, chosen))
        .order_by(_c.ready_time, _c.id)
        .limit(LIMIT)
    )
