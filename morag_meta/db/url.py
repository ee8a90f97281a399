"""Database URLs: from what a person writes to the driver this service uses, and safe to print.

What does not live here: engines and pools (``db/engine.py``), and where the URL comes from
(``config/settings.py``, the command line).
"""

from __future__ import annotations

import importlib.util
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

# One driver per kind of database. ``mysql+pymysql`` serves MariaDB and MySQL alike, whereas SQLAlchemy's
# ``mariadb`` dialect turns a MySQL server away; so every form below ends in one dialect name.
_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg2",
    "postgresql": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
_PACKAGES: Final = {"postgresql+psycopg2": ("psycopg2", "postgresql"), "mysql+pymysql": ("pymysql", "mysql")}
_FORMS: Final = "postgresql://, mysql://, mariadb:// or sqlite:///"
_SECRET_OPTIONS: Final = frozenset({"password", "passwd", "sslpassword", "passphrase", "ssl_key_password"})
_UNREADABLE: Final = "(unreadable database URL)"


class UrlError(ValueError):
    """A database URL that cannot be used; the message names the fix and holds no password."""


def normalize(url: str | sa.URL) -> sa.URL:
    """Turn a URL as users write it into one with the driver that this service runs on.

    Accepts ``postgresql://``, ``postgres://``, ``mysql://``, ``mariadb://`` and ``sqlite:///path``, with
    or without that driver named. Applying it twice changes nothing.

    Raises:
        UrlError: unreadable, another database or driver, an in-memory SQLite database, or the driver's
            package is not installed.
    """
    parsed = _parse(url)
    kind, _, driver = parsed.drivername.partition("+")
    if kind not in _DRIVERS:
        raise UrlError(f"{masked(parsed)}: unknown kind of database {kind!r}; write {_FORMS}")
    drivername = _DRIVERS[kind]
    wanted = drivername.partition("+")[2]
    if driver not in ("", wanted):
        raise UrlError(f"{masked(parsed)}: driver {driver!r} is not supported; write {kind}:// for {wanted}")
    parsed = parsed.set(drivername=drivername)
    if drivername.startswith("sqlite"):
        _check_sqlite(parsed)
    else:
        _check_server(parsed)
    _check_installed(parsed)
    return parsed


def masked(url: str | sa.URL) -> str:
    """Give the URL for people and logs, with passwords as ``***``; never raises."""
    try:
        parsed = _parse(url)
    except UrlError:
        return _UNREADABLE
    hidden = {name: "***" for name in parsed.query if name.lower() in _SECRET_OPTIONS}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def dialect_name(url: str | sa.URL) -> str:
    """Name the database of a URL as the rest of the code does: sqlite, postgresql or mariadb.

    Raises:
        UrlError: as ``normalize``.
    """
    name = normalize(url).get_backend_name()
    return "mariadb" if name == "mysql" else name


def _parse(url: str | sa.URL) -> sa.URL:
    if isinstance(url, sa.URL):
        return url
    try:
        parsed = sa.make_url(url.strip())
    except (ArgumentError, ValueError):
        # The parser's own message quotes the URL, and with it the password.
        raise UrlError(f"the database URL cannot be read; write {_FORMS}") from None
    if "@" in (parsed.host or ""):
        raise UrlError("the database URL has more than one '@'; write %40 for an '@' within the password")
    return parsed


def _check_sqlite(url: sa.URL) -> None:
    database = url.database or ""
    if url.host:
        raise UrlError(f"{masked(url)}: SQLite takes three slashes and a path, four for an absolute one")
    if not database or ":memory:" in database or "memory" in url.query.get("mode", ()):
        raise UrlError(
            "an in-memory SQLite database is gone with its connection; name a file, sqlite:///path"
        )


def _check_server(url: sa.URL) -> None:
    if not url.database and "dbname" not in url.query:
        raise UrlError(f"{masked(url)}: names no database; append /NAME after the host")
    charset = url.query.get("charset", "utf8mb4")
    if url.get_backend_name() == "mysql" and charset != "utf8mb4":
        raise UrlError(f"{masked(url)}: charset must be utf8mb4, or left out")


def _check_installed(url: sa.URL) -> None:
    module, extra = _PACKAGES.get(url.drivername, ("sqlite3", ""))
    if importlib.util.find_spec(module) is None:
        raise UrlError(f"{masked(url)}: its driver is not installed; pip install 'morag-meta[{extra}]'")
