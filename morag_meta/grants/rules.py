"""Whom a database can be shared with.

What a grant allows stands in ``auth/sharing.py``, as every feature asks it.
"""

from __future__ import annotations

from morag_meta.errors import invalid


def check_grantee(owner_id: str, grantee_id: str) -> None:
    """Refuse a grant to the database's own owner.

    Raises:
        Invalid: it is the owner.
    """
    if grantee_id == owner_id:
        raise invalid("grantee_id", "is the database's owner, who needs no grant")
