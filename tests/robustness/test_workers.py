"""What workers write down is enough to judge by, also where they were killed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.robustness.callers import Caller
from tests.robustness.case import Case
from tests.robustness.history import Event, History, Operation, add
from tests.robustness.leases import single_holder
from tests.robustness.recorder import Recorder
from tests.robustness.workers import Worker

_LEASE = SimpleNamespace(job=SimpleNamespace(id="job", attempt=1), token="token")


class Killed(BaseException):
    """The process ends amidst a call."""


def _killed_while_releasing(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    def die(*_: Any) -> Any:
        raise Killed

    recorder = Recorder()
    worker = Worker("worker", ["127.0.0.1:1"], "key", recorder, 1)
    monkeypatch.setattr(Caller, "call", die)
    with pytest.raises(Killed):
        worker.end(_LEASE, 1, fate=0.99)
    worker.caller.close()
    return recorder


def test_a_release_by_a_worker_that_was_killed_meanwhile_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that ends early by ReleaseJob breaks no promise, though nobody was left to hear the answer."""
    lease = {"job_id": "job", "attempt": 1, "token": "token", "expire_time": 10.0, "seconds": 1.0}
    leased = Operation("worker", "LeaseJobs", {}, 8.9, 9.0, "OK", "", {"leases": [lease]})
    freed = Event("job", 3, "ann", "PROCESSING", "PENDING", 1, 0, 0, "X", "", "", "w", "", "", 9.5)
    history = History()
    add(history, [leased, freed])
    assert single_holder(Case(history))
    add(history, _killed_while_releasing(monkeypatch).records)
    assert not single_holder(Case(history))
