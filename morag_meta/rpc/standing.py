"""Who calls, as it stands in the very transaction of a change that would outlive its standing.

What is known of a caller may be some seconds old where its key, session, role or user was changed in another
process (``auth/epoch.py``). What it may still do meanwhile is read and write ordinary rows. It must not give,
keep or take power, which would undo the loss, or go on when the caller is gone: users, passwords, sessions,
keys, grants, quotas. So every method that does such a thing proves its caller anew, one that is a single
transaction by ``writes(stands=True)`` (``rpc/methods.py``), one that opens its own by calling ``prove`` first
in the transaction that changes something.
"""

from __future__ import annotations

from morag_meta.auth.authenticator import check_address, refused
from morag_meta.auth.standing import standing_of
from morag_meta.rpc.access import access_named, check_access
from morag_meta.rpc.call import Call
from morag_meta.uow import UnitOfWork


def prove(uow: UnitOfWork, call: Call) -> None:
    """Let a call go on as the caller that it is in this transaction, in which nobody takes that away.

    The epoch is locked, before everything but a request id: whoever takes standing away locks it too, and so
    has committed, and is seen here, or comes after this change. The call then reaches what this caller does.

    Raises:
        Unauthenticated: its key, session or user no longer stands (CREDENTIAL_INVALID).
        Forbidden: its role, scopes, narrowing or addresses no longer allow the method.
    """
    uow.epoch.lock()
    known = call.principal
    end = None if known.key_id else known.expire_time  # an access token's own end, before its session's
    standing = standing_of(uow.standings.of_principal(known), end, uow.now)
    present = standing.principal
    if present is None:
        raise refused(standing.holder)
    check_address(present, call.peer)
    check_access(access_named(call.method), present)
    call.principal = present
