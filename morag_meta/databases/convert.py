"""Databases from rows to messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.times import to_timestamp
from moragmeta.v1 import databases_pb2 as pb
from moragmeta.v1 import grants_pb2


def database_to_proto(row: Mapping[str, Any]) -> pb.Database:
    """Give the message of a row."""
    level = row.get("granted_level")  # there only where a grant made it reachable
    return pb.Database(
        id=row["id"],
        owner_id=row["owner_id"],
        server_id=row["server_id"],
        name=row["name"],
        description=row["description"],
        document_count=row["document_count"],
        content_update_time=to_timestamp(row["content_update_time"]),
        etag=etag_of(row),
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
        granted_level=grants_pb2.GrantLevel.Value(f"GRANT_LEVEL_{level or 'UNSPECIFIED'}"),
    )
