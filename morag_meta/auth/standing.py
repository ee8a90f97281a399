"""What a credential's row says of it: whether it stands, and who it proves. Pure.

The rows come from ``auth/store.py``; how long what they say is believed is ``auth/authenticator.py``'s
matter.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.auth.narrowing import Narrowing
from morag_meta.auth.principal import Principal, Rate, Role

ALL_SCOPES: Final = "*"


class Verdict(enum.StrEnum):
    """Whether a credential stands; names as in the proto enum ``ApiKeyVerdict``."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    REVOKED = "REVOKED"
    DISABLED = "DISABLED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a credential.

    ``holder`` is whom it stands for, also where it does not stand; None where it is not found.
    """

    verdict: Verdict
    holder: Principal | None = None

    @property
    def principal(self) -> Principal | None:
        """Whom it proves; None where it does not stand."""
        return self.holder if self.verdict is Verdict.VALID else None


UNKNOWN: Final = Standing(Verdict.NOT_FOUND)


def standing_of(row: Mapping[str, Any], end: dt.datetime | None, now: dt.datetime) -> Standing:
    """Judge a row; ``end`` is when the credential ends, if not by its row."""
    if row["credential_id"] is None:
        return UNKNOWN
    is_key = "scopes" in row
    scopes = row["scopes"] if is_key else [ALL_SCOPES]
    holder = Principal(
        user_id=row["user_id"],
        role=Role[row["role"]],
        scopes=None if ALL_SCOPES in scopes else frozenset(scopes),
        key_id=row["credential_id"] if is_key else "",
        session_id="" if is_key else row["credential_id"],
        expire_time=row["expire_time"] if end is None else end,
        addresses=tuple(row["allowed_addresses"] or ()) if is_key else (),
        limit=limit_of(row) if is_key else None,
        narrowing=Narrowing.of(row) if is_key else None,
    )
    return Standing(_verdict(row, (row["expire_time"], end), now), holder)


def limit_of(row: Mapping[str, Any]) -> Rate | None:
    """Give the limit that a key has of its own; the row keeps the rate in calls per 1000 seconds."""
    rate = row["rate_per_1000_s"]
    return None if rate is None else Rate(rate / 1000, row["rate_burst"])


def columns_of(limit: Rate | None) -> dict[str, int | None]:
    """Give the columns of a row that keep the limit of a key."""
    if limit is None:
        return {"rate_per_1000_s": None, "rate_burst": None}
    return {"rate_per_1000_s": round(limit.per_second * 1000), "rate_burst": limit.burst}


def _verdict(row: Mapping[str, Any], ends: tuple[dt.datetime | None, ...], now: dt.datetime) -> Verdict:
    if row["end_time"] is not None:
        return Verdict.REVOKED
    if not row["active"] or row.get("disable_time") is not None:
        return Verdict.DISABLED
    if any(end is not None and end <= now for end in ends):
        return Verdict.EXPIRED
    return Verdict.VALID
