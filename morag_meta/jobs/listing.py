"""Which jobs a filter means, and the statements that list them: one for each shape, built once.

What does not live here: every other statement over jobs, and running them (``store.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.narrowing import Narrowing
from morag_meta.db.schema import job_events as events
from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE, after_row, everyone, owned, server_of, within
from morag_meta.errors import invalid

_c = jobs.c


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant; a part that is empty lets every job through.

    ``narrowing`` is that of the API key by which they are asked for: it belongs to the filter, so that no
    stream is shared by those who see different jobs.
    """

    owner_id: str
    database_id: str = ""
    document_id: str = ""
    kinds: tuple[str, ...] = ()
    document_types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    worker_ids: tuple[str, ...] = ()
    narrowing: Narrowing | None = None

    def shape(self) -> tuple[str, ...]:
        """Name the parts that are set."""
        parts = tuple(part for part in _PARTS if getattr(self, part))
        return parts if self.narrowing is None else (*parts, _WITHIN + self.narrowing.shape)


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is ordered; ``id`` in the same direction decides between equal times."""

    column: str
    descending: bool


_ORDERS: Final = {
    "": Order("create_time", descending=True),
    "create_time desc": Order("create_time", descending=True),
    "create_time": Order("create_time", descending=False),
    "update_time desc": Order("update_time", descending=True),
    "update_time": Order("update_time", descending=False),
}

_WITHIN: Final = "within "
_SHAPES: Final = ("databases", "servers", "both")
_PARTS: Final = ("database_id", "document_id", "kinds", "document_types", "states", "worker_ids")
_CONDITIONS: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "database_id": _c.database_id == sa.bindparam("database_id"),
    "document_id": _c.document_id == sa.bindparam("document_id"),
    "kinds": _c.kind.in_(sa.bindparam("kinds", expanding=True)),
    "document_types": _c.document_type.in_(sa.bindparam("document_types", expanding=True)),
    "states": _c.state.in_(sa.bindparam("states", expanding=True)),
    "worker_ids": _c.worker_id.in_(sa.bindparam("worker_ids", expanding=True)),
    **{_WITHIN + shape: within(_c.database_id, shape) for shape in _SHAPES},
}

_e = events.c
_EVENT_CONDITIONS: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "database_id": _e.database_id == sa.bindparam("database_id"),
    "document_id": _e.document_id == sa.bindparam("document_id"),
    "kinds": _e.kind.in_(sa.bindparam("kinds", expanding=True)),
    "document_types": _e.document_type.in_(sa.bindparam("document_types", expanding=True)),
    "states": sa.or_(
        _e.state.in_(sa.bindparam("states", expanding=True)),
        _e.previous_state.in_(sa.bindparam("states", expanding=True)),
    ),
    "worker_ids": sa.or_(
        _e.worker_id.in_(sa.bindparam("worker_ids", expanding=True)),
        _e.previous_worker_id.in_(sa.bindparam("worker_ids", expanding=True)),
    ),
    **{_WITHIN + shape: within(_e.database_id, shape) for shape in _SHAPES},
}


def event_conditions(shape: tuple[str, ...]) -> list[sa.ColumnElement[bool]]:
    """Let pass the events of jobs that match those parts of a filter after the change or before it."""
    return [_EVENT_CONDITIONS[part] for part in shape]


def is_by_server(chosen: Filter) -> bool:
    """Whether a filter is narrowed to servers, so that those of events must be known."""
    return chosen.narrowing is not None and bool(chosen.narrowing.servers)


def event_columns(shape: tuple[str, ...]) -> list[sa.ColumnElement[Any]]:
    """Give what is read with events of such a filter: ``server_id``, where servers decide which they are."""
    by_server = {_WITHIN + "servers", _WITHIN + "both"} & {*shape}
    return [server_of(_e.database_id).label("server_id")] if by_server else []


def parse_order(order_by: str) -> Order:
    """Read ``order_by``, which must be written exactly as one of those that there are.

    Raises:
        Invalid: it is another one.
    """
    order = _ORDERS.get(order_by)
    if order is None:
        allowed = ", ".join(f"'{text}'" for text in _ORDERS if text)
        raise invalid("order_by", f"must be one of {allowed}")
    return order


def conditions_of(of_everyone: bool, shape: tuple[str, ...]) -> list[sa.ColumnElement[bool]]:  # noqa: FBT001 - the key of a cache
    """Give the conditions of a filter of a shape; they bind what ``parameters_of`` gives."""
    return [everyone() if of_everyone else owned(jobs), *(_CONDITIONS[part] for part in shape)]


def parameters_of(chosen: Filter) -> dict[str, Any]:
    """Give what the conditions of a filter bind."""
    values: dict[str, Any] = {"owner_id": chosen.owner_id}
    for part in _PARTS:
        if value := getattr(chosen, part):
            values[part] = list(value) if isinstance(value, tuple) else value
    return values if chosen.narrowing is None else values | chosen.narrowing.bound


def page_statement(chosen: Filter, order: Order, *, following: bool) -> sa.Select[Any]:
    """Give the statement of a page: the first one, or one that follows a row."""
    return _statement(chosen.owner_id == EVERYONE, chosen.shape(), order, following)


@lru_cache(maxsize=512)
def _snapshot(of_everyone: bool, shape: tuple[str, ...], following: bool) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    newest = sa.select(_e.position).where(_e.job_id == _c.id, _e.number == _c.event_number)
    page = _statement(of_everyone, shape, _ORDERS[""], following)
    return page.add_columns(newest.scalar_subquery().label("newest_position"))


def snapshot_statement(chosen: Filter, *, following: bool) -> sa.Select[Any]:
    """Give the statement of a page, the newest jobs first, with the position of each one's newest event."""
    return _snapshot(chosen.owner_id == EVERYONE, chosen.shape(), following)


def page_parameters(
    chosen: Filter, order: Order | None = None, after: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Give what the statement binds, but for the limit."""
    values = parameters_of(chosen)
    if order is not None and after is not None:
        values |= {f"after_{order.column}": after[order.column], "after_id": after["id"]}
    return values


@lru_cache(maxsize=512)
def _statement(of_everyone: bool, shape: tuple[str, ...], order: Order, following: bool) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    conditions = conditions_of(of_everyone, shape)
    time, id_ = _c[order.column], _c.id
    if following:
        conditions += after_row(time, id_, descending=order.descending)
    keys = (time.desc(), id_.desc()) if order.descending else (time, id_)
    limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
    return sa.select(jobs).where(*conditions).order_by(*keys).limit(limit)
