"""The column types of the house: what goes in comes out, on every database, by either way of running."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from morag_meta.db.database import Database
from morag_meta.db.types import Json, LongText, UtcDateTime
from tests.backends.databases import Backend

_values = sa.Table(
    "trial_values",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", UtcDateTime),
    sa.Column("json", Json),
    sa.Column("text", LongText),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_nopad_bin",
)
_INSERT = sa.insert(_values)
_READ = sa.select(_values).where(_values.c.id == sa.bindparam("value_id"))
_SAMPLED = settings(max_examples=30, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def store(backend: Backend) -> Iterator[Database]:
    """Open a database with one table of every type."""
    url = backend.new_empty_url()
    opened = Database.open(url)
    with opened.unit_of_work() as uow:
        _values.create(uow.connection)
        uow.commit()
    yield opened
    opened.close()
    backend.drop(url)


def _there_and_back(store: Database, **value: Any) -> dict[str, Any]:
    """Write a row and read it, both ready-made and through SQLAlchemy, and give what was read."""
    row = {"id": 1, "time": None, "json": None, "text": None} | value
    with store.unit_of_work() as uow:
        uow.run(_INSERT, **row)
        ready = uow.one(_READ, value_id=1)
        through = uow.connection.execute(_READ, {"value_id": 1}).mappings().one()
    assert ready is not None
    assert dict(ready) == dict(through)
    return dict(ready)


# MariaDB's DATETIME begins with the year 1; beyond 9999 none of them goes.
_ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
_TIMES = st.datetimes(
    min_value=dt.datetime(1, 1, 2),  # noqa: DTZ001 - the strategy adds the zone
    max_value=dt.datetime(9999, 12, 30),  # noqa: DTZ001 - the strategy adds the zone
    timezones=_ZONES,
)


@_SAMPLED
@given(time=_TIMES)
@example(time=dt.datetime(1, 1, 1, tzinfo=dt.UTC))
@example(time=dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC))
@example(time=dt.datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=dt.UTC))  # where Europe's clocks have no such hour
@example(time=dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC))
def test_a_time_comes_back_to_the_microsecond_in_utc(store: Database, time: dt.datetime) -> None:
    """An aware time of any zone comes back as the same moment, aware, in UTC."""
    back = _there_and_back(store, time=time)["time"]
    assert back == time
    assert back.utcoffset() == dt.timedelta(0)


def test_a_naive_time_is_refused(store: Database) -> None:
    """A time without a zone never reaches a database."""
    with pytest.raises((ValueError, sa.exc.StatementError), match="naive"):
        _there_and_back(store, time=dt.datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


@_SAMPLED
@given(times=st.lists(_TIMES, min_size=2, max_size=6, unique=True))
def test_times_sort_as_time_does(store: Database, times: list[dt.datetime]) -> None:
    """The database's order of times is their order, across zones, years and fractions of seconds."""
    with store.unit_of_work() as uow:
        for number, time in enumerate(times):
            uow.run(_INSERT, id=number, time=time, json=None, text=None)
        rows = uow.all(sa.select(_values.c.time).order_by(_values.c.time))
    assert [row["time"] for row in rows] == sorted(times)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@_SAMPLED
@given(value=_JSON)
@example(value={"b": 1, "a": 2, "\x00": "\x00", "\U0001f600": "\u2028"})
@example(value=[2**63, -(2**63), 2**100, 0.1, 1e300, 5e-324, -0.0, 1.0, 1])
def test_json_comes_back_as_it_was(store: Database, value: Any) -> None:
    """Any JSON value comes back with the types of its numbers and the order of its keys."""
    back = _there_and_back(store, json=value)["json"]
    assert json.dumps(back) == json.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [-float("inf")]}])
def test_numbers_that_json_does_not_know_are_refused(store: Database, value: Any) -> None:
    """NaN and infinities never reach a database."""
    with pytest.raises((ValueError, sa.exc.StatementError)):
        _there_and_back(store, json=value)


@_SAMPLED
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\x00")))
def test_text_comes_back_as_it_was(store: Database, text: str) -> None:
    """Any text without NUL comes back as it was, with its trailing spaces and its composition."""
    assert _there_and_back(store, text=text)["text"] == text


def test_a_mebibyte_is_kept_whole(store: Database) -> None:
    """Long text and large JSON keep far more than the 64 KiB at which MariaDB's TEXT ends."""
    text = "\U0001f600" * 262_144
    back = _there_and_back(store, text=text, json=[text])
    assert (back["text"], back["json"]) == (text, [text])


def test_nothing_comes_back_as_nothing(store: Database) -> None:
    """None is null in every type."""
    assert _there_and_back(store) == {"id": 1, "time": None, "json": None, "text": None}
