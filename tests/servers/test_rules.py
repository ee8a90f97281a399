"""What only servers ask of their values: pure rules, without a database."""

from __future__ import annotations

import datetime as dt

import pytest

from morag_meta.errors import Invalid, Reason, WrongState
from morag_meta.servers.rules import check_childless, check_connect_time

NOW = dt.datetime(2030, 5, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "time", [None, NOW, NOW + dt.timedelta(minutes=5), dt.datetime(1970, 1, 1, tzinfo=dt.UTC)]
)
def test_a_time_of_connection_that_can_be_true_passes(time: dt.datetime | None) -> None:
    """From 1970 to five minutes ahead, and never at all."""
    check_connect_time(time, NOW)


@pytest.mark.parametrize(
    "time",
    [NOW + dt.timedelta(minutes=5, microseconds=1), dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC)],
)
def test_a_time_of_connection_that_cannot_be_true_is_refused(time: dt.datetime) -> None:
    """The future and the time before computers are refused, by the field's name."""
    with pytest.raises(Invalid) as caught:
        check_connect_time(time, NOW)
    assert caught.value.violations[0].field == "server.last_connect_time"


def test_a_server_with_databases_says_how_many() -> None:
    """The refusal carries the kind and the number of the children."""
    check_childless(0)
    with pytest.raises(WrongState) as caught:
        check_childless(3)
    assert caught.value.reason is Reason.HAS_CHILDREN
    assert caught.value.metadata == {"children": "databases", "count": "3"}
