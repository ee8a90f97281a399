"""Transactions that are held open against each other: what commits late is seen, and nothing is missed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from morag_meta.jobs.actions import cancel_job, create_job
from moragmeta.v1 import jobs_pb2 as pb
from tests.backends.databases import Backend
from tests.service import Service, User, serving

ROUNDS = int(os.environ.get("MORAG_TEST_ROUNDS", "50"))


@pytest.fixture(scope="module")
def quick(backend: Backend) -> Iterator[Service]:
    """Serve with short pauses between two looks for new events."""
    with serving(backend, stream_poll_interval=0.02, stream_heartbeat=0.2) as started:
        yield started


class Seen:
    """What a watcher of one user's jobs has seen so far."""

    def __init__(self, user: User) -> None:
        """Begin to watch, and return once the stream is open."""
        self.events: list[tuple[str, int]] = []
        self._changed = threading.Condition()
        self._stream: Any = user.channel.jobs.WatchJobs(pb.WatchJobsRequest(), timeout=600)
        next(self._stream)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._stream:
                if frame.HasField("event"):
                    with self._changed:
                        self.events.append((frame.event.job_id, frame.event.sequence))
                        self._changed.notify_all()
        except grpc.RpcError:
            return

    def wait_for(self, job_id: str, number: int) -> None:
        """Return once an event was seen."""
        with self._changed:
            assert self._changed.wait_for(lambda: (job_id, number) in self.events, 15), (job_id, number)

    def close(self) -> None:
        """Stop."""
        self._stream.cancel()
        self._thread.join(5)


def test_what_commits_late_is_seen_once_and_in_order(quick: Service) -> None:
    """A change that was begun before another and commits after it is delivered, as are those around it."""
    user = quick.new_user()
    with quick.database.unit_of_work() as uow:
        uow.queue.turns.open(user.id, 2)  # which first jobs at the same time would wait for
        uow.commit()
    seen = Seen(user)
    made: list[tuple[str, int]] = []
    for _ in range(ROUNDS):
        with quick.database.unit_of_work() as early:
            held = create_job(early, user.id, kind="HELD")["id"]
            if quick.kind == "sqlite":  # which lets one write at a time: the other waits for the first
                early.commit()
            with quick.database.unit_of_work() as late:
                quicker = create_job(late, user.id, kind="QUICKER")["id"]
                late.commit()
            seen.wait_for(quicker, 1)
            if quick.kind != "sqlite":
                assert (held, 1) not in seen.events
                early.commit()
        with quick.database.unit_of_work() as last:
            cancel_job(last, user.id, held)
            last.commit()
        made += [(held, 1), (quicker, 1), (held, 2)]
    seen.wait_for(held, 2)
    time.sleep(0.2)  # in which what comes twice would come
    seen.close()
    assert sorted(seen.events) == sorted(made)
    assert all(seen.events.index((id, 1)) < seen.events.index((id, 2)) for id, number in made if number == 2)
