"""``morag-meta key``: API keys, made, replaced and ended straight in the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from morag_meta.api_keys import actions
from morag_meta.api_keys.rules import DEFAULT_GRACE, LONGEST_GRACE, check_addresses, check_scopes, state_of
from morag_meta.audit.actions import note_operator
from morag_meta.auth.keys import PREFIX, SHOWN_CHARACTERS
from morag_meta.auth.narrowing import MOST_NAMED, Narrowing
from morag_meta.auth.principal import Rate, Role
from morag_meta.auth.standing import columns_of, limit_of
from morag_meta.cli.accounts import person, unit_of_work
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table, say
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import invalid
from morag_meta.exits import ExitCode
from morag_meta.rpc.access import known_scopes
from morag_meta.server.app import key_policy
from morag_meta.server.preparation import key_hasher
from morag_meta.uow import UnitOfWork

app = typer.Typer(name="key", help="API keys.", no_args_is_help=True)

_PAGE = 500
_HOUR = dt.timedelta(hours=1)
KeyId = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The key's id, or its first 12 characters, as key list shows them."),
]
_SHOWN = (
    "id",
    "owner_id",
    "name",
    "key_prefix",
    "scopes",
    "bounds",
    "state",
    "expire_time",
    "last_used_time",
    "use_count",
)
# As JSON, which any width holds: in full what the table sums up in one word each.
_TOLD = (
    *(name for name in _SHOWN if name != "bounds"),
    *("allowed_addresses", "rate_limit", "narrowed", "database_ids", "server_ids"),
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called, once among the owner's keys.")],
    owner: Annotated[str, typer.Option("--owner", metavar="EMAIL", help="Whose key it is.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="What it may do, as documents:read; repeatable. Everything if not given."
        ),
    ] = None,
    expire_days: Annotated[
        int | None,
        typer.Option("--expire-days", min=1, max=36_500, help="Days until it ends; never if not given."),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            help="From where it may be used, as 192.0.2.0/24, 2001:db8::/32 or unix; repeatable. "
            "From anywhere if not given.",
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option("--rate", min=0, max=100_000, help="Calls per second; 0 for what keys have by default."),
    ] = 0.0,
    burst: Annotated[
        int, typer.Option("--burst", min=0, max=1_000_000, help="Calls at once; 0 for those of a second.")
    ] = 0,
    database: Annotated[
        list[str] | None,
        typer.Option(
            "--database", metavar="ID", help="A database to which it is narrowed; repeatable, up to 32."
        ),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="ID",
            help="A server to whose databases it is narrowed; repeatable, up to 32.",
        ),
    ] = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Create an API key and print it, once and never again."""
    settings = read_settings(database_url)
    hasher = key_hasher(settings)
    with unit_of_work(settings) as uow:
        user = person(uow, owner)
        role = Role[user["role"]]
        scopes = check_scopes(scope or [], known=known_scopes(), owner_role=role, field="scope")
        end = None if expire_days is None else uow.now + dt.timedelta(days=expire_days)
        key_policy(settings).check(end, now=uow.now, field="--expire-days")
        row, secret = actions.create_key(
            uow,
            hasher,
            owner_id=user["id"],
            name=name,
            scopes=scopes,
            expire_time=end,
            allowed_addresses=check_addresses(address or [], field="--address"),
            **columns_of(Rate.of(rate, burst)),
            **_narrowing(uow, user, database or [], server or []),
        )
        note_operator(uow, "key create", "api_key.create", target_id=row["id"], owner_id=user["id"])
        uow.commit()
    if output is Format.JSON:
        print_json({"id": row["id"], "owner_id": row["owner_id"], "name": name, "key": secret})
    else:
        say(f"API key: {secret}")


