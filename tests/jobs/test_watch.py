"""The stream of one job: every event in order, once, to whoever comes back with the last number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.db.schema import job_events
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import users_pb2
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service, serving


class Watcher:
    """A stream that is read in a thread, so that a test can act while it is open."""

    def __init__(self, work: Work, job_id: str, after: int = 0) -> None:
        self.frames: list[pb.JobFrame] = []
        self.error: Any = None
        self._changed = threading.Condition()
        self._call = work.jobs.WatchJob(pb.WatchJobRequest(job_id=job_id, after_sequence=after))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._call:
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            self.error = error

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events so far."""
        return [frame.event.sequence for frame in self.frames if frame.HasField("event")]

    @property
    def beats(self) -> list[Any]:
        """The heartbeats so far."""
        return [frame.heartbeat for frame in self.frames if frame.HasField("heartbeat")]

    def wait_for(self, number: int) -> None:
        """Wait until an event has arrived."""
        self.wait_until(lambda: number in self.numbers)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of the frames."""
        with self._changed:
            assert self._changed.wait_for(condition, 20), self.frames[-5:]

    def end(self, timeout: float = 10.0) -> Any:
        """Wait for the end, and give its error or None."""
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return self.error

    def cancel(self) -> None:
        """Leave."""
        self._call.cancel()


def test_a_watcher_sees_what_was_and_what_comes(work: Work) -> None:
    """WatchJob sends the kept events, then each change as it is committed, and ends after the last."""
    job = work.add_job(kind="REINDEX")
    watcher = Watcher(work, job.id)
    watcher.wait_for(1)
    work.start(job.id)
    watcher.wait_for(2)
    for number in range(1, 5):
        work.progress(job.id, number, number * 10, phase=f"step {number}")
    work.complete(job.id, 5)

    assert watcher.end() is None
    assert watcher.numbers == [1, 2, 3, 4, 5, 6, 7]
    events = [frame.event for frame in watcher.frames]
    assert [event.state for event in events[:2]] == [pb.JOB_STATE_PENDING, pb.JOB_STATE_PROCESSING]
    assert events[0].previous_state == pb.JOB_STATE_UNSPECIFIED
    assert [(event.previous_percentage, event.percentage) for event in events[2:4]] == [(0, 10), (10, 20)]
    assert (events[-1].previous_state, events[-1].state) == (
        pb.JOB_STATE_PROCESSING,
        pb.JOB_STATE_FINISHED,
    )


def test_a_change_arrives_without_a_poll(backend: Backend) -> None:
    """A committed change of this process reaches its watcher without waiting for the poll."""
    with serving(backend, stream_poll_interval=60) as service:
        work = Work(service.new_user())
        job = work.add_job(kind="REINDEX")
        work.start(job.id)
        watcher = Watcher(work, job.id)
        watcher.wait_for(2)
        for number in range(1, 11):
            work.progress(job.id, number, number)
            watcher.wait_for(number + 2)
        watcher.cancel()


def test_resuming_misses_nothing_and_repeats_nothing(work: Work) -> None:
    """From whichever number a client comes back, it gets exactly what follows."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    for number in range(1, 8):
        work.progress(job.id, number, number)
    work.complete(job.id, 8)
    everything = work.events(job.id)

    assert [event.sequence for event in everything] == list(range(1, 11))
    for after in range(11):
        assert work.events(job.id, after) == everything[after:]


def test_a_position_beyond_the_end_is_refused(work: Work) -> None:
    """A number that no event has yet is OUT_OF_RANGE, and the answer names the last one."""
    job = work.add_job(kind="REINDEX")
    with refused("OUT_OF_RANGE", "POSITION_BEYOND_END") as refusal:
        work.events(job.id, after=2)

    assert refusal.metadata == {"last_sequence": "1"}


