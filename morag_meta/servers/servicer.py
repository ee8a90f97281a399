"""ServerService: what each call does, in the words of the stores.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from morag_meta.auth.credentials import CredentialRing
from morag_meta.ids import new_id
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag
from morag_meta.rpc.masks import masked
from morag_meta.rpc.methods import reads, writes
from morag_meta.rpc.pages import Pages
from morag_meta.servers.convert import kind_name, server_from_proto, server_to_proto
from morag_meta.servers.rules import check_childless, check_connect_time
from morag_meta.servers.secrets import SECRETS, seal
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import servers_pb2 as pb

_ON_CREATE = (
    *("name", "kind", "host", "port", "username", *SECRETS),
    *("default_database", "default_collection", "active", "last_connect_time", "config"),
)


def _deletion_receipt(response: pb.DeleteServerResponse) -> dict[str, Any]:
    return {"databases": response.deleted_databases, "documents": response.detached_documents}


class ServerServicer:
    """The servers of a user; see ``protos/moragmeta/v1/servers.proto``."""

    SERVICE = "moragmeta.v1.ServerService"

    def __init__(self, pages: Pages, credentials: Callable[[], CredentialRing]) -> None:
        """Take what seals page tokens, and what gives the ring that seals secrets."""
        self._pages = pages
        self._credentials = credentials

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Server:
        return server_to_proto(uow.servers.get(call.reach, receipt["id"]))

    def _replay_deletion(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.DeleteServerResponse:
        return pb.DeleteServerResponse(
            deleted_databases=receipt["databases"], detached_documents=receipt["documents"]
        )

    @writes(replay=_replay)
    def CreateServer(self, uow: UnitOfWork, request: pb.CreateServerRequest, call: Call) -> pb.Server:
        owner, id = call.owner_for(request.owner_id), new_id()
        values = server_from_proto(request.server, _ON_CREATE)
        check_connect_time(values["last_connect_time"], uow.now)
        return server_to_proto(uow.servers.add(id, owner, **seal(self._credentials(), id, values)))

    @reads(point=True)
    def GetServer(self, uow: UnitOfWork, request: pb.GetServerRequest, call: Call) -> pb.Server:
        return server_to_proto(uow.servers.get(call.reach, request.id))

    @reads()
    def ListServers(
        self, uow: UnitOfWork, request: pb.ListServersRequest, call: Call
    ) -> pb.ListServersResponse:
        owner = call.reach_of(request.owner_id)
        kinds = [kind_name(kind, f"kinds[{place}]") for place, kind in enumerate(request.kinds)]
        active = request.active if request.HasField("active") else None
        page = self._pages.page(
            call,
            request,
            keys=("create_time", "id"),
            fetch=lambda after, limit: uow.servers.page(
                owner, after, limit, kinds=kinds, active=active, name_contains=request.name_contains
            ),
            convert=server_to_proto,
        )
        return pb.ListServersResponse(servers=page.items, next_page_token=page.next_token)

    @writes(replay=_replay)
    def UpdateServer(self, uow: UnitOfWork, request: pb.UpdateServerRequest, call: Call) -> pb.Server:
        values = server_from_proto(request.server, masked(request.server, request.update_mask))
        check_connect_time(values.get("last_connect_time"), uow.now)
        row = uow.servers.lock(call.reach, request.server.id)
        check_etag(request.server.etag, row)
        if values:
            row = uow.servers.change(row, **seal(self._credentials(), row["id"], values))
        return server_to_proto(row)

    @writes(replay=_replay_deletion, receipt=_deletion_receipt)
    def DeleteServer(
        self, uow: UnitOfWork, request: pb.DeleteServerRequest, call: Call
    ) -> pb.DeleteServerResponse:
        if request.force:  # a database's deletion may change the settings, which are locked first
            owner = uow.servers.get(call.reach, request.id)["owner_id"]
            if uow.grants.shares_any(owner):
                uow.epoch.lock()  # first of all, as a grant that goes may end streams
            uow.settings.lock(owner, owner)
        server = uow.servers.lock(call.reach, request.id)
        check_etag(request.etag, server)
        owner = server["owner_id"]
        if not request.force:
            check_childless(uow.databases.count_on_server(owner, server["id"]))
        databases = uow.databases.lock_on_server(owner, server["id"])
        detached = revoked = 0
        for database in databases:
            detached += uow.documents.detach_all(owner, database["id"])
            uow.settings.clear_default_database(owner, database["id"])
            revoked += uow.grants.remove_on(owner, database["id"])
            uow.databases.remove(database)
        if revoked:
            uow.epoch.bump()
        uow.servers.remove(server)
        return pb.DeleteServerResponse(deleted_databases=len(databases), detached_documents=detached)
