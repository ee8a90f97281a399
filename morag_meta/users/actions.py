"""What is done to users, for the servicer, the command line and programs that embed the service.

Each works within the caller's unit of work and commits nothing. Whatever takes standing away locks the
epoch's row first: such changes then follow one another, so that of the last two ADMINs only one can go.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from morag_meta.auth.principal import Role
from morag_meta.db.unit import Row
from morag_meta.errors import Reason, WrongState
from morag_meta.uow import UnitOfWork
from morag_meta.users.rules import check_admin_remains, check_email, check_name


def create_user(
    uow: UnitOfWork, *, name: str, email: str, role: Role = Role.USER, password_hash: str | None = None
) -> Row:
    """Add an active user with default settings; without a password the user cannot log in.

    Raises:
        Invalid: the name or the email cannot be kept.
        AlreadyExists: the email, once normalised, is taken.
    """
    row = uow.users.add(
        name=check_name(name, "name"),
        email=check_email(email, "email"),
        role=role.name,
        password_hash=password_hash,
    )
    uow.settings.add(row["id"])
    uow.audit.know(row["id"])
    return row


def set_role(uow: UnitOfWork, row: Row, role: Role) -> Row:
    """Give a locked user another role and end the user's sessions; the same role changes nothing.

    The epoch is locked: ``lock_standing``.

    Raises:
        WrongState: the user is the last active ADMIN.
    """
    if row["role"] == role.name:
        return row
    _check_not_last_admin(uow, row)
    return _without_sessions(uow, uow.users.change(row, role=role.name))


def deactivate(uow: UnitOfWork, row: Row) -> Row:
    """Deactivate a locked user and end the user's sessions; one who is not active stays as is.

    The epoch is locked: ``lock_standing``.

    Raises:
        WrongState: the user is the last active ADMIN.
    """
    if not row["active"]:
        return row
    _check_not_last_admin(uow, row)
    return _without_sessions(uow, uow.users.change(row, active=False))


def reactivate(uow: UnitOfWork, row: Row) -> Row:
    """Let a locked user in again; one who is active stays as is."""
    if row["active"]:
        return row
    uow.epoch.bump()  # so that no process goes on refusing the user's keys
    return uow.users.change(row, active=True)


def set_password(uow: UnitOfWork, row: Row, password_hash: str) -> Row:
    """Give a locked user another password and end the user's sessions.

    The epoch is locked: ``lock_standing``.
    """
    return _without_sessions(uow, uow.users.change(row, password_hash=password_hash))


def end_session(uow: UnitOfWork, owner_id: str, session_id: str) -> bool:
    """End one session, with its tokens and streams; False when it was over, and nothing changes."""
    uow.epoch.lock()
    ended = uow.sessions.end(owner_id, session_id)
    if ended:
        uow.epoch.bump()
    return ended


def end_all_sessions(uow: UnitOfWork, owner_id: str) -> int:
    """End every session of a user, with its tokens and streams, and give their number."""
    uow.epoch.lock()
    ended = uow.sessions.end_all(owner_id)
    if ended:
        uow.epoch.bump()
    return ended


def check_inactive(row: Row) -> None:
    """Refuse to delete a user who is active.

    Raises:
        WrongState: the user is (USER_ACTIVE).
    """
    if row["active"]:
        raise WrongState("deactivate the user first", reason=Reason.USER_ACTIVE)


def delete_user(
    uow: UnitOfWork, row: Row, *, known: Collection[str] = (), since: dt.datetime | None = None
) -> None:
    """Delete a locked user and every row that is the user's, children before parents.

    The epoch is locked: ``lock_standing``. Of a user with very many jobs and documents most are gone by
    then (``deletions.py``): ``known`` are ids of what is, and up to ``since`` no request names any of them,
    nor what there still was then. The log's row comes last, but for what needs it.

    Raises:
        WrongState: the user is active (USER_ACTIVE).
    """
    check_inactive(row)
    owner = row["id"]
    gone = {owner, *known, *uow.requests.lock_things_of(owner)}
    uow.requests.forget_about(gone, since)  # as nobody can do more to them from here on
    uow.settings.delete_all(owner)
    uow.job_forgetting.workers(owner)
    uow.queue.turns.delete_all(owner)
    uow.workers.delete_all(owner)
    uow.grants.delete_all(owner)
    uow.api_keys.delete_all(owner)
    uow.key_forgetting.places(gone)
    uow.sessions.delete_all(owner)
    uow.resets.forget(owner, row["email"])
    uow.requests.delete_all(owner)
    uow.quotas.delete_all(owner)
    uow.audit.forget(owner)  # what the user did stays, and no longer says who it was
    uow.jobs.delete_all(owner)
    uow.documents.delete_all(owner)
    uow.databases.delete_all(owner)
    uow.servers.delete_all(owner)
    uow.epoch.bump()
    uow.job_forgetting.floor(owner)
    uow.users.delete(owner)


def lock_standing(uow: UnitOfWork, reach: str, user_id: str) -> Row:
    """Lock the epoch and then a user in reach, in the one order in which everybody does.

    Raises:
        NotFound: there is no such user, or it is somebody else.
    """
    uow.epoch.lock()
    return uow.users.lock(reach, user_id)


def _check_not_last_admin(uow: UnitOfWork, row: Row) -> None:
    if row["role"] == Role.ADMIN.name and row["active"]:
        check_admin_remains(uow.users.other_active_admins(row["id"]))


def _without_sessions(uow: UnitOfWork, row: Row) -> Row:
    uow.sessions.end_all(row["id"])
    uow.resets.void(row["id"])
    uow.epoch.bump()
    return row
