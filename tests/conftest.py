"""What every test may ask for: a kind of database, and a fresh database of that kind."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.backends.databases import EVERY_KIND, Backend, chosen_kinds, open_backend
from tests.backends.mariadb import find_server

pytest_plugins = ("tests.past_walls", "tests.service", "tests.house.owners")

_KINDS = chosen_kinds()

# How long an example takes says more of the machine than of the code.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.fixture(scope="session", params=_KINDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Run the test once on each kind of database; its server is started when it is first asked for."""
    with open_backend(request.param) as opened:
        yield opened


@pytest.fixture
def database_url(backend: Backend) -> Iterator[str]:
    """Give one test a database of its own: empty, or where row security is on migrated already."""
    url = backend.new_url()
    yield url
    backend.drop(url)


@pytest.fixture
def empty_url(backend: Backend) -> Iterator[str]:
    """Give one test an empty database of its own, as whoever may migrate it."""
    url = backend.new_empty_url()
    yield url
    backend.drop(url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a test printed encodable, as it may go to another process; some tests print what is not."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last of all which databases the run left out, so that nobody takes it for the whole."""
    if hasattr(config, "workerinput"):
        return
    for kind in EVERY_KIND:
        if kind in _KINDS:
            continue
        if kind == "mariadb" and find_server() is None:
            print("NOT RUN: MariaDB is not installed here; get it with: apt-get install mariadb-server")  # noqa: T201
        else:
            print(f"NOT RUN: {kind}, which MORAG_TEST_DATABASES leaves out")  # noqa: T201
