"""That walks find what is wrong: each mistake is made on purpose, found, and shown in a few steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from morag_meta.auth import standing
from morag_meta.grants.store import GrantStore
from morag_meta.jobs.store import JobStore
from tests.backends.databases import Backend, open_backend
from tests.model.telling import Prepared, made_shorter, walked
from tests.model.walk import Walk, wander

Patch = pytest.MonkeyPatch


def _keep_grants(patch: Patch) -> None:
    """A grant that is revoked stays."""
    patch.setattr(GrantStore, "remove", lambda *_: None)


def _accept_revoked_keys(patch: Patch) -> None:
    """A revoked key still proves its owner."""
    rightly = standing._verdict  # noqa: SLF001 - broken on purpose

    def verdict(row: Any, *rest: Any) -> standing.Verdict:
        return rightly({**row, "end_time": None} if "scopes" in row else row, *rest)

    patch.setattr(standing, "_verdict", verdict)


def _leave_jobs_open(patch: Patch) -> None:
    """A document that is deleted leaves its job behind."""
    patch.setattr(JobStore, "cancel_open_ingestion", lambda *_, **__: None)


@pytest.fixture(scope="module")
def files() -> Iterator[Backend]:
    """Give databases in files: what is looked for here is the same on each kind."""
    with open_backend("sqlite") as opened:
        yield Prepared(opened)


def _found(backend: Backend) -> Walk:
    """Walk until the mistake is found."""
    for _ in range(6):
        with walked(backend) as service:
            walk = wander(service, random.SystemRandom().randrange(10**6), 700)
        if walk.divergence is not None:
            return walk
    raise AssertionError("the mistake was not found in 4,200 steps")


@pytest.mark.parametrize("mistake", [_keep_grants, _accept_revoked_keys, _leave_jobs_open])
def test_a_mistake_is_found_and_shown_in_few_steps(
    files: Backend, mistake: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """A walk comes upon the mistake, and its shortest form is short enough to read."""
    mistake(monkeypatch)
    walk = _found(files)
    short = made_shorter(files, walk, most=40)
    assert short.divergence is not None
    assert short.divergence.is_like(walk.divergence)
    assert len(short.steps) <= max(30, len(walk.steps) // 2), "\n".join(map(str, short.steps))
