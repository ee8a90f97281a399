"""The statements that list jobs, one for each shape of filter and order, built once.

What does not live here: every other statement over jobs, and running them (``store.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE, after_row, everyone, owned
from morag_meta.errors import invalid

_c = jobs.c


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant; a part that is empty lets every job through."""

    owner_id: str
    database_id: str = ""
    document_id: str = ""
    kinds: tuple[str, ...] = ()
    document_types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    worker_ids: tuple[str, ...] = ()

    def shape(self) -> tuple[str, ...]:
        """Name the parts that are set."""
        return tuple(part for part in _CONDITIONS if getattr(self, part))


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

_CONDITIONS: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "database_id": _c.database_id == sa.bindparam("database_id"),
    "document_id": _c.document_id == sa.bindparam("document_id"),
    "kinds": _c.kind.in_(sa.bindparam("kinds", expanding=True)),
    "document_types": _c.document_type.in_(sa.bindparam("document_types", expanding=True)),
    "states": _c.state.in_(sa.bindparam("states", expanding=True)),
    "worker_ids": _c.worker_id.in_(sa.bindparam("worker_ids", expanding=True)),
}


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


def page_statement(chosen: Filter, order: Order, *, following: bool) -> sa.Select[Any]:
    """Give the statement of a page: the first one, or one that follows a row."""
    return _statement(chosen.owner_id == EVERYONE, chosen.shape(), order, following)


def page_parameters(chosen: Filter, order: Order, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give what the statement binds, but for the limit."""
    values: dict[str, Any] = {"owner_id": chosen.owner_id}
    for part in chosen.shape():
        value = getattr(chosen, part)
        values[part] = list(value) if isinstance(value, tuple) else value
    if after is not None:
        values |= {f"after_{order.column}": after[order.column], "after_id": after["id"]}
    return values


@lru_cache(maxsize=512)
def _statement(of_everyone: bool, shape: tuple[str, ...], order: Order, following: bool) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    conditions = [everyone() if of_everyone else owned(jobs)]
    conditions += [_CONDITIONS[part] for part in shape]
    time, id_ = _c[order.column], _c.id
    if following:
        conditions += after_row(time, id_, descending=order.descending)
    keys = (time.desc(), id_.desc()) if order.descending else (time, id_)
    limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
    return sa.select(jobs).where(*conditions).order_by(*keys).limit(limit)
