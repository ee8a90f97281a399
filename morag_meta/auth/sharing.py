"""What a grant on a database lets its user do, as far as every feature needs to know.

Grants themselves are ``grants/``'s matter, and how a statement finds the rows that are shared with a user
``db/statements.py``'s.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from morag_meta.auth.narrowing import Narrowing
from morag_meta.errors import Forbidden, Reason


class Level(enum.IntEnum):
    """What is allowed in a database, in the order of power; no grant makes anybody an OWNER."""

    READER = 1
    WRITER = 2
    OWNER = 3


@dataclass(frozen=True, slots=True)
class Grantee:
    """A user to whom what is not theirs may be shared, and what a grant must allow at least.

    ``narrowing`` is that of the API key by which the user comes: only what lies within it is shared then.
    """

    user_id: str
    needs: Level
    narrowing: Narrowing | None = None

    def check(self, level: str) -> None:
        """Refuse a grant of a level, as named in the database, that does not allow enough.

        Raises:
            Forbidden: GRANT_TOO_LOW.
        """
        if Level[level] < self.needs:
            needed = self.needs.name
            raise Forbidden(
                f"the database is shared with the caller as {level}; {needed} is needed",
                reason=Reason.GRANT_TOO_LOW,
                metadata={"required_level": needed},
            )
