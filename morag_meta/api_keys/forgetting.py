"""What others' API keys are narrowed to and goes with a user who is deleted: they name it no longer.

A key of which nothing is left is narrowed still, to nothing; see ``auth/narrowing.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import sqlalchemy as sa

from morag_meta.db.schema import api_keys as keys
from morag_meta.db.statements import Path, owned, system
from morag_meta.db.unit import Unit

_PLACES: Final = ("database_ids", "server_ids")
_NARROWED: Final = system(
    sa.select(keys.c.id, keys.c.owner_id, *(keys.c[name] for name in _PLACES)).where(
        sa.or_(*(keys.c[name].is_not(None) for name in _PLACES))
    ),
    "keys of others may name a database or a server that goes with its owner",
    Path.PURGE,
)
_RENAME: Final = (
    sa.update(keys)
    .where(owned(keys), keys.c.id == sa.bindparam("key_id"))
    .values({name: sa.bindparam(f"new_{name}", type_=keys.c[name].type) for name in _PLACES})
)


class KeyForgetting:
    """What is forgotten within one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def places(self, gone: Collection[str]) -> None:
        """Have no key name any of these databases and servers. It goes through all narrowed keys."""
        for key in self._unit.all(_NARROWED):
            left = {name: [each for each in key[name] or () if each not in gone] for name in _PLACES}
            if any(left[name] != (key[name] or []) for name in _PLACES):
                new = {f"new_{name}": left[name] for name in _PLACES}
                self._unit.run(_RENAME, owner_id=key["owner_id"], key_id=key["id"], **new)
