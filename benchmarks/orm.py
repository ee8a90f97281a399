"""The ORM way: ``Session.get`` in a transaction on an engine with every default, as it is usually written."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, registry

from morag_meta.db.engine import DatabaseOptions, make_engine
from morag_meta.db.lanes import Lane, Worker
from morag_meta.db.schema import documents
from morag_meta.db.url import normalize
from morag_meta.documents.convert import document_to_proto
from moragmeta.v1 import documents_pb2


class Document:
    """An entity of the table of documents."""

    id: str
    owner_id: str

    def __getitem__(self, name: str) -> Any:
        """Give an attribute as a row would, so that both are made into messages by the same code."""
        return getattr(self, name)


registry().map_imperatively(Document, documents)


class OrmDriver:
    """The data path of the ORM's rival; where the service reads at once, so does it."""

    def __init__(self, options: DatabaseOptions) -> None:
        """Prepare a lane of the same size as the service's."""
        self._inline = options.dialect == "sqlite"
        arguments: dict[str, Any] = {"connect_args": {"check_same_thread": False}} if self._inline else {}
        self._engine = sa.create_engine(normalize(options.url), pool_size=options.connections, **arguments)
        self._lane = Lane("orm", make_engine(options), options, threads=options.connections)

    async def get_document(self, reach: str, id: str) -> documents_pb2.Document:
        """Read one document by its key."""

        def read(worker: Worker | None) -> documents_pb2.Document:
            del worker  # only its thread is used
            with Session(self._engine) as session, session.begin():
                document = session.get(Document, id)
                if document is None or reach not in ("-", document.owner_id):
                    raise LookupError(id)
                return document_to_proto(document)  # type: ignore[arg-type]

        return read(None) if self._inline else await self._lane.submit(read, None)
