"""A history that keeps every promise, made up from a seed: what the tests of the validators then break."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.robustness.history import (
    Connection,
    DocumentRow,
    Event,
    Filter,
    Frame,
    History,
    JobRow,
    Operation,
)
from tests.robustness.lines import matches

_OWNERS = ("ann", "ben")
_SPREAD = 10.0
"""Seconds between two changes: more than the validators take for settled."""
_LEASE = 300.0
"""Seconds that a lease lives; a made-up worker that is lost has waited for it to end."""


class Imagined:
    """Makes up jobs that are worked on, and watchers that see it all."""

    def __init__(self, seed: int, jobs: int = 6) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a made-up history
        self._time = 1000.0
        self.history = History(seed=seed, database="none")
        self._jobs: dict[str, JobRow] = {}
        self._ends: dict[str, float] = {}
        for number in range(jobs):
            self._make(number)
        self._work()
        self.history.jobs = list(self._jobs.values())
        for job in self.history.jobs:
            state = "INGESTED" if job.state == "FINISHED" else "PENDING"
            self.history.documents.append(DocumentRow(job.document_id, job.owner_id, state))
        self._watch_all()

    def _tick(self) -> float:
        self._time += _SPREAD
        return self._time

    def _make(self, number: int) -> None:
        owner = self._chance.choice(_OWNERS)
        job = JobRow(
            id=f"job{number}",
            owner_id=owner,
            kind="INGESTION",
            state="",
            document_id=f"document{number}",
            document_type=self._chance.choice(("pdf", "txt")),
            attempt=0,
            percentage=0,
            last_sequence=0,
            worker_id="",
            failure="",
            max_attempts=3,
            tag=f"tag{number}",
        )
        self._change(job, state="PENDING")
        self._asked("CreateJob", {"tag": job.tag}, {"job_id": job.id})

    def _change(self, job: JobRow, **changes: object) -> JobRow:
        after: JobRow = replace(job, last_sequence=job.last_sequence + 1, **changes)  # type: ignore[arg-type]
        self._jobs[job.id] = after
        self.history.events.append(
            Event(
                job_id=job.id,
                number=after.last_sequence,
                owner_id=job.owner_id,
                previous_state=job.state,
                state=after.state,
                attempt=after.attempt,
                previous_percentage=job.percentage,
                percentage=after.percentage,
                kind=job.kind,
                document_id=job.document_id,
                document_type=job.document_type,
                previous_worker_id=job.worker_id if job.state == "PROCESSING" else "",
                worker_id=after.worker_id,
                failure=after.failure,
                create_time=self._tick(),
                position=len(self.history.events) + 1,
            )
        )
        return after

    def _asked(self, method: str, request: dict[str, object], answer: dict[str, object]) -> None:
        made = Operation("client", method, request, self._time, self._time + 0.1, "OK", "", answer)
        self.history.operations.append(made)

    def _work(self) -> None:
        while opened := [job for job in self._jobs.values() if job.state in ("PENDING", "PROCESSING")]:
            job = self._chance.choice(opened)
            if job.state == "PENDING":
                self._lease(job)
            else:
                self._go_on(job)

    def _lease(self, job: JobRow) -> None:
        worker = self._chance.choice(("w1", "w2"))
        job = self._change(job, state="PROCESSING", attempt=job.attempt + 1, percentage=0, worker_id=worker)
        lease = {
            "job_id": job.id,
            "attempt": job.attempt,
            "token": f"{job.id}-{job.attempt}",
            "expire_time": self._time + _LEASE,
            "seconds": _LEASE,
        }
        self._ends[job.id] = self._time + _LEASE
        self._asked("LeaseJobs", {"worker_id": worker}, {"leases": [lease]})

    def _go_on(self, job: JobRow) -> None:
        request: dict[str, object] = {"job_id": job.id, "attempt": job.attempt}
        choice = self._chance.choice(("report", "report", "complete", "cancel", "expire"))
        if choice == "expire" or self._time + _SPREAD >= self._ends[job.id]:
            self._expire(job)
        elif choice == "report":
            percentage = min(job.percentage + self._chance.randint(1, 20), 100)
            self._change(job, percentage=percentage)
            self._ends[job.id] = self._time + _LEASE
            answer: dict[str, object] = {"job_id": job.id, "outcome": "APPLIED"}
            self._asked("UpdateJobProgress", request | {"percentage": percentage}, answer)
        elif choice == "complete":
            self._change(job, state="FINISHED", percentage=100)
            self._asked("CompleteJob", request, {"job_id": job.id, "outcome": "APPLIED"})
        else:
            self._change(job, state="CANCELLED")
            self._asked("CancelJob", {"job_id": job.id}, {"job_id": job.id})

    def _expire(self, job: JobRow) -> None:
        self._time = max(self._time, self._ends[job.id])
        if job.lost_leases + 1 == job.max_attempts:
            self._change(job, state="FAILED", failure="LEASE_EXPIRED", lost_leases=job.lost_leases + 1)
        else:
            self._change(job, state="PENDING", worker_id="", lost_leases=job.lost_leases + 1)

    def _watch_all(self) -> None:
        for number, wanted in enumerate(
            (
                Filter(),
                Filter(owner_id="ann"),
                Filter(states=("PROCESSING",)),
                Filter(worker_ids=("w1",)),
                Filter(document_types=("pdf",)),
                Filter(job_id="job1"),
            )
        ):
            self._watch(f"watcher{number}", wanted, begin=0)
        middle = len(self.history.events) // 2
        self._watch("late", Filter(), begin=middle)
        self._watch("late states", Filter(states=("PENDING",)), begin=middle)

    def _snapshot(self, wanted: Filter, begin: int) -> list[JobRow]:
        newest = {event.job_id: event for event in self.history.events[:begin]}
        return [
            replace(
                self._jobs[event.job_id],
                state=event.state,
                attempt=event.attempt,
                percentage=event.percentage,
                last_sequence=event.number,
                worker_id=event.worker_id,
                failure=event.failure,
            )
            for event in newest.values()
            if matches(wanted, event)[1]
        ]

    def _watch(self, name: str, wanted: Filter, begin: int) -> None:
        opened = self.history.events[begin - 1].create_time + 0.01 if begin else 0.0
        frames = [
            Frame(name, 0, 0, opened, "snapshot", job=job)
            for job in (self._snapshot(wanted, begin) if begin else [])
        ]
        whole = len(frames) + 1
        frames.append(Frame(name, 0, 0, opened, "sync"))
        for event in self.history.events[begin:]:
            before, after = matches(wanted, event)
            if before or after:
                leaves = before and not after and not wanted.job_id
                frames.append(
                    Frame(
                        name,
                        0,
                        0,
                        event.create_time,
                        "event",
                        event=replace(event, position=0),
                        leaves=leaves,
                    )
                )
            elif self._chance.random() < 0.5:
                frames.append(Frame(name, 0, 0, event.create_time, "heartbeat"))
        self._cut(name, wanted, frames, whole, from_start=not begin)

    def _cut(self, name: str, wanted: Filter, frames: list[Frame], whole: int, *, from_start: bool) -> None:
        """Spread the frames over several streams, and look again from the middle.

        The first ``whole`` frames are the snapshot, which comes in one piece.
        """
        cuts = sorted({0, *(self._chance.randint(min(whole, len(frames)), len(frames)) for _ in range(3))})
        for number, (begin, end) in enumerate(zip(cuts, [*cuts[1:], len(frames)], strict=True)):
            self._opened(name, wanted, number, begin or -1, from_start=from_start)
            self.history.frames += [replace(frame, connection=number) for frame in frames[begin:end]]
        again = max(cuts[-1] // 2, min(whole, len(frames)))
        self._opened(name, wanted, len(cuts), again, from_start=from_start, aside=True)
        self.history.frames += [replace(frame, connection=len(cuts)) for frame in frames[again : again + 5]]

    def _opened(
        self, name: str, wanted: Filter, number: int, after: int, *, from_start: bool, aside: bool = False
    ) -> None:
        made = Connection(name, 0, number, wanted, after, 0.0, 0.0, "OK", from_start=from_start, aside=aside)
        self.history.connections.append(made)
