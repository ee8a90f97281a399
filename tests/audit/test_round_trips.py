"""What the audit costs a call: a read nothing, and a change one statement at its end."""

from __future__ import annotations

import uuid
from typing import Any, Self

import sqlalchemy as sa

from moragmeta.v1 import databases_pb2, documents_pb2, servers_pb2
from tests.service import Service, User


def _document(user: User) -> documents_pb2.CreateDocumentRequest:
    server = servers_pb2.Server(name=str(uuid.uuid4()), kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    made = user.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
    database = databases_pb2.Database(name="d", server_id=made.id)
    database = user.channel.databases.CreateDatabase(databases_pb2.CreateDatabaseRequest(database=database))
    document = documents_pb2.Document(name="a.txt", type="txt", database_id=database.id)
    return documents_pb2.CreateDocumentRequest(document=document, request_id=uuid.uuid4().hex)


class _Heard:
    """The statements of the server's database that name the audit, and the number of all."""

    def __init__(self, service: Service) -> None:
        self._engine = service.app.database.engine
        self.statements: list[str] = []

    def __enter__(self) -> Self:
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        self.statements.append(statement)

    @property
    def of_audit(self) -> list[str]:
        return [statement for statement in self.statements if "audit_" in statement]


def test_reading_a_document_says_nothing_to_the_audit(service: Service, user: User) -> None:
    """GetDocument sends no statement over the audit."""
    made = user.channel.documents.CreateDocument(_document(user)).document
    service.on_loop(service.app.audit.flush())
    with _Heard(service) as heard:
        user.channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=made.id))
    assert heard.of_audit == []


def test_a_change_adds_one_statement(service: Service, user: User) -> None:
    """CreateDocument writes its row by one insert, which needs to ask nothing before."""
    request = _document(user)
    service.on_loop(service.app.audit.flush())
    with _Heard(service) as heard:
        user.channel.documents.CreateDocument(request)
    (added,) = heard.of_audit
    assert added.startswith("INSERT INTO audit_events")
