"""What only servers ask of their values and of their deletion.

What does not live here: the rules that the proto declares, which are enforced before a method runs.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from morag_meta.errors import Reason, WrongState, invalid
from morag_meta.wording import number_of

CLOCK_DIFFERENCE: Final = dt.timedelta(minutes=5)
"""How far ahead of the service's clock a client's may be."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def check_connect_time(time: dt.datetime | None, now: dt.datetime) -> None:
    """Refuse a time of the last connection that cannot be true.

    Raises:
        Invalid: it is before 1970 or more than CLOCK_DIFFERENCE after ``now``.
    """
    if time is not None and not _EPOCH <= time <= now + CLOCK_DIFFERENCE:
        raise invalid("server.last_connect_time", "must be from 1970 on and not more than 5 minutes ahead")


def check_childless(databases: int) -> None:
    """Refuse to delete a server that has databases.

    Raises:
        WrongState: it has some (HAS_CHILDREN).
    """
    if databases:
        raise WrongState(
            f"the server has {number_of(databases, 'database')}; set force to delete them too",
            reason=Reason.HAS_CHILDREN,
            metadata={"children": "databases", "count": str(databases)},
        )
