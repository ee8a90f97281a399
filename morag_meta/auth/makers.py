"""Every statement that sees which generation of a secret made what the database keeps; none changes a row.

A keyed hash begins with the name of its key, and a sealed credential likewise. What is renewed for another
generation stands in ``auth/renewals.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.credentials import seal_of
from morag_meta.auth.renewals import KEYS, REQUESTS, RESETS, SEALED, TRIES, Hashed, beginning, begins
from morag_meta.db.schema import api_keys, servers
from morag_meta.db.statements import Path, system
from morag_meta.db.unit import Unit

_WHY: Final = "whether a secret is still needed depends on what everybody has"
_GENERATION: Final = 7  # letters of a hash that name its key, the dot included
_IS_SEALED: Final = sa.or_(*(column.is_not(None) for column in SEALED))


def _tally(hashed: Hashed) -> sa.Select[Any]:
    made = sa.select(sa.func.substr(hashed.column, 1, _GENERATION).label("generation"))
    tally = made.add_columns(sa.func.count().label("rows")).select_from(hashed.table).group_by("generation")
    if hashed is TRIES:
        tally = tally.where(hashed.column != "")  # of addresses, whoever it was
    return system(tally, _WHY, Path.SECRETS)


_TALLIES: Final = {each.name: _tally(each) for each in (KEYS, RESETS, REQUESTS, TRIES)}
_SEALED_BY: Final = system(
    sa.select(sa.func.count().label("rows")).where(sa.or_(*(begins(each) for each in SEALED))),
    _WHY,
    Path.SECRETS,
)


@lru_cache(maxsize=32)
def _sealed_by_none(keys: int) -> sa.Select[Any]:
    """Count the servers with a credential that none of so many keys sealed."""
    other = [
        sa.and_(each.is_not(None), *(sa.not_(begins(each, f"prefix_{n}")) for n in range(keys)))
        for each in SEALED
    ]
    counted = sa.select(sa.func.count().label("rows")).select_from(servers).where(sa.or_(*other))
    return system(counted, _WHY, Path.SECRETS)


def _first(rows: sa.Select[Any], id: sa.Column[Any], *, descending: bool) -> sa.Select[Any]:
    order = id.desc() if descending else id
    return rows.order_by(order).limit(sa.bindparam("limit", type_=sa.Integer))


_HASHES: Final = system(sa.select(api_keys.c.key_hash), _WHY, Path.SECRETS)
_SEALS: Final = system(sa.select(*SEALED).where(_IS_SEALED), _WHY, Path.SECRETS)
_KEY_ENDS: Final = [_first(_HASHES, api_keys.c.id, descending=each) for each in (False, True)]
_SEAL_ENDS: Final = [_first(_SEALS, servers.c.id, descending=each) for each in (False, True)]
_ANY_KEY: Final = _HASHES.where(begins(api_keys.c.key_hash)).limit(1)
_ANY_SEAL: Final = _SEALS.where(sa.or_(*(begins(each) for each in SEALED))).limit(1)


class MakerStore:
    """Who made what there is."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def tally(self, hashed: Hashed) -> dict[str, int]:
        """Give the number of rows by the generation that made their hash; reads every row."""
        rows = self._unit.all(_TALLIES[hashed.name])
        return {str(row["generation"]).removesuffix("."): int(row["rows"]) for row in rows}

    def sealed_by(self, key_id: str) -> int:
        """Give the number of servers with a credential that the key sealed; reads every row."""
        found = self._unit.one(_SEALED_BY, **beginning(seal_of(key_id)))
        return 0 if found is None else int(found["rows"])

    def sealed_by_none(self, key_ids: Sequence[str]) -> int:
        """Give the number of servers with a credential that none of the keys sealed; reads every row."""
        prefixes = [beginning(seal_of(key_id), f"prefix_{n}") for n, key_id in enumerate(key_ids)]
        bound = {name: value for each in prefixes for name, value in each.items()}
        found = self._unit.one(_sealed_by_none(len(key_ids)), **bound)
        return 0 if found is None else int(found["rows"])

    def makers_of_keys(self, limit: int) -> set[str]:
        """Name the generations that made so many API keys at each end of their ids."""
        rows = [row for ends in _KEY_ENDS for row in self._unit.all(ends, limit=limit)]
        return {row["key_hash"].partition(".")[0] for row in rows}

    def makers_of_seals(self, limit: int) -> set[str]:
        """Name the keys that sealed credentials of so many servers at each end of their ids."""
        rows = [row for ends in _SEAL_ENDS for row in self._unit.all(ends, limit=limit)]
        return {
            _sealer(row[column.name]) for row in rows for column in SEALED if row[column.name] is not None
        }

    def has_key_of(self, generations: Sequence[str]) -> bool:
        """Whether any API key is of one of the generations; where none is, every row is read."""
        return self._has(_ANY_KEY, (f"{each}." for each in generations))

    def has_seal_of(self, key_ids: Sequence[str]) -> bool:
        """Whether one of the keys sealed any credential; where none did, every row is read."""
        return self._has(_ANY_SEAL, map(seal_of, key_ids))

    def _has(self, statement: sa.Select[Any], prefixes: Iterator[str]) -> bool:
        return any(self._unit.one(statement, **beginning(each)) is not None for each in prefixes)


def _sealer(sealed: str) -> str:
    """Name the key that sealed a text: the second of its three parts."""
    return sealed.split(".", 2)[1] if sealed.startswith("v1.") else ""
