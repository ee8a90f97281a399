"""ExportService: what its call does.

Each page is read in a unit of work of its own, so that however slowly a client reads, it holds no
transaction and no connection. What is read, and what is withheld, stands in ``store.py``.
"""

from __future__ import annotations

from typing import Final

from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.exports.convert import row_to_proto
from morag_meta.exports.store import TABLES
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import streams
from morag_meta.rpc.stream import Stream
from moragmeta.v1 import exports_pb2 as pb

_PAGE: Final = 100


class ExportServicer:
    """What is kept of a user; see ``protos/moragmeta/v1/exports.proto``."""

    SERVICE = "moragmeta.v1.ExportService"

    def __init__(self, database: Database) -> None:
        """Take the database to read."""
        self._database = database

    @streams
    async def ExportUserData(self, request: pb.ExportUserDataRequest, call: Call, stream: Stream) -> None:
        wanted = call.user_named(request.owner_id or "me")
        user = await self._database.read(lambda uow: uow.users.get(call.whole_reach, wanted), point=True)
        for table in TABLES:
            await self._send(stream, user["id"], table)

    async def _send(self, stream: Stream, owner_id: str, table: str) -> None:
        after: Row | None = None
        while True:
            rows = await self._page(owner_id, table, after)
            for row in rows:
                await stream.send(row_to_proto(table, row).SerializeToString())
            if len(rows) < _PAGE:
                return
            after = rows[-1]

    async def _page(self, owner_id: str, table: str, after: Row | None) -> list[Row]:
        return await self._database.read(lambda uow: uow.exports.page(owner_id, table, after, _PAGE))
