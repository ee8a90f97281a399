"""Jobs over the wire: their states, their reports, and what follows for their documents."""

from __future__ import annotations

from moragmeta.v1 import jobs_pb2 as pb
from tests.service import User


def test_job_without_document_runs_to_its_end(user: User) -> None:
    """A job of a free kind goes from PENDING over PROCESSING to FINISHED, with true times and result."""
    jobs = user.channel.jobs
    job = jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="REINDEX")))
    assert (job.state, job.event_number, job.attempt) == (pb.JOB_STATE_PENDING, 1, 0)
    started = jobs.StartJob(pb.StartJobRequest(id=job.id))
    assert (started.state, started.attempt) == (pb.JOB_STATE_PROCESSING, 1)
    progress = jobs.UpdateJobProgress(
        pb.UpdateJobProgressRequest(id=job.id, attempt=1, report_number=1, percentage=40, phase="reading")
    )
    assert (progress.outcome, progress.job.percentage) == (pb.REPORT_OUTCOME_APPLIED, 40)
    done = jobs.CompleteJob(
        pb.CompleteJobRequest(id=job.id, attempt=1, report_number=2, result=pb.JobResult(chunks=3))
    )
    assert (done.job.state, done.job.percentage) == (pb.JOB_STATE_FINISHED, 100)
    assert done.job.result.chunks == 3
    frames = list(jobs.WatchJob(pb.WatchJobRequest(job_id=job.id)))

    assert [frame.event.sequence for frame in frames] == [1, 2, 3, 4]
