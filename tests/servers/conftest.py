"""Servers as tests make them over the wire."""

from __future__ import annotations

from typing import Any

from moragmeta.v1 import servers_pb2 as pb
from tests.service import User


def a_server(**fields: Any) -> pb.Server:
    """Give a message with what a server needs, and whatever else is wanted."""
    needed: dict[str, Any] = {
        "name": "main",
        "kind": pb.SERVER_KIND_QDRANT,
        "host": "qdrant.example.org",
        "port": 6333,
    }
    return pb.Server(**(needed | fields))


def create(user: User, **fields: Any) -> pb.Server:
    """Make a server."""
    created: pb.Server = user.channel.servers.CreateServer(pb.CreateServerRequest(server=a_server(**fields)))
    return created


def get(user: User, id: str) -> pb.Server:
    """Read a server."""
    found: pb.Server = user.channel.servers.GetServer(pb.GetServerRequest(id=id))
    return found


def update(user: User, server: pb.Server, *paths: str, request_id: str = "") -> pb.Server:
    """Change the fields that the paths name, or every populated one."""
    request = pb.UpdateServerRequest(server=server, request_id=request_id)
    request.update_mask.paths.extend(paths)
    changed: pb.Server = user.channel.servers.UpdateServer(request)
    return changed


def delete(
    user: User, id: str, *, etag: str = "", force: bool = False, request_id: str = ""
) -> tuple[int, int]:
    """Delete a server; give the numbers of deleted databases and detached documents."""
    request = pb.DeleteServerRequest(id=id, etag=etag, force=force, request_id=request_id)
    response: pb.DeleteServerResponse = user.channel.servers.DeleteServer(request)
    return response.deleted_databases, response.detached_documents
