"""How events end: by their age alone, a batch at a time."""

from __future__ import annotations

import datetime as dt

from morag_meta.audit.rules import Entry
from morag_meta.audit.store import Filter
from morag_meta.server.sweeper import Retention, sweeps
from tests.service import Service

DAY = dt.timedelta(days=1)


def test_what_is_older_than_the_retention_goes_and_nothing_else(service: Service) -> None:
    """Of events of 1, 9 and 11 days the last goes where ten days are kept."""
    swept = sweeps(Retention(audit=10 * DAY.total_seconds()))["audit_events"]
    with service.database.unit_of_work() as uow:
        for days in (1, 9, 11):
            uow.audit.add(Entry(event="old.thing", method=f"{days}", time=uow.now - days * DAY))
        assert swept(uow) == 1
        left = [row["method"] for row in uow.audit.page(Filter(event="old.thing"), None, 10)]
        assert left == ["1", "9"]
        assert swept(uow) == 0


def test_the_setting_reaches_the_sweeper(service: Service) -> None:
    """A year is kept unless another number of days is set."""
    assert service.settings.audit_retention_days == 365
    assert Retention().audit == 365 * DAY.total_seconds()
