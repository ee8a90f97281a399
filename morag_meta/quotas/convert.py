"""Quotas and what is used of them between rows and messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from morag_meta.db.unit import Row
from morag_meta.quotas.rules import Use
from morag_meta.quotas.store import RESOURCES
from morag_meta.rpc.times import to_timestamp
from moragmeta.v1 import quotas_pb2 as pb


def etag(row: Row) -> str:
    """Give the etag of a user's limits: it says what they are, and when they were last set."""
    told = [str(row[name]) for name in (*RESOURCES, "update_time")]
    return f'"{hashlib.sha256(" ".join(told).encode()).hexdigest()[:16]}"'


def quotas_to_proto(row: Row, defaults: Mapping[str, int]) -> pb.Quotas:
    """Give the message of a user's limits, and of the limits that hold where there is none."""
    limits = {resource.value: row[resource] for resource in RESOURCES}
    time = row["update_time"]
    return pb.Quotas(
        owner_id=row["owner_id"],
        update_time=None if time is None else to_timestamp(time),
        etag=etag(row),
        defaults=pb.DefaultQuotas(**defaults) if defaults else None,
        **limits,
    )


def limits_from_proto(quotas: pb.Quotas, names: Iterable[str]) -> dict[str, int | None]:
    """Give the limits of the named fields; one that is not set is None."""
    given = {field.name: value for field, value in quotas.ListFields()}
    return {name: given.get(name) for name in names}


def usage_to_proto(owner_id: str, uses: Iterable[Use]) -> pb.Usage:
    """Give the message of what a user has."""
    given = {
        use.resource: pb.ResourceUse(
            used=use.used, limit=use.limit, near_limit=use.is_near, default_limit=use.is_default
        )
        for use in uses
    }
    return pb.Usage(owner_id=owner_id, **given)
