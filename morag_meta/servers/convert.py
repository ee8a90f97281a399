"""Servers between rows and messages.

Secrets go one way: a message's become values to be sealed, and a row's are only said to be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from morag_meta.errors import invalid
from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.structs import json_to_struct, struct_to_json
from morag_meta.rpc.times import from_timestamp, to_timestamp
from moragmeta.v1 import servers_pb2 as pb

_PREFIX: Final = "SERVER_KIND_"


def server_to_proto(row: Mapping[str, Any]) -> pb.Server:
    """Give the message of a row, without its secrets."""
    return pb.Server(
        id=row["id"],
        owner_id=row["owner_id"],
        name=row["name"],
        kind=pb.ServerKind.Value(_PREFIX + row["kind"]),
        host=row["host"],
        port=row["port"],
        username=row["username"],
        has_password=row["password_sealed"] is not None,
        has_api_key=row["api_key_sealed"] is not None,
        default_database=row["default_database"],
        default_collection=row["default_collection"],
        active=row["active"],
        last_connect_time=to_timestamp(row["last_connect_time"]),
        config=json_to_struct(row["config"]),
        etag=etag_of(row),
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
    )


def server_from_proto(server: pb.Server, names: Iterable[str]) -> dict[str, Any]:
    """Give the values of the named fields; what is empty where absence is allowed is None.

    Raises:
        Invalid: the config breaks a limit, or the kind is not given.
    """
    return {name: _value(server, name) for name in names}


def kind_name(kind: pb.ServerKind.ValueType, field: str) -> str:
    """Give a kind as it is stored.

    Raises:
        Invalid: it is unspecified.
    """
    if kind == pb.SERVER_KIND_UNSPECIFIED:
        raise invalid(field, "must be a kind of server")
    return pb.ServerKind.Name(kind).removeprefix(_PREFIX)


def _value(server: pb.Server, name: str) -> Any:
    if name == "kind":
        return kind_name(server.kind, "server.kind")
    if name == "config":
        return struct_to_json(server.config, "server.config")
    if name == "last_connect_time":
        return from_timestamp(server.last_connect_time) if server.HasField("last_connect_time") else None
    value = getattr(server, name)
    return None if value == "" and _has_presence(server, name) else value


def _has_presence(message: Message, name: str) -> bool:
    return message.DESCRIPTOR.fields_by_name[name].has_presence
