"""Uploads of one document by many at once, over the wire."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import grpc
import pytest

from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    CREATED,
    EXISTING,
    IDENTITIES,
    INSIDE,
    NEW_VERSION,
    count_of,
    get,
    request,
    scope,
    upload,
)
from tests.service import User

THREADS = 16


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """What sixteen threads get that do the work at the same time; a refusal is its status code."""
    barrier = Barrier(THREADS)

    def run(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


@INSIDE
@pytest.mark.parametrize("field", IDENTITIES)
def test_of_many_uploads_at_once_one_creates_and_the_others_are_rejected(
    user: User, field: str, inside: bool
) -> None:
    """REJECT: exactly one document, and fifteen ALREADY_EXISTS."""
    where = scope(user, inside=inside)
    answers = at_once(
        lambda number: upload(user, **{**where, "name": f"{number}.pdf", field: "same"}).outcome
    )
    assert Counter(answers) == {CREATED: 1, grpc.StatusCode.ALREADY_EXISTS: THREADS - 1}
    assert not inside or count_of(user, where["database_id"]) == 1


@INSIDE
@pytest.mark.parametrize("field", IDENTITIES)
def test_of_many_uploads_at_once_all_get_the_one(user: User, field: str, inside: bool) -> None:
    """RETURN_EXISTING: one CREATED, fifteen EXISTING, all with the same id."""
    where = scope(user, inside=inside)
    choice = pb.ON_DUPLICATE_RETURN_EXISTING
    answers = at_once(
        lambda number: upload(user, choice, **{**where, "name": f"{number}.pdf", field: "same"})
    )
    assert Counter(answer.outcome for answer in answers) == {CREATED: 1, EXISTING: THREADS - 1}
    assert len({answer.document.id for answer in answers}) == 1
    assert not inside or count_of(user, where["database_id"]) == 1


@INSIDE
@pytest.mark.parametrize("field", IDENTITIES[:2])
def test_of_many_uploads_at_once_each_is_a_version(user: User, field: str, inside: bool) -> None:
    """NEW_VERSION: one CREATED, fifteen versions after it, each number once."""
    where = scope(user, inside=inside)
    choice = pb.ON_DUPLICATE_NEW_VERSION
    answers = at_once(
        lambda number: upload(
            user, choice, **{**where, "name": f"{number}.pdf", field: "same", "content_hash": f"h{number}"}
        )
    )
    assert Counter(answer.outcome for answer in answers) == {CREATED: 1, NEW_VERSION: THREADS - 1}
    assert len({answer.document.id for answer in answers}) == 1
    assert sorted(answer.document.version for answer in answers) == list(range(1, THREADS + 1))
    assert get(user, answers[0].document.id).version == THREADS
    assert not inside or count_of(user, where["database_id"]) == 1


def test_equal_content_at_once_is_one_version(user: User) -> None:
    """NEW_VERSION with one hash: one creates, the others find nothing new."""
    choice = pb.ON_DUPLICATE_NEW_VERSION
    answers = at_once(lambda number: upload(user, choice, name=f"{number}.pdf", content_hash="h"))
    assert Counter(answer.outcome for answer in answers) == {CREATED: 1, EXISTING: THREADS - 1}
    assert {answer.document.version for answer in answers} == {1}


@INSIDE
def test_batches_at_once_create_each_document_once(user: User, inside: bool) -> None:
    """Sixteen batches of the same documents, in different orders, create each of them once."""
    where = scope(user, inside=inside)
    names = [f"{number}.pdf" for number in range(4)]
    orders = list(itertools.permutations(names))

    def send(number: int) -> list[Any]:
        items = [request(pb.ON_DUPLICATE_RETURN_EXISTING, name=name, **where) for name in orders[number]]
        sent = pb.BatchCreateDocumentsRequest(requests=items)
        return [
            (answer.document.name, answer.outcome)
            for answer in user.channel.documents.BatchCreateDocuments(sent).responses
        ]

    answers = Counter(itertools.chain.from_iterable(at_once(send)))
    assert answers == {(name, CREATED): 1 for name in names} | {(name, EXISTING): 15 for name in names}
    assert not inside or count_of(user, where["database_id"]) == len(names)
