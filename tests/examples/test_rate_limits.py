"""The example programs by a key that may make few calls a second: they wait, and lose nothing."""

from __future__ import annotations

import time
from pathlib import Path

from moragmeta.v1 import api_keys_pb2, documents_pb2, jobs_pb2
from tests.backends.databases import Backend
from tests.examples.conftest import Examples
from tests.service import Service, User, serving


def _limited(service: Service, user: User) -> Examples:
    limit = api_keys_pb2.RateLimit(per_second=8, burst=3)
    key = api_keys_pb2.ApiKey(name="limited", scopes=["*"], rate_limit=limit)
    made = user.channel.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))
    return Examples(service.target, made.secret)


def test_folder_is_ingested_at_the_keys_rate(restless: Service, tmp_path: Path) -> None:
    """Registering, working and watching at once go on beyond the rate, and every file is INGESTED."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.md").write_text(f"file {number}\n" * 50)
    user = restless.new_user()
    limited, free = _limited(restless, user), Examples(restless.target, user.key)
    limited.run("register_folder", folder)
    watcher = limited.start("watch")
    limited.run("worker", "--until-idle")
    limited.finish(watcher)

    states = [document.state for document in free.documents().values()]
    assert states == [documents_pb2.DOCUMENT_STATE_INGESTED] * 4
    assert {(job.attempt, job.error) for job in free.jobs()} == {(1, "")}
    limited.close()
    free.close()


def test_worker_without_a_place_to_wait_in_does_its_jobs(backend: Backend, tmp_path: Path) -> None:
    """Where its user's places are taken the example worker asks again instead of ending."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.md").write_text("one")
    with serving(backend, stream_limit=1) as service:
        user = service.new_user()
        examples = Examples(service.target, user.key)
        stream = user.channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest())
        next(stream)
        worker = examples.start("worker")
        time.sleep(2)  # in which it is refused once at least
        examples.run("register_folder", folder)
        assert worker.poll() is None
        end = time.monotonic() + 30
        while [found.chunks for found in examples.documents().values()] != [1]:
            assert time.monotonic() < end
            time.sleep(0.1)
        worker.terminate()
        examples.finish(worker)
        examples.close()
