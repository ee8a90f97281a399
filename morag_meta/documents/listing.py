"""What a list of documents can be asked for: its filters and its order.

What does not live here: the statements that answer it (``store.py``), pages and their tokens.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from morag_meta.errors import invalid


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents to list; a part that is None or empty lets every document through.

    ``database_id`` is a database's id or ``-`` for documents in none; ``name_contains`` matches A to Z in
    either case; the time of creation lies in ``[create_time_start, create_time_end)``. Documents that are
    deleted pass with ``show_deleted``, or when ``states`` names their state.
    """

    database_id: str = ""
    states: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    name_contains: str = ""
    create_time_start: dt.datetime | None = None
    create_time_end: dt.datetime | None = None
    external_id: str = ""
    content_hash: str = ""
    show_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is ordered; ``id`` in the same direction decides between equal values."""

    column: str
    descending: bool


_ORDERS: Final[Mapping[str, Order]] = {
    "": Order("create_time", descending=True),
    "create_time desc": Order("create_time", descending=True),
    "create_time": Order("create_time", descending=False),
    "update_time desc": Order("update_time", descending=True),
    "update_time": Order("update_time", descending=False),
    "name desc": Order("name", descending=True),
    "name": Order("name", descending=False),
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
