"""``morag-meta jobs watch`` by a key that may make few calls a second."""

from __future__ import annotations

import json
import time
from collections import defaultdict

import pytest

from morag_meta.exits import ExitCode
from moragmeta.v1 import api_keys_pb2
from moragmeta.v1 import jobs_pb2 as pb
from tests.cli.command import Command
from tests.service import Service, User


def _give_key(monkeypatch: pytest.MonkeyPatch, service: Service, user: User, rate: float) -> None:
    limit = api_keys_pb2.RateLimit(per_second=rate, burst=2)
    key = api_keys_pb2.ApiKey(name="limited", scopes=["jobs:read"], rate_limit=limit)
    made = user.channel.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))
    monkeypatch.setenv("MORAG_API_KEY", made.secret)
    monkeypatch.setenv("MORAG_TARGET", service.target)


def _canceled(user: User) -> str:
    job = user.channel.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="REPORT")))
    user.channel.jobs.CancelJob(pb.CancelJobRequest(id=job.id))
    return job.id


def test_more_jobs_than_the_key_may_ask_for_at_once_are_all_followed(
    cli: Command, user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each job every event is printed once and in order, over calls that the key had to wait for."""
    _give_key(monkeypatch, service, user, 4)
    jobs = [_canceled(user) for _ in range(5)]
    watched = cli("jobs", "watch", *jobs, "-o", "json")
    assert watched.code is ExitCode.JOB_NOT_FINISHED, watched.err
    seen = defaultdict(list)
    for event in map(json.loads, watched.out.splitlines()):
        seen[event["job_id"]].append(int(event["sequence"]))
    assert seen == {job: [1, 2] for job in jobs}


def test_all_open_jobs_are_followed_once_the_key_may(
    cli: Command, user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream over all jobs that may not be opened yet is opened when the key may call again."""
    _give_key(monkeypatch, service, user, 1)
    for _ in range(3):
        watched = cli("jobs", "watch", "--all", "--until-idle")
        assert watched.code is ExitCode.OK, watched.err


def test_patience_ends_a_wait_for_the_keys_rate(
    cli: Command, user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may not ask after a job for longer than the patience is told so at once."""
    _give_key(monkeypatch, service, user, 0.01)
    job = _canceled(user)
    assert cli("jobs", "watch", job).code is ExitCode.JOB_NOT_FINISHED
    begun = time.monotonic()
    refused = cli("jobs", "watch", job, "--patience", "10")
    assert time.monotonic() - begun < 8
    assert "calls per second" in refused.err
