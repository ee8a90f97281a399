"""Exports: everything of oneself, and nothing of anybody else."""

from __future__ import annotations

import json
from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import Caller
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from moragmeta.v1 import exports_pb2 as pb

AREA = Area("exports")


def _export(caller: Caller, owner_id: str = "") -> list[tuple[str, dict[str, Any]]]:
    answers = caller.exports.ExportUserData(pb.ExportUserDataRequest(owner_id=owner_id))
    return [(answer.table, json.loads(answer.json)) for answer in answers]


@AREA.admin_case
def an_export_holds_what_is_the_users(bench: Bench) -> None:
    """A session exports its user's own rows as JSON, each once, and without the password of a server."""
    password = bench.secret()
    server = bench.add_server(password=password)
    document = bench.add_document()
    caller = bench.bearer(bench.login(bench.me).access_token)
    rows = _export(caller)
    told = [row["id"] for table, row in rows if table in ("users", "servers", "documents")]
    for what, id in (("the user", bench.me.id), ("the server", server.id), ("the document", document.id)):
        same(f"how often {what} is told", told.count(id), 1)
    owners = {row["id"] if table == "users" else row.get("owner_id") for table, row in rows}
    same("whose the rows are", owners, {bench.me.id})
    holds("no password", fact=password not in json.dumps(rows), seen="one")


@AREA.admin_case
def nobody_exports_what_is_anothers(bench: Bench) -> None:
    """Another user's data are NOT_FOUND, and an API key exports nothing, not even an ADMIN's."""
    caller = bench.bearer(bench.login(bench.me).access_token)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="user"):
        _export(caller, bench.other.id)
    for keyed in (bench.mine, bench.admin):
        with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
            _export(keyed, bench.me.id)
