"""Database URLs: which driver each form reaches, what is refused, and that no password is shown."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec

import pytest
import sqlalchemy as sa

from morag_meta.db.url import UrlError, dialect_name, masked, normalize


@pytest.mark.parametrize(
    ("written", "driver", "name"),
    [
        ("postgresql://u:p@h:5433/d?sslmode=require", "psycopg2", "postgresql"),
        ("postgres://u:p@h/d", "psycopg2", "postgresql"),
        ("postgresql+psycopg2://u:p@h/d", "psycopg2", "postgresql"),
        ("postgresql:///?host=/run/postgresql&dbname=d", "psycopg2", "postgresql"),
        ("mysql://u:p@h/d", "pymysql", "mariadb"),
        ("mysql+pymysql://u:p@h/d", "pymysql", "mariadb"),
        ("mariadb://u:p@h/d?charset=utf8mb4", "pymysql", "mariadb"),
        ("mariadb+pymysql://u:p@h/d", "pymysql", "mariadb"),
        ("sqlite:///some/file.db", "sqlite3", "sqlite"),
        ("sqlite+pysqlite:////absolute/file.db", "sqlite3", "sqlite"),
        (" sqlite:///with-blanks-around.db\n", "sqlite3", "sqlite"),
    ],
)
def test_each_form_reaches_its_driver(written: str, driver: str, name: str) -> None:
    """Every form that users write makes an engine of the driver that the service runs on."""
    engine = sa.create_engine(normalize(written))
    assert engine.dialect.loaded_dbapi.__name__.partition(".")[0] == driver
    assert dialect_name(written) == name
    assert normalize(normalize(written)) == normalize(written)


def test_everything_but_the_driver_stays() -> None:
    """Host, port, user, password, database and options come through unchanged."""
    url = normalize("postgres://me:s%40crt@h:5433/d?sslmode=require")
    assert (url.username, url.password, url.host, url.port, url.database) == ("me", "s@crt", "h", 5433, "d")
    assert url.query == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("oracle://u:hush@h/d", "unknown kind of database 'oracle'"),
        ("postgresql+asyncpg://u:hush@h/d", "driver 'asyncpg' is not supported; write postgresql://"),
        ("mysql+mysqldb://u:hush@h/d", "driver 'mysqldb' is not supported; write mysql://"),
        ("sqlite+aiosqlite:///f.db", "driver 'aiosqlite' is not supported"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///file:f?mode=memory&uri=true", "in-memory"),
        ("sqlite://folder/f.db", "three slashes"),
        ("mysql://u:hush@h", "names no database"),
        ("postgresql://u:hush@h", "names no database"),
        ("mysql://u:hush@h/d?charset=latin1", "charset must be utf8mb4"),
        ("postgresql://u:hu@sh@h/d", "write %40"),
        ("postgresql://u:hush@h:port/d", "cannot be read"),
        ("hush", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_fix(written: str, words: str) -> None:
    """A URL that cannot be used is refused in words that name the fix and hold no password."""
    with pytest.raises(UrlError) as refused:
        normalize(written)
    assert words in str(refused.value)
    assert "hush" not in str(refused.value)
    assert "sh@" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("written", "module", "extra"),
    [
        ("postgresql://h/d", "psycopg2", "morag-meta[postgresql]"),
        ("mariadb://h/d", "pymysql", "morag-meta[mysql]"),
    ],
)
def test_a_missing_driver_names_its_extra(
    written: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the driver's package the refusal says which extra to install."""
    real: Callable[..., ModuleSpec | None] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == module else real(name, *rest)
    )
    with pytest.raises(UrlError, match="not installed") as refused:
        normalize(written)
    assert extra in str(refused.value)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("postgresql://me:hush@h:5433/d", "postgresql://me:***@h:5433/d"),
        ("mysql://me:hush@h/d?ssl_key_password=hush", "mysql://me:***@h/d?ssl_key_password=***"),
        ("postgresql:///d?user=me&password=hush", "postgresql:///d?password=***&user=me"),
        ("sqlite:///f.db", "sqlite:///f.db"),
        ("postgresql://me:hu@sh@h/d", "(unreadable database URL)"),
        ("hush", "(unreadable database URL)"),
    ],
)
def test_passwords_are_masked_wherever_they_stand(written: str, shown: str) -> None:
    """The form for people shows no password, in the authority or among the options, and never fails."""
    assert masked(written) == shown
