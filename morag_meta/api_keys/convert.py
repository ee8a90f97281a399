"""API keys between rows and messages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from morag_meta.api_keys.rules import DEFAULT_GRACE, EVERY_SCOPE, LONGEST_GRACE, state_of
from morag_meta.auth.addresses import address_of
from morag_meta.auth.narrowing import Narrowing
from morag_meta.auth.principal import Principal, Rate
from morag_meta.auth.rates import Allowance
from morag_meta.auth.standing import limit_of
from morag_meta.db.unit import Row
from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.times import from_duration, from_timestamp, to_duration, to_timestamp, write_time
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import options_pb2

_STATE = "API_KEY_STATE_"
_VERDICT = "API_KEY_VERDICT_"
_NOT_NARROWED = Narrowing()


def key_to_proto(row: Row, now: dt.datetime) -> pb.ApiKey:
    """Give a key's message, with its state at ``now``; no secret is in it."""
    return pb.ApiKey(
        id=row["id"],
        owner_id=row["owner_id"],
        etag=etag_of(row),
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
        name=row["name"],
        description=row["description"],
        key_prefix=row["key_prefix"],
        scopes=row["scopes"],
        state=pb.ApiKeyState.Value(_STATE + state_of(row, now)),
        expire_time=to_timestamp(row["expire_time"]),
        revoke_time=to_timestamp(row["revoke_time"]),
        last_used_time=to_timestamp(row["last_used_time"]),
        use_count=row["use_count"],
        disable_time=to_timestamp(row["disable_time"]),
        predecessor_id=row["predecessor_id"] or "",
        successor_id=row["successor_id"] or "",
        allowed_addresses=row["allowed_addresses"] or (),
        rate_limit=_limit_to_proto(limit_of(row)),
        database_ids=row["database_ids"] or (),
        server_ids=row["server_ids"] or (),
    )


def principal_to_proto(principal: Principal, peer: str) -> pb.Principal:
    """Give the message of a caller at gRPC's ``peer``."""
    narrowing = principal.narrowing or _NOT_NARROWED
    return pb.Principal(
        user_id=principal.user_id,
        role=_role(principal),
        key_id=principal.key_id,
        session_id=principal.session_id,
        scopes=_scopes(principal),
        expire_time=to_timestamp(principal.expire_time),
        address=address_of(peer),
        database_ids=narrowing.databases,
        server_ids=narrowing.servers,
    )


def verdict_to_proto(
    verdict: str, holder: Principal | None, allowance: Allowance | None
) -> pb.VerifyApiKeyResponse:
    """Give the message of what is known of a key, whose it is where that may be told, and what is left."""
    response = pb.VerifyApiKeyResponse(verdict=pb.ApiKeyVerdict.Value(_VERDICT + verdict))
    if holder is not None:
        response.key_id, response.owner_id = holder.key_id, holder.user_id
        response.owner_role = _role(holder)
        response.scopes.extend(_scopes(holder))
        narrowing = holder.narrowing or _NOT_NARROWED
        response.database_ids.extend(narrowing.databases)
        response.server_ids.extend(narrowing.servers)
        if holder.expire_time is not None:
            write_time(response.expire_time, holder.expire_time)
    if allowance is not None:
        response.rate_limit.per_second = allowance.limit.per_second
        response.rate_limit.burst = allowance.limit.burst
        response.remaining_calls = allowance.left
    return response


def usage_to_proto(days: Sequence[Row], methods: Sequence[Row]) -> pb.ApiKeyUsage:
    """Give the message of a key's calls, which are summed up by day and by method."""
    return pb.ApiKeyUsage(
        total=_figures(days),
        days=[pb.DayOfCalls(day=to_timestamp(row["day"]), figures=_figures([row])) for row in days],
        methods=[pb.MethodOfCalls(method=row["method"], figures=_figures([row])) for row in methods],
    )


def _figures(rows: Sequence[Row]) -> pb.CallFigures:
    count = sum(row["calls"] for row in rows)
    total, longest = sum(row["total_us"] for row in rows), max((row["longest_us"] for row in rows), default=0)
    return pb.CallFigures(
        call_count=count,
        error_count=sum(row["errors"] for row in rows),
        mean_latency=to_duration(total / count / 1000 if count else None),
        max_latency=to_duration(longest / 1000 if count else None),
    )


def limit_from_proto(key: pb.ApiKey) -> Rate | None:
    """Give the limit that a key shall have of its own, to a thousandth of a call per second."""
    if not key.HasField("rate_limit"):
        return None
    return Rate.of(round(key.rate_limit.per_second, 3), key.rate_limit.burst)


def end_from_proto(key: pb.ApiKey) -> dt.datetime | None:
    """Give when a key shall end, None for never."""
    return from_timestamp(key.expire_time) if key.HasField("expire_time") else None


def grace_from_proto(request: pb.RotateApiKeyRequest) -> dt.timedelta:
    """Give how long a replaced key goes on, to the millisecond.

    Raises:
        Invalid: it is negative, or longer than the longest.
    """
    milliseconds = from_duration(request, "grace", path="", least=0, most=LONGEST_GRACE.total_seconds())
    return DEFAULT_GRACE if milliseconds is None else dt.timedelta(milliseconds=milliseconds)


def _limit_to_proto(limit: Rate | None) -> pb.RateLimit | None:
    return None if limit is None else pb.RateLimit(per_second=limit.per_second, burst=limit.burst)


def _role(principal: Principal) -> options_pb2.Role.ValueType:
    return options_pb2.Role.Value("ROLE_" + principal.role.name)


def _scopes(principal: Principal) -> list[str]:
    return [EVERY_SCOPE] if principal.scopes is None else sorted(principal.scopes)
