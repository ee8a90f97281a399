"""DatabaseService: what each call does, in the words of the stores.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

from typing import Any

from morag_meta.auth.narrowing import check_outside
from morag_meta.auth.sharing import Level
from morag_meta.databases.convert import database_to_proto
from morag_meta.databases.rules import check_childless
from morag_meta.db.unit import Row
from morag_meta.errors import invalid
from morag_meta.ids import new_id
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag
from morag_meta.rpc.masks import masked
from morag_meta.rpc.methods import reads, writes
from morag_meta.rpc.pages import Pages
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import databases_pb2 as pb


def _deletion_receipt(response: pb.DeleteDatabaseResponse) -> dict[str, Any]:
    return {"documents": response.detached_documents}


class DatabaseServicer:
    """The databases of a user; see ``protos/moragmeta/v1/databases.proto``."""

    SERVICE = "moragmeta.v1.DatabaseService"

    def __init__(self, pages: Pages) -> None:
        """Take what seals page tokens."""
        self._pages = pages

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Database:
        return database_to_proto(uow.databases.get(call.reach, receipt["id"], call.grantee(Level.READER)))

    def _replay_deletion(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.DeleteDatabaseResponse:
        return pb.DeleteDatabaseResponse(detached_documents=receipt["documents"])

    @writes(replay=_replay)
    def CreateDatabase(self, uow: UnitOfWork, request: pb.CreateDatabaseRequest, call: Call) -> pb.Database:
        reach, database = call.reach_of(request.owner_id), request.database
        if reach.narrowing is not None and not reach.narrowing.servers:
            check_outside(reach, "a new database")
        uow.servers.hold(reach, database.server_id)
        row = uow.databases.add(
            new_id(),
            reach.owner_id,
            server_id=database.server_id,
            name=database.name,
            description=database.description,
        )
        return database_to_proto(row)

    @reads(point=True)
    def GetDatabase(self, uow: UnitOfWork, request: pb.GetDatabaseRequest, call: Call) -> pb.Database:
        return database_to_proto(uow.databases.get(call.reach, request.id, call.grantee(Level.READER)))

    @reads()
    def ListDatabases(
        self, uow: UnitOfWork, request: pb.ListDatabasesRequest, call: Call
    ) -> pb.ListDatabasesResponse:
        reach = call.reach_of(request.owner_id)
        if request.shared and request.owner_id:
            raise invalid("shared", "must not be set together with owner_id")
        filters = {"server_id": request.server_id, "name_contains": request.name_contains}

        def fetch(after: Row | None, limit: int) -> list[Row]:
            if request.shared:
                narrowing = reach.narrowing
                return uow.databases.page_shared(call.own, after, limit, narrowing=narrowing, **filters)
            return uow.databases.page(reach, after, limit, **filters)

        page = self._pages.page(
            call,
            request,
            keys=("share_time" if request.shared else "create_time", "id"),
            fetch=fetch,
            convert=database_to_proto,
        )
        return pb.ListDatabasesResponse(databases=page.items, next_page_token=page.next_token)

    @writes(replay=_replay)
    def UpdateDatabase(self, uow: UnitOfWork, request: pb.UpdateDatabaseRequest, call: Call) -> pb.Database:
        names = masked(request.database, request.update_mask)
        row = uow.databases.lock(call.reach, request.database.id, call.grantee(Level.OWNER))
        check_etag(request.database.etag, row)
        if names:
            row = uow.databases.change(row, **{name: getattr(request.database, name) for name in names})
        return database_to_proto(row)

    @writes(replay=_replay_deletion, receipt=_deletion_receipt)
    def DeleteDatabase(
        self, uow: UnitOfWork, request: pb.DeleteDatabaseRequest, call: Call
    ) -> pb.DeleteDatabaseResponse:
        owner = uow.databases.get(call.reach, request.id, call.grantee(Level.OWNER))["owner_id"]
        if uow.grants.shares_any(owner):
            uow.epoch.lock()  # first of all, as a grant that goes may end streams
        uow.settings.lock(owner, owner)  # before the database, as everywhere: its deletion may change them
        database = uow.databases.lock(owner, request.id)
        check_etag(request.etag, database)
        if not request.force:
            check_childless(uow.documents.count_live(owner, database["id"]))
        detached = uow.documents.detach_all(owner, database["id"])
        uow.settings.clear_default_database(owner, database["id"])
        if uow.grants.remove_on(owner, database["id"]):
            uow.epoch.bump()
        uow.databases.remove(database)
        return pb.DeleteDatabaseResponse(detached_documents=detached)

    @writes(replay=_replay)
    def RecountDocuments(
        self, uow: UnitOfWork, request: pb.RecountDocumentsRequest, call: Call
    ) -> pb.Database:
        row = uow.databases.lock(call.reach, request.id, call.grantee(Level.OWNER))
        count = uow.documents.count_live(row["owner_id"], row["id"])
        return database_to_proto(uow.databases.set_count(row, count))
