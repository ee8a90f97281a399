"""Grants between rows and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morag_meta.errors import invalid
from morag_meta.rpc.times import to_timestamp
from moragmeta.v1 import grants_pb2 as pb

_PREFIX = "GRANT_LEVEL_"


def grant_to_proto(row: Mapping[str, Any]) -> pb.Grant:
    """Give the message of a row."""
    return pb.Grant(
        database_id=row["database_id"],
        owner_id=row["owner_id"],
        grantee_id=row["grantee_id"],
        level=level_to_proto(row["level"]),
        grantor_id=row["grantor_id"] or "",
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
    )


def level_to_proto(name: str) -> pb.GrantLevel.ValueType:
    """Give the number of a level by its name in the database."""
    return pb.GrantLevel.Value(_PREFIX + name)


def level_name(number: pb.GrantLevel.ValueType) -> str:
    """Give the name of a level as it is kept.

    Raises:
        Invalid: it is none.
    """
    if number == pb.GRANT_LEVEL_UNSPECIFIED:
        raise invalid("level", "is required")
    return pb.GrantLevel.Name(number).removeprefix(_PREFIX)
