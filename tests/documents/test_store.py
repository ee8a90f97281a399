"""Documents in this process, on every kind of database."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.db.database import Database
from morag_meta.documents.actions import update_document
from morag_meta.documents.identity import OnDuplicate, Outcome
from morag_meta.documents.listing import Filter, parse_order
from morag_meta.errors import AlreadyExists, Collision, NotFound
from tests.documents.conftest import Owner, add_owner

NAMES = [
    "Report 2026.PDF",
    "report_final.pdf",
    "reportXfinal.pdf",
    "100% done.txt",
    "100 done.txt",
    "ÉTUDE.md",
    "étude.md",
    "straße [v1].txt",
    "a\\b.txt",
    "a!b.txt",
    "dot.star*.txt",
    "dotxstarr.txt",
    "K.txt",  # the Kelvin sign, which Unicode folds to k
    "k.txt",
    "日本語.pdf",
    'it\'s "quoted"; -- x',
    "curly{2}$^|()+?",
]
TEXTS = st.sampled_from(NAMES).flatmap(
    lambda name: st.tuples(st.integers(0, len(name)), st.integers(0, len(name))).map(
        lambda cut: name[min(cut) : max(cut)]
    )
)
ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def names_of(owner: Owner, **filters: Any) -> list[str]:
    """The names of the documents that pass a filter, in the order of names."""
    with owner.database.unit_of_work() as uow:
        rows = uow.documents.page(owner.id, Filter(**filters), parse_order("name"), None, 1000)
        return [row["name"] for row in rows]


def test_a_name_filter_folds_a_to_z_alone(owner: Owner) -> None:
    """On every database, letters A to Z match either case and every other character only itself."""
    for name in NAMES:
        owner.upload(name=name)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS | TEXTS.map(str.swapcase) | st.text(string.punctuation + "aA1 éÉß", min_size=1, max_size=4))
    def check(text: str) -> None:
        expected = [name for name in NAMES if text.translate(ASCII_LOWER) in name.translate(ASCII_LOWER)]
        assert names_of(owner, name_contains=text) == sorted(expected)

    check()


def test_names_are_ordered_by_code_points(owner: Owner) -> None:
    """Names are ordered by code points, upper case first (PostgreSQL being in the locale C.UTF-8 here)."""
    for name in NAMES:
        owner.upload(name=name)
    assert names_of(owner) == sorted(NAMES)


def test_texts_differ_by_case_and_by_trailing_space(owner: Owner) -> None:
    """Identities and types that differ only in case or padding are different."""
    for name in ("a.pdf", "A.pdf", "a.pdf "):
        assert owner.upload(name=name, external_id=name, type=name)[1] is Outcome.CREATED
    assert names_of(owner, types=("a.pdf",)) == ["a.pdf"]
    assert names_of(owner, external_id="A.pdf") == ["A.pdf"]


def test_a_document_is_made_without_a_server(owner: Owner) -> None:
    """A program registers a document, sees it count, and what it does not commit is not kept."""
    database_id = owner.add_database()
    row, outcome = owner.upload(database_id=database_id, metadata={"pages": 3})
    assert outcome is Outcome.CREATED
    with owner.database.unit_of_work() as uow:
        assert uow.documents.get(owner.id, row["id"])["metadata"] == {"pages": 3}
        assert uow.databases.get(owner.id, database_id)["document_count"] == 1
        update_document(uow, owner.id, row["id"], {"name": "b.pdf"})
    with owner.database.unit_of_work() as uow:
        assert uow.documents.get(owner.id, row["id"])["name"] == "a.pdf"


def test_the_winner_of_a_race_is_found_by_the_next_run(owner: Owner) -> None:
    """A row that changed since it was read, or an identity taken meanwhile, collides instead of failing."""
    row, _ = owner.upload()
    with owner.database.unit_of_work() as uow:
        uow.documents.change(row, name="b.pdf")
        uow.commit()
    with owner.database.unit_of_work() as uow, pytest.raises(Collision):
        uow.documents.change(row, name="c.pdf")
    with owner.database.unit_of_work() as uow, pytest.raises(AlreadyExists) as taken:
        uow.documents.add(owner.id, {"name": "b.pdf", "type": "pdf"})
    assert taken.value.metadata == {"resource_type": "document", "field": "name"}


@pytest.mark.parametrize("field", ["name", "external_id", "content_hash"])
def test_each_identity_is_unique_by_constraint(owner: Owner, field: str) -> None:
    """The database itself refuses a second live document with the same identity, in or out of a database."""
    database_id = owner.add_database()
    for scope in (None, database_id):
        fields = {"type": "pdf", "database_id": scope, "external_id": "e", "content_hash": "h", "name": "n"}
        with owner.database.unit_of_work() as uow:
            uow.documents.add(owner.id, fields)
            other = {key: value and f"{value}2" for key, value in fields.items() if key in ("name", field)}
            other |= {"type": "pdf", "database_id": scope, "name": "n2", field: fields[field]}
            with pytest.raises(AlreadyExists) as taken:
                uow.documents.add(owner.id, other)
        assert taken.value.metadata["field"] == field


def test_a_forced_deletion_detaches_every_document(owner: Owner) -> None:
    """Detaching takes out deleted documents too, counts the live ones, and makes no two names collide."""
    database_id = owner.add_database()
    row, _ = owner.upload(database_id=database_id)
    dead, _ = owner.upload(database_id=database_id, name="dead.pdf")
    owner.upload()
    with owner.database.unit_of_work() as uow:
        uow.documents.change(dead, state="DELETED", live_scope=None)
        assert uow.documents.count_live(owner.id, database_id) == 1
        assert uow.documents.detach_all(owner.id, database_id) == 1
        detached = uow.documents.get(owner.id, row["id"])
        assert (detached["database_id"], detached["live_scope"]) == (None, database_id)
        assert detached["revision"] == row["revision"] + 1
        assert uow.documents.get(owner.id, dead["id"])["database_id"] is None
        uow.databases.remove(uow.databases.lock(owner.id, database_id))
        uow.commit()
    assert names_of(owner, database_id="-") == ["a.pdf", "a.pdf"]
    assert owner.upload(OnDuplicate.RETURN_EXISTING)[1] is Outcome.EXISTING


def test_documents_are_reached_through_their_owner(owner: Owner, database: Database) -> None:
    """Another owner reaches none of them, everybody's reach any; deleting all deletes one owner's."""
    row, _ = owner.upload()
    with database.unit_of_work() as uow:
        stranger = add_owner(uow, "stranger@example.org")
        kept = uow.documents.add(stranger, {"name": "a.pdf", "type": "pdf"})
        for reach in (stranger, "", "%"):
            with pytest.raises(NotFound):
                uow.documents.get(reach, row["id"])
            assert uow.documents.find_many(reach, [row["id"]]) == {}
        assert uow.documents.get("-", row["id"])["id"] == row["id"]
        newest = parse_order("")
        assert len(uow.documents.page("-", Filter(), newest, None, 10)) == 2
        assert [row["id"] for row in uow.documents.page(stranger, Filter(), newest, None, 10)] == [kept["id"]]
        assert uow.documents.delete_all(owner.id) == 1
        assert uow.documents.get("-", kept["id"])["id"] == kept["id"]
