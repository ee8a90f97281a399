"""Streams on jobs of a shared database: they live by the grant, here and in another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from moragmeta.v1 import databases_pb2, jobs_pb2
from tests.grants.scene import READER, WRITER, Tenant, tenant
from tests.refusals import refused
from tests.service import Channel, Service, User

HERE_SECONDS, THERE_SECONDS = 1.0, 5.0
SLACK = 2.0  # what a busy machine may add


class Watching:
    """A grantee who watches a job, and all jobs of its database, through two servers."""

    def __init__(self, servers: tuple[Service, Service], owner: Tenant, friend: User) -> None:
        self.job = owner.job(owner.document().id)
        self._channels = [Channel(server.target, (("x-api-key", friend.key),)) for server in servers]
        chosen = jobs_pb2.JobFilter(database_id=owner.shared)
        self.many = jobs_pb2.WatchJobsRequest(filter=chosen, include_snapshot=True)
        self.streams: list[list[Any]] = []
        self.tokens: list[str] = []
        for channel in self._channels:
            one = channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=self.job.id))
            all_of_it = channel.jobs.WatchJobs(self.many)
            assert next(one).event.sequence == 1
            assert next(all_of_it).snapshot.id == self.job.id
            self.tokens.append(next(all_of_it).resume_token)
            self.streams.append([one, all_of_it])

    def end(self, change: Callable[[], Any]) -> None:
        """Make a change, and expect every stream to end as if there were no such thing, each in its time."""
        change()
        changed = time.monotonic()
        for streams, seconds in zip(self.streams, (HERE_SECONDS, THERE_SECONDS), strict=True):
            for stream, missing in zip(streams, ("job", "database"), strict=True):
                with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
                    list(stream)
                assert refusal.metadata["resource_type"] == missing
                assert time.monotonic() - changed < seconds + SLACK
        self.close()

    def close(self) -> None:
        """Disconnect."""
        for channel in self._channels:
            channel.close()


def test_a_revocation_ends_the_streams_that_need_it(there: tuple[Service, Service]) -> None:
    """Streams end with NOT_FOUND within 1 s here and 5 s elsewhere; what they saw before came whole."""
    owner, friend = tenant(there[0]), there[0].new_user()
    owner.give(friend, READER)
    watching = Watching(there, owner, friend)
    owner.user.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=watching.job.id))
    for one, many in watching.streams:
        assert next(one).event.sequence == next(many).event.sequence == 2
    watching.end(lambda: owner.revoke(friend))


def test_a_deleted_database_ends_the_streams_of_its_grantees(there: tuple[Service, Service]) -> None:
    """With the database its grants go, and the streams that need them end."""
    owner, friend = tenant(there[0]), there[0].new_user()
    owner.give(friend, WRITER)
    delete = databases_pb2.DeleteDatabaseRequest(id=owner.shared, force=True)
    Watching(there, owner, friend).end(lambda: owner.user.channel.databases.DeleteDatabase(delete))


def test_other_streams_go_on(there: tuple[Service, Service]) -> None:
    """A revocation ends no stream of the owner, of another grantee, or on own jobs of who lost it."""
    owner, (friend, other) = tenant(there[0]), (there[0].new_user() for _ in range(2))
    own = tenant(there[0])
    own_job = own.job(own.document().id)
    owner.give(own.user, READER)
    owner.give(friend, READER)
    owner.give(other, READER)
    watchings = [Watching(there, owner, other), Watching(there, owner, owner.user)]
    theirs: Any = own.user.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=own_job.id))
    next(theirs)
    owner.revoke(friend)
    owner.revoke(own.user)
    owner.give(other, WRITER)
    time.sleep(2.0)
    assert theirs.is_active()
    for watching in watchings:
        assert all(stream.is_active() for streams in watching.streams for stream in streams)
        watching.close()
    theirs.cancel()


def test_a_token_resumes_only_what_is_shared(service: Service, owner: Tenant, friend: User) -> None:
    """A resume token of a shared database is refused after the revocation, and goes on after a new grant."""
    owner.give(friend, READER)
    job = owner.job(owner.document().id)
    request = jobs_pb2.WatchJobsRequest(filter=jobs_pb2.JobFilter(database_id=owner.shared))
    stream: Any = friend.channel.jobs.WatchJobs(request)
    request.resume_token = next(stream).resume_token
    owner.revoke(friend)
    owner.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN", "resume_token"):
        list(friend.channel.jobs.WatchJobs(request))
    owner.give(friend, READER)
    resumed: Any = friend.channel.jobs.WatchJobs(request)
    assert next(resumed).event.state == jobs_pb2.JOB_STATE_CANCELLED
    resumed.cancel()


def test_a_stream_shows_the_shared_database_alone(owner: Tenant, friend: User) -> None:
    """WatchJobs by a grant tells of no job of the owner's outside the database, nor without naming it."""
    owner.give(friend, READER)
    outside = owner.job(owner.document(owner.private).id)
    request = jobs_pb2.WatchJobsRequest(include_snapshot=True)
    unnamed: Any = friend.channel.jobs.WatchJobs(request)
    request.filter.database_id = owner.shared
    named: Any = friend.channel.jobs.WatchJobs(request)
    assert next(unnamed).sync.snapshot_size == next(named).sync.snapshot_size == 0
    owner.user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=outside.id))
    inside = owner.job(owner.document().id)
    assert next(named).event.job_id == inside.id
    for stream in (unnamed, named):
        stream.cancel()


def test_a_grant_opens_no_stream_that_is_open_already(owner: Tenant, friend: User) -> None:
    """WatchJobs from before a grant goes on to show nothing; one that is opened after it shows all."""
    request = jobs_pb2.WatchJobsRequest(filter=jobs_pb2.JobFilter(database_id=owner.shared))
    before: Any = friend.channel.jobs.WatchJobs(request, timeout=3)
    assert next(before).HasField("sync")
    owner.give(friend, READER)
    after: Any = friend.channel.jobs.WatchJobs(request)
    assert next(after).HasField("sync")
    job = owner.job(owner.document().id)
    assert next(after).event.job_id == job.id
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        next(before)
    after.cancel()
