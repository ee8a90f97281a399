"""Clients that make documents and jobs, call some off, and have some made again."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import documents_pb2, jobs_pb2
from tests.robustness.callers import Caller, Refused
from tests.robustness.recorder import Recorder

KINDS = ("INGESTION", "REINDEX", "EXPORT")
PRIORITIES = (
    jobs_pb2.JOB_PRIORITY_LOW,
    jobs_pb2.JOB_PRIORITY_NORMAL,
    jobs_pb2.JOB_PRIORITY_HIGH,
    jobs_pb2.JOB_PRIORITY_URGENT,
)
TYPES = ("pdf", "txt", "mp3")


class Writer:
    """A client of one user."""

    def __init__(
        self,
        name: str,
        targets: Sequence[str],
        key: str,
        recorder: Recorder,
        seed: int,
        *,
        flowing: threading.Event,
        made: deque[tuple[str, str, str]],
    ) -> None:
        """Prepare; it rests while ``flowing`` is not set, and tells in ``made`` what it made."""
        self.caller = Caller(name, targets, key, recorder, f"{seed}/{name}")
        self._key = key
        self._flowing = flowing
        self._made = made
        self._mine: deque[str] = deque(maxlen=20)
        self._documents: deque[str] = deque(maxlen=20)

    def work(self) -> None:
        """Write until told to stop."""
        chance = self.caller.chance
        while not self.caller.stop.is_set():
            if not self._flowing.wait(0.1):
                continue
            try:
                choice = chance.random()
                if choice < 0.8 or not self._mine:
                    self._create()
                elif choice < 0.9:
                    self._cancel(chance.choice(self._mine))
                else:
                    self._retry(chance.choice(self._mine))
            except Refused:
                continue
            if chance.random() < 0.1:
                time.sleep(chance.uniform(0, 0.05))

    def _create(self) -> None:
        chance = self.caller.chance
        kind = chance.choice(KINDS)
        tag = self.caller.new_id()
        job = jobs_pb2.Job(kind=kind, priority=chance.choice(PRIORITIES), max_attempts=chance.choice((2, 3)))
        if kind == "INGESTION" or chance.random() < 0.3:
            job.document_id = self._document()
        if chance.random() < 0.15:
            job.execution = jobs_pb2.JOB_EXECUTION_REMOTE
            job.fallback_delay.CopyFrom(Duration(seconds=1))
        if chance.random() < 0.1:
            job.not_before.CopyFrom(Timestamp(seconds=int(time.time()) + 1))
        job.parameters.update({"tag": tag})
        request = jobs_pb2.CreateJobRequest(job=job, request_id=tag)
        made = self.caller.call("CreateJob", request, {"tag": tag}, _job_id)
        self._mine.append(made.id)
        self._made.append((made.id, made.owner_id, self._key))

    def _document(self) -> str:
        chance = self.caller.chance
        if self._documents and chance.random() < 0.5:
            return chance.choice(self._documents)
        tag = self.caller.new_id()
        document = documents_pb2.Document(name=tag, type=chance.choice(TYPES))
        request = documents_pb2.CreateDocumentRequest(document=document, request_id=tag)
        made: str = self.caller.call("CreateDocument", request, {"tag": tag}).document.id
        self._documents.append(made)
        return made

    def _cancel(self, job_id: str) -> None:
        request = jobs_pb2.CancelJobRequest(id=job_id, request_id=self.caller.new_id())
        self.caller.call("CancelJob", request, {"job_id": job_id}, _job_id)

    def _retry(self, job_id: str) -> None:
        request = jobs_pb2.RetryJobRequest(id=job_id, request_id=self.caller.new_id())
        made = self.caller.call("RetryJob", request, {"job_id": job_id}, _job_id)
        self._mine.append(made.id)


def _job_id(job: Any) -> dict[str, Any]:
    return {"job_id": job.id}
