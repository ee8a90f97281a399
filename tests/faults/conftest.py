"""Database servers that tests may stop, freeze and starve: they are nobody else's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.databases import SERVERS, ServerDatabases, chosen_kinds

MOST_CONNECTIONS = 40


@pytest.fixture(scope="session", params=[kind for kind in chosen_kinds() if kind in SERVERS])
def frail(request: pytest.FixtureRequest) -> Iterator[ServerDatabases]:
    """Start a server of its own, which takes few connections."""
    with SERVERS[request.param](f"max_connections={MOST_CONNECTIONS}") as server:
        yield ServerDatabases(server)


@pytest.fixture(autouse=True)
def _well_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the server running, whatever a failed test did to it."""
    yield
    if "frail" in request.fixturenames:
        server = request.getfixturevalue("frail").server
        server.resume()
        if not server.running:
            server.start()
