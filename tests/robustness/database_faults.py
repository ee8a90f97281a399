"""Faults of the database: stopped, killed, frozen, full, locked, and with its connections ended."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from typing import Any

import psycopg2
import pymysql
import sqlalchemy as sa

from tests.backends.walled import administrator
from tests.robustness.scene import Scene

_TRIMMED_AGE = dt.timedelta(seconds=3)


def terminate_connections(scene: Scene) -> None:
    """End all connections of the database's clients from within."""
    _end_connections(scene, listening=False)


def cut_listener(scene: Scene) -> None:
    """End the connections that wait for notices alone."""
    _end_connections(scene, listening=True)


def stop_database(scene: Scene) -> None:
    """Stop the database's server, and start it again."""
    daemon = scene.cluster.daemon
    if daemon is not None:
        daemon.stop()
        scene.rest(0.1, 1)
        daemon.start()


def kill_database(scene: Scene) -> None:
    """Kill the database's server, and start it again."""
    daemon = scene.cluster.daemon
    if daemon is not None:
        daemon.kill()
        daemon.start()


def pause_database(scene: Scene) -> None:
    """Freeze the database's server: 10 s where there is time."""
    daemon = scene.cluster.daemon
    if daemon is not None:
        daemon.pause()
        time.sleep(10 if scene.long else 2)
        daemon.resume()


def use_up_connections(scene: Scene) -> None:
    """Take all the connections that the database has left, for a while."""
    url = sa.make_url(scene.cluster.url)
    held: list[Any] = []
    connect = _postgresql if scene.cluster.kind == "postgresql" else _mariadb
    with contextlib.suppress(psycopg2.Error, pymysql.Error):
        while len(held) < 200:
            held.append(connect(url))
    scene.rest(0.5, 1.5)
    for connection in held:
        with contextlib.suppress(psycopg2.Error, pymysql.Error):
            connection.close()


def hold_write_lock(scene: Scene) -> None:
    """Keep SQLite's one write lock from everybody for a while."""
    engine = sa.create_engine(scene.cluster.url, connect_args={"timeout": 30, "isolation_level": None})
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        scene.rest(1, 3)
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


def trim_events(scene: Scene) -> None:
    """Remove the events that are older than some seconds, while they are watched; the judges keep them."""
    limit = time.monotonic() + 10
    removed = 0
    while not removed and time.monotonic() < limit:
        scene.rest(0.5, 1)
        scene.cluster.keep_events()
        with scene.cluster.database.unit_of_work() as uow:
            removed = uow.job_removals.expire_events(_TRIMMED_AGE)
            uow.commit()


def _end_connections(scene: Scene, *, listening: bool) -> None:
    url = sa.make_url(scene.cluster.url)
    if scene.cluster.kind == "postgresql":
        wanted = "query ILIKE 'LISTEN%'" if listening else "pid <> pg_backend_pid()"
        # With row security the service's own role may not end everybody.
        past = administrator(url).url.set(drivername="postgresql")
        _psql(past, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {wanted}")
        return
    connection = _mariadb(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> connection_id()")
        for (id,) in cursor.fetchall():
            with contextlib.suppress(pymysql.Error):
                cursor.execute("KILL %s", (id,))


def _postgresql(url: sa.URL) -> Any:
    return psycopg2.connect(url.render_as_string(hide_password=False), connect_timeout=5)


def _psql(url: sa.URL, statement: str) -> list[Any]:
    connection = _postgresql(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        connection.close()


def _mariadb(url: sa.URL) -> Any:
    return pymysql.connect(
        host=url.host or "",
        port=url.port or 0,
        user=url.username,
        password=url.password or "",
        database=url.database,
        connect_timeout=5,
    )
