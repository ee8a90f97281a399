"""The trial service, and two servers of one database: for tests of what surrounds every call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.backends.databases import Backend
from tests.rpc.trial import Trial, trying
from tests.service import Service, serving


@dataclass(frozen=True)
class Pair:
    """Two servers of one database."""

    here: Service
    there: Service


@pytest.fixture(scope="session")
def pair(backend: Backend) -> Iterator[Pair]:
    """Serve a database twice, as two processes do."""
    with serving(backend) as here:
        there = Service(here.url, here.kind)
        try:
            yield Pair(here, there)
        finally:
            there.close()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Serve the trial service on SQLite; what it does is each test's choice."""
    folder = tmp_path_factory.mktemp("trial")
    with trying(f"sqlite:///{folder / 'trial.db'}") as started:
        yield started
