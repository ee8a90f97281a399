"""What an API key is narrowed to, and the reach of a call that comes by one. Pure.

What a key names stands in its row and never changes; how a statement finds only what lies within it is
``db/statements.py``'s matter, and which methods such a key may call ``rpc/access.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from morag_meta.errors import Forbidden, Reason

MOST_NAMED: Final = 32
"""The most databases that a key names, and the most servers."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Some databases, and some servers with all that is on them; of neither any is nothing at all."""

    databases: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self | None:
        """Give the narrowing of a key's row, None of one that is not narrowed."""
        if row["database_ids"] is None and row["server_ids"] is None:
            return None
        return cls(tuple(row["database_ids"] or ()), tuple(row["server_ids"] or ()))

    @property
    def shape(self) -> str:
        """Name what is named: ``databases``, ``servers`` or ``both``."""
        if not self.servers:
            return "databases"
        return "both" if self.databases else "servers"

    @property
    def bound(self) -> dict[str, list[str]]:
        """What conditions of this shape bind."""
        named = {"within_databases": self.databases, "within_servers": self.servers}
        if self.shape != "both":
            del named["within_servers" if self.shape == "databases" else "within_databases"]
        return {name: list(ids) for name, ids in named.items()}

    def settle(self, database_id: str) -> tuple[str, Narrowing | None]:
        """Give what a filter by one database, or by none (empty), comes to within, in its simplest form.

        One that is named is all that is asked of its rows, which an index over databases then finds in order.
        """
        if database_id in self.databases:
            return database_id, None
        if not database_id and not self.servers and len(self.databases) == 1:
            return self.databases[0], None
        return database_id, self

    def covers(self, database_id: str | None, server_id: str | None) -> bool:
        """Whether a database on a server lies within; None is what is in none, or not known."""
        return database_id in self.databases or server_id in self.servers


@dataclass(frozen=True, slots=True)
class Reach:
    """Whose rows a call may touch (``EVERYONE`` for all), and within which databases, None for all."""

    owner_id: str
    narrowing: Narrowing | None = None


Whose = Reach | str
"""A reach; an owner's id alone is everything of that owner, for what the service itself does."""


def owner_of(whose: Whose) -> str:
    """Give the owner of a reach."""
    return whose if isinstance(whose, str) else whose.owner_id


def narrowing_of(whose: Whose) -> Narrowing | None:
    """Give what a reach is narrowed to, if it is."""
    return None if isinstance(whose, str) else whose.narrowing


def among(whose: Whose, owner_id: str) -> Reach:
    """Give the same reach among the rows of another owner."""
    return Reach(owner_id, narrowing_of(whose))


def check_outside(whose: Whose, what: str) -> None:
    """Refuse to leave something where a narrowed key does not reach; ``what`` says what it would be.

    Raises:
        Forbidden: KEY_NARROWED.
    """
    if narrowing_of(whose) is not None:
        raise narrowed(f"{what} would be outside of what the API key is narrowed to")


def columns_of(database_ids: Sequence[str], server_ids: Sequence[str]) -> dict[str, list[str] | None]:
    """Give the columns of a row that keep what a key is narrowed to; it is not where both are empty."""
    if not database_ids and not server_ids:
        return {"database_ids": None, "server_ids": None}
    return {"database_ids": sorted(set(database_ids)), "server_ids": sorted(set(server_ids))}


def narrowed(why: str) -> Forbidden:
    """Make the error of what a narrowed key may not do."""
    return Forbidden(why, reason=Reason.KEY_NARROWED)
