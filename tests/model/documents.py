"""The model of documents."""

from __future__ import annotations

from typing import Any, Final

from tests.model.jobs import end, open_ingestion
from tests.model.places import database_for
from tests.model.steps import Refused, Step, denied, missing, present, stuck, taken
from tests.model.things import READER, WRITER, Document
from tests.model.world import Given, Principal, World, check_etag, of, rule

_IDENTITIES: Final = ("external_id", "content_hash", "name")
NO_DATABASE: Final = "-"


def shown(document: Document) -> dict[str, Any]:
    """Give what is shown of a document."""
    return present(
        id=document.id,
        owner_id=document.owner,
        database_id=document.database,
        name=document.name,
        type="pdf",
        external_id=document.external_id,
        content_hash=document.content_hash,
        state=document.state,
        version=document.version,
        ingested_version=document.ingested_version,
        chunks=document.chunks,
        quality=document.quality,
        last_error=document.last_error,
        deprecation_reason=document.reason,
        deprecate_time=document.deprecated,
        ingest_time=document.ingested_version > 0,
        delete_time=document.state == "DELETED",
        size_bytes=document.size,
    )


def document_for(world: World, label: str, caller: Principal, needs: int) -> Document:
    """Give a document that the caller has, or by a grant on the database that it is in."""
    return world.shared(world.documents, label, caller, needs, lambda document: document.database)