def test_a_position_below_what_is_kept_is_refused(service: Service, work: Work) -> None:
    """A number whose followers were trimmed is OUT_OF_RANGE, and the answer names the oldest usable one."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    for number in range(1, 5):
        work.progress(job.id, number, number)
    work.complete(job.id, 5)
    with service.database.unit_of_work() as uow:
        uow.connection.execute(
            job_events.delete().where(job_events.c.job_id == job.id, job_events.c.number <= 3)
        )
        uow.commit()
    with refused("OUT_OF_RANGE", "POSITION_TRIMMED") as refusal:
        work.events(job.id, after=2)

    assert refusal.metadata == {"oldest_after_sequence": "3"}
    assert [event.sequence for event in work.events(job.id, after=3)] == [4, 5, 6, 7]


def test_long_histories_are_read_in_pages(work: Work) -> None:
    """A watcher who comes late gets more events than one page holds, all in order."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    for number in range(1, 451):
        work.progress(job.id, number, number // 5)
    work.complete(job.id, 451)

    assert [event.sequence for event in work.events(job.id)] == list(range(1, 454))


def test_many_watchers_see_the_same(work: Work) -> None:
    """Thirty watchers of one job, come at different times, all see every event once and in order."""
    job = work.add_job(kind="REINDEX")
    watchers = [Watcher(work, job.id) for _ in range(10)]
    work.start(job.id)
    for number in range(1, 41):
        work.progress(job.id, number, number)
        if number % 2:
            watchers.append(Watcher(work, job.id))
    work.complete(job.id, 41)

    for watcher in watchers:
        assert watcher.end() is None
        assert watcher.numbers == list(range(1, 44))


def test_watchers_see_jobs_that_another_process_changes(
    backend: Backend, work: Work, service: Service
) -> None:
    """A change that another server of the same database commits reaches the watcher just the same."""
    other = Service(service.url, backend.name)
    try:
        there = Work(work.user)
        there.jobs = other.channel(api_key=work.user.key).jobs
        job = work.add_job(kind="REINDEX")
        watcher = Watcher(work, job.id)
        watcher.wait_for(1)
        there.start(job.id)
        for number in range(1, 21):
            there.progress(job.id, number, number)
        there.complete(job.id, 21)

        assert watcher.end() is None
        assert watcher.numbers == list(range(1, 24))
    finally:
        other.close()


def test_a_busy_job_hides_no_other(backend: Backend, work: Work, service: Service) -> None:
    """While one watched job changes without pause, a change of another one arrives from another process."""
    other = Service(service.url, backend.name)
    try:
        there = Work(work.user)
        there.jobs = other.channel(api_key=work.user.key).jobs
        busy, quiet = work.add_job(kind="REINDEX"), work.add_job(kind="REINDEX")
        work.start(busy.id)
        watchers = [Watcher(work, busy.id), Watcher(work, quiet.id)]
        watchers[1].wait_for(1)
        there.start(quiet.id)
        end = time.monotonic() + 20
        number = 0
        while 2 not in watchers[1].numbers and time.monotonic() < end:
            number += 1
            work.progress(busy.id, number, 50)
            time.sleep(0.05)
        for watcher in watchers:
            watcher.cancel()

        assert watchers[1].numbers == [1, 2]
    finally:
        other.close()


@pytest.fixture(scope="module")
def brisk(backend: Backend) -> Iterator[Service]:
    """Give a server whose heartbeats and ages are short."""
    with serving(backend, stream_heartbeat=0.3, stream_max_age=600) as started:
        yield started


def test_heartbeats_carry_the_position(brisk: Service) -> None:
    """While nothing happens a frame comes at the stated interval, with the number to resume after."""
    work = Work(brisk.new_user())
    job = work.add_job(kind="REINDEX")
    began = time.monotonic()
    watcher = Watcher(work, job.id)
    watcher.wait_until(lambda: len(watcher.beats) >= 4)  # each as late as the machine lets it be
    assert time.monotonic() - began >= 4 * 0.3
    watcher.cancel()
    assert {beat.sequence for beat in watcher.beats} == {1}
    assert watcher.beats[0].server_time.seconds > 0


def test_deleting_the_job_ends_its_streams(brisk: Service) -> None:
    """A watcher of a job whose owner is removed is told NOT_FOUND."""
    admin, gone = brisk.admin.channel, brisk.new_user()
    job = Work(gone).add_job(kind="REINDEX")
    watching = Work(brisk.admin)
    watcher = Watcher(watching, job.id)
    watcher.wait_for(1)
    admin.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=gone.id))
    admin.users.DeleteUser(users_pb2.DeleteUserRequest(id=gone.id))

    assert watcher.end().code() == grpc.StatusCode.NOT_FOUND


def test_an_old_stream_is_told_where_to_resume(backend: Backend) -> None:
    """At its maximum age a stream ends with UNAVAILABLE, STREAM_AGED and the number to resume after."""
    with serving(backend, stream_max_age=1.0) as service:
        work = Work(service.new_user())
        job = work.add_job(kind="REINDEX")
        work.start(job.id)
        with refused("UNAVAILABLE", "STREAM_AGED") as refusal:
            work.events(job.id)

        assert refusal.metadata["resume_after_sequence"] == "2"


def test_a_draining_server_tells_where_to_resume(backend: Backend) -> None:
    """At shutdown every stream ends at once with UNAVAILABLE, SERVER_DRAINING and its own number."""
    url = backend.new_url()
    service = Service(url, backend.name)
    work = Work(service.new_user())
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    watchers = [Watcher(work, job.id, after=after) for after in (0, 1, 2)]
    watchers[0].wait_for(2)
    watchers[1].wait_for(2)
    service.wait_for_places(work.user, 3)
    started = time.monotonic()
    service.on_loop(service.app.stop(20.0))
    took = time.monotonic() - started

    for watcher in watchers:
        error = watcher.end()
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert b"resume_after_sequence" in dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert took < 10.0


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["progress", "repeat", "reconnect", "late"]), st.integers(0, 100), st.booleans()
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_any_history_is_seen_whole_by_who_comes_and_goes(work: Work, steps: list[Any]) -> None:
    """However often a watcher reconnects, it sees 1, 2, 3 … up to the final event, each once."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    seen: list[int] = []
    watcher = Watcher(work, job.id)
    number = 0
    for step, percentage, patient in steps:
        if step == "progress":
            number += 1
            work.progress(job.id, number, percentage)
        elif step == "repeat" and number:
            work.progress(job.id, number, percentage)
        elif step == "late" and number > 1:
            work.progress(job.id, number - 1, percentage)
        elif step == "reconnect":
            if patient and (seen[-1] if seen else 0) < number + 2:
                watcher.wait_for(number + 2)
            watcher.cancel()
            watcher.end()
            seen += watcher.numbers
            watcher = Watcher(work, job.id, after=seen[-1] if seen else 0)
    work.complete(job.id, number + 1)

    assert watcher.end() is None
    assert seen + watcher.numbers == list(range(1, number + 4))