@app.command(name="list")
def list_(
    owner: Annotated[
        str, typer.Option("--owner", metavar="EMAIL", help="Whose keys; everybody's if not given.")
    ] = "",
    show_all: Annotated[bool, typer.Option("--all", help="Revoked ones too.")] = False,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """List API keys, newest first; never the secrets."""
    with unit_of_work(read_settings(database_url)) as uow:
        reach = person(uow, owner)["id"] if owner else EVERYONE
        rows = [_listed(row, uow.now) for row in _pages(uow, reach, show_revoked=show_all)]
    if output is Format.JSON:
        for row in rows:
            print_json({name: _plain(row[name]) for name in _TOLD})
        return
    print_table(_SHOWN, [[_cell(row[name]) for name in _SHOWN] for row in rows])


@app.command()
def revoke(key_id: KeyId, database_url: DatabaseUrl = None) -> None:
    """Revoke an API key for good; every process refuses it within seconds."""
    say(f"revoked {_changed('revoke', key_id, database_url, actions.revoke)}")


@app.command()
def disable(key_id: KeyId, database_url: DatabaseUrl = None) -> None:
    """Disable an API key until it is enabled; every process refuses it within seconds."""
    say(f"disabled {_changed('disable', key_id, database_url, actions.disable)}")


@app.command()
def enable(key_id: KeyId, database_url: DatabaseUrl = None) -> None:
    """Let a disabled API key work again."""
    say(f"enabled {_changed('enable', key_id, database_url, actions.enable)}")


@app.command()
def rotate(
    key_id: KeyId,
    grace_hours: Annotated[
        float,
        typer.Option(
            "--grace-hours", min=0, max=LONGEST_GRACE / _HOUR, help="Hours for which the old key goes on."
        ),
    ] = DEFAULT_GRACE / _HOUR,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Replace an API key by one that does the same, and print that, once and never again."""
    settings = read_settings(database_url)
    hasher = key_hasher(settings)
    with unit_of_work(settings) as uow:
        row = _locked(uow, key_id)
        new, old, secret = actions.rotate(uow, hasher, row, dt.timedelta(hours=grace_hours))
        note_operator(uow, "key rotate", "api_key.rotate", target_id=new["id"], owner_id=new["owner_id"])
        uow.commit()
    if output is Format.JSON:
        ends = {"id": new["id"], "predecessor_id": old["id"], "predecessor_expire_time": old["expire_time"]}
        print_json({name: _plain(value) for name, value in ends.items()} | {"key": secret})
    else:
        say(f"the old key {old['id']} ends at {_cell(old['expire_time'])}")
        say(f"API key: {secret}")


def _narrowing(uow: UnitOfWork, owner: Row, database_ids: list[str], server_ids: list[str]) -> dict[str, Any]:
    """Give the columns of what a key is narrowed to."""
    for option, ids in (("--database", database_ids), ("--server", server_ids)):
        if len(set(ids)) > MOST_NAMED:
            raise invalid(option, f"may be given {MOST_NAMED} times")
    return actions.narrowing_columns(uow, owner, database_ids, server_ids)


def _changed(
    verb: str, key_id: str, database_url: str | None, change: Callable[[UnitOfWork, Row], Row]
) -> str:
    """Change a key, and name it."""
    with unit_of_work(read_settings(database_url)) as uow:
        row = change(uow, _locked(uow, key_id))
        note_operator(uow, f"key {verb}", f"api_key.{verb}", target_id=row["id"], owner_id=row["owner_id"])
        uow.commit()
    return f"{row['name']} {row['id']}"


def _locked(uow: UnitOfWork, key: str) -> Row:
    """Lock the key that is named by its id, or by what is shown of it.

    Raises:
        CommandError: a prefix is no key's, or that of several; or it is a whole key, which is not repeated.
    """
    if not key.startswith(PREFIX):
        return actions.lock_key(uow, EVERYONE, key)
    if len(key) != SHOWN_CHARACTERS:
        raise CommandError(f"of a key give its first {SHOWN_CHARACTERS} characters alone", ExitCode.USAGE)
    ids = uow.api_keys.ids_by_prefix(key)
    if not ids:
        raise CommandError(f"no API key begins with {key}", ExitCode.NOT_FOUND)
    if len(ids) > 1:
        raise CommandError(f"several API keys begin with {key}: {', '.join(sorted(ids))}", ExitCode.REFUSED)
    return actions.lock_key(uow, EVERYONE, ids[0])


def _listed(row: Row, now: dt.datetime) -> dict[str, Any]:
    """Give a key's row with what lists tell of it beside its columns."""
    rate = limit_of(row)
    return {
        **row,
        "state": state_of(row, now),
        "bounds": _bounds(row),
        "rate_limit": rate and {"calls_per_second": rate.per_second, "burst": rate.burst},
        "narrowed": Narrowing.of(row) is not None,
    }


def _bounds(row: Row) -> str:
    """Sum up to what a key is narrowed, from where it is let in, and its own rate; nothing of a free one."""
    parts: list[str] = []
    narrowing, rate = Narrowing.of(row), limit_of(row)
    if narrowing is not None:
        counts = {"databases": len(narrowing.databases), "servers": len(narrowing.servers)}
        named = [f"{word}:{count}" for word, count in counts.items() if count]
        parts += named or ["nothing"]
    if row["allowed_addresses"]:
        parts.append(f"addresses:{len(row['allowed_addresses'])}")
    if rate is not None:
        parts.append(f"rate:{rate.per_second:g}/s")
    return " ".join(parts)


def _pages(uow: UnitOfWork, reach: str, *, show_revoked: bool) -> Iterator[Row]:
    after: Row | None = None
    while rows := uow.api_keys.page(reach, after, _PAGE, show_revoked=show_revoked):
        yield from rows
        after = rows[-1]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _cell(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return " ".join(value) if isinstance(value, list) else value