@rule("CreateDocument")
def _create(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return _created(world, caller, given.get("owner_id", ""), given, step.made)


@rule("BatchCreateDocuments")
def _create_many(world: World, caller: Principal, given: Given, step: Step) -> Any:
    """Create all or none, each after those before it."""
    before = world.kept()
    owner = given.get("owner_id", "")
    try:
        made = zip(given["requests"], step.all_made, strict=True)
        return {"responses": [_created(world, caller, owner, each, label) for each, label in made]}
    except Refused:
        world.restore(before)
        raise


def _created(world: World, caller: Principal, owner_id: str, given: Given, made: str) -> dict[str, Any]:
    sent = given["document"]
    owner = world.owner_of_list(caller, owner_id)
    label = sent.get("database_id", "")
    if label:
        owner = _owner_of_place(world, label, caller, owner)
    if owner not in world.users:
        raise missing()
    same = _same(world, owner, label or NO_DATABASE, sent)
    if same is None:
        document = Document(made, owner, label, label or NO_DATABASE, sent["name"])
        document.external_id, document.content_hash = (
            sent.get("external_id", ""),
            sent.get("content_hash", ""),
        )
        _set_size(world, document, sent)
        world.documents[document.id] = document
        return {"document": shown(document), "outcome": "CREATED"}
    wish = given.get("on_duplicate", "ON_DUPLICATE_REJECT").removeprefix("ON_DUPLICATE_")
    if wish == "REJECT":
        raise taken()
    content_hash = sent.get("content_hash", "")
    if wish == "RETURN_EXISTING" or (content_hash and content_hash == same.content_hash):
        return {"document": shown(same), "outcome": "EXISTING"}
    _refuse_taken(world, same, {**sent, "external_id": sent.get("external_id", "") or same.external_id})
    _renew(world, same, sent)
    return {"document": shown(same), "outcome": "NEW_VERSION"}


def _owner_of_place(world: World, label: str, caller: Principal, owner: str) -> str:
    """Give whose a document in a database becomes: the owner's, or of who shares it for writing."""
    database = world.databases.get(label)
    if database is not None and database.owner == owner:
        return owner
    if caller.is_admin:
        raise missing()
    return database_for(world, label, caller, WRITER)[0].owner


def _live_with(world: World, owner: str, scope: str, field: str, value: str) -> Document | None:
    for document in world.documents.values():
        is_there = document.owner == owner and document.scope == scope and document.state != "DELETED"
        if is_there and value and getattr(document, field) == value:
            return document
    return None


def _same(world: World, owner: str, scope: str, sent: Given) -> Document | None:
    """Give the live document that an upload is about; two different ones are refused."""
    matches = [_live_with(world, owner, scope, field, sent.get(field, "")) for field in _IDENTITIES]
    found = [match for match in matches if match is not None]
    if any(match is not found[0] for match in found):
        raise taken()
    return found[0] if found else None


def _refuse_taken(world: World, document: Document, new: Given, scope: str = "") -> None:
    for field in _IDENTITIES:
        other = _live_with(world, document.owner, scope or document.scope, field, new.get(field, ""))
        if other is not None and other is not document:
            raise taken()


def _renew(world: World, document: Document, sent: Given) -> None:
    document.version += 1
    _cancel_ingestion(world, document, f"superseded by version {document.version}")
    document.state, document.before_ingestion, document.last_error = "PENDING", "", ""
    document.name, document.content_hash = sent["name"], sent.get("content_hash", "")
    _set_size(world, document, sent)
    document.external_id = sent.get("external_id", "") or document.external_id


def _set_size(world: World, document: Document, sent: Given) -> None:
    size = sent.get("size_bytes", 0)
    if size > document.size:
        world.added.add((document.owner, "storage_bytes"))
    document.size = size


def _cancel_ingestion(world: World, document: Document, summary: str) -> None:
    job = open_ingestion(world, document.id)
    if job is not None:
        end(world, job, "CANCELLED", summary=summary)


@rule("GetDocument")
def _get(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return shown(document_for(world, given["id"], caller, READER))


@rule("BatchGetDocuments")
def _get_many(world: World, caller: Principal, given: Given, step: Step) -> Any:
    found, absent = [], []
    for label in dict.fromkeys(given["ids"]):
        try:
            found.append(shown(document_for(world, label, caller, READER)))
        except Refused:
            absent.append(label)
    return present(documents=found, missing_ids=absent)


@rule("ListDocuments")
def _list(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner, place = world.owner_of_list(caller, given.get("owner_id", "")), given.get("database_id", "")

    def page(whose: str) -> list[dict[str, Any]]:
        return [
            shown(document)
            for document in of(whose, world.documents.values())
            if (given.get("show_deleted") or document.state != "DELETED")
            and (not place or document.database == place.removeprefix(NO_DATABASE))
        ]

    own = page(owner)
    is_shared = not own and place not in ("", NO_DATABASE) and world.level(place, caller) > 0
    return page(world.databases[place].owner) if is_shared else own


@rule("UpdateDocument")
def _update(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["document"]
    document = document_for(world, sent["id"], caller, WRITER)
    place, moves = sent.get("database_id", ""), "databaseId" in given["update_mask"]
    destination = world.databases.get(place)
    if moves and place and (destination is None or destination.owner != document.owner):
        raise missing()
    is_shared = not (caller.is_admin or document.owner == caller.user)
    if is_shared and moves and place != document.database:
        if not place:
            raise denied("GRANT_TOO_LOW")
        database_for(world, place, caller, WRITER)
    check_etag(sent)
    if document.state == "DELETED":
        raise stuck()
    scope = (place or NO_DATABASE) if moves and place != document.database else document.scope
    name = sent["name"] if "name" in given["update_mask"] else document.name
    new = {"name": name, "external_id": document.external_id, "content_hash": document.content_hash}
    if scope != document.scope or name != document.name:
        _refuse_taken(world, document, new, scope)
    document.name, document.scope = name, scope
    if "sizeBytes" in given["update_mask"]:
        _set_size(world, document, sent)
    document.database = place if moves else document.database
    return shown(document)


@rule("DeprecateDocument")
def _deprecate(world: World, caller: Principal, given: Given, step: Step) -> Any:
    document = document_for(world, given["id"], caller, WRITER)
    check_etag(given)
    if document.state != "INGESTED":
        raise stuck()
    document.state, document.reason, document.deprecated = "DEPRECATED", given.get("reason", ""), True
    return shown(document)


@rule("ReinstateDocument")
def _reinstate(world: World, caller: Principal, given: Given, step: Step) -> Any:
    document = document_for(world, given["id"], caller, WRITER)
    check_etag(given)
    if document.state != "DEPRECATED":
        raise stuck()
    document.state, document.reason, document.deprecated = "INGESTED", "", False
    return shown(document)


@rule("DeleteDocument")
def _delete(world: World, caller: Principal, given: Given, step: Step) -> Any:
    document = document_for(world, given["id"], caller, WRITER)
    check_etag(given)
    if document.state == "DELETED":
        raise stuck()
    _cancel_ingestion(world, document, "the document was deleted")
    document.before_deletion = "PENDING" if document.state == "INGESTING" else document.state
    document.state, document.before_ingestion = "DELETED", ""
    return shown(document)


@rule("UndeleteDocument")
def _undelete(world: World, caller: Principal, given: Given, step: Step) -> Any:
    document = document_for(world, given["id"], caller, WRITER)
    check_etag(given)
    if document.state != "DELETED":
        raise Refused("ALREADY_EXISTS", "NOT_DELETED")
    scope = document.database or NO_DATABASE
    own = {field: getattr(document, field) for field in _IDENTITIES}
    _refuse_taken(world, document, own, scope)
    document.state, document.scope = document.before_deletion, scope
    return shown(document)
