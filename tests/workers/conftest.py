"""A user with jobs, and a fleet of that user's workers."""

from __future__ import annotations

import pytest

from tests.jobs.conftest import Work
from tests.service import Service
from tests.workers.fleet import Fleet


@pytest.fixture
def work(service: Service) -> Work:
    """Give a fresh user's work."""
    return Work(service.new_user())


@pytest.fixture
def fleet(work: Work) -> Fleet:
    """Give that user's workers."""
    return Fleet(work.user.channel)
