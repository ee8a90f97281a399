"""Reports of workers: in any order and any number of times, each counts once."""

from __future__ import annotations

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import jobs_pb2 as pb

AREA = Area("reports")


@AREA.case
def a_new_report_is_applied(bench: Bench) -> None:
    """A new report is APPLIED: percentage, phase, summary and the report's number, in one event."""
    job = bench.running()
    answer = bench.progress(job, 1, 30, phase="reading", summary="page 3")
    after = answer.job
    same("outcome", answer.outcome, pb.REPORT_OUTCOME_APPLIED)
    seen = (after.percentage, after.phase, after.summary, after.report_number, after.last_sequence)
    same("percentage, phase, summary, number, last_sequence", seen, (30, "reading", "page 3", 1, 3))


@AREA.case
def a_repeated_report_is_success(bench: Bench) -> None:
    """The newest report again is REPEATED, and changes nothing."""
    job = bench.running()
    first = bench.progress(job, 1, 30).job
    again = bench.progress(job, 1, 30)
    same("outcome", again.outcome, pb.REPORT_OUTCOME_REPEATED)
    seen = (again.job.etag, again.job.last_sequence)
    same("etag and last_sequence", seen, (first.etag, first.last_sequence))


@AREA.case
def an_older_report_is_ignored(bench: Bench) -> None:
    """A report older than the newest one is IGNORED, and changes nothing."""
    job = bench.running()
    newest = bench.progress(job, 5, 50).job
    late = bench.progress(job, 4, 80, phase="late")
    same("outcome", late.outcome, pb.REPORT_OUTCOME_IGNORED)
    seen = (late.job.percentage, late.job.phase, late.job.etag)
    same("percentage, phase, etag", seen, (50, newest.phase, newest.etag))


@AREA.case
def a_percentage_never_falls(bench: Bench) -> None:
    """A report with a lower percentage keeps what is there, and brings its phase and summary."""
    job = bench.running()
    bench.progress(job, 1, 60, phase="first")
    after = bench.progress(job, 2, 20, phase="second").job
    same("percentage and phase", (after.percentage, after.phase), (60, "second"))


@AREA.case
def an_empty_phase_keeps_what_is_there(bench: Bench) -> None:
    """A report without phase and summary keeps those of before."""
    job = bench.running()
    bench.progress(job, 1, 10, phase="reading", summary="page 1")
    after = bench.progress(job, 2, 20).job
    same("phase and summary", (after.phase, after.summary), ("reading", "page 1"))


@AREA.case
def another_attempt_is_refused(bench: Bench) -> None:
    """A report of an attempt that is not the present one is FAILED_PRECONDITION, and names both."""
    job = bench.running()
    with refused("FAILED_PRECONDITION", "STALE_ATTEMPT", attempt="2", current_attempt="1"):
        bench.progress(job, 1, 10, attempt=2)
    with refused("FAILED_PRECONDITION", "STALE_ATTEMPT", attempt="2", current_attempt="1"):
        bench.complete(job, 1, attempt=2)


@AREA.case
def another_lease_is_refused(bench: Bench) -> None:
    """A report with a lease token that is not the job's is FAILED_PRECONDITION, and changes nothing."""
    job = bench.running()
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        bench.progress(job, 1, 10, lease_token=missing_id())
    same("percentage", bench.job(job.id).percentage, 0)
    bench.progress(job, 1, 10, lease_token=job.lease_token)


@AREA.case
def nothing_is_reported_before_the_start(bench: Bench) -> None:
    """A report of a job that was never started is FAILED_PRECONDITION."""
    job = bench.add_job()
    with refused("FAILED_PRECONDITION", "INVALID_STATE", state="PENDING"):
        bench.progress(job, 1, 10, attempt=1)
    with refused("FAILED_PRECONDITION", "INVALID_STATE", state="PENDING"):
        bench.complete(job, 1, attempt=1)


@AREA.case
def a_repeated_end_is_success(bench: Bench) -> None:
    """CompleteJob and FailJob sent again are REPEATED, and change nothing."""
    finished, failed = bench.running(), bench.running()
    bench.complete(finished, 1)
    bench.fail(failed, 1)
    first = bench.job(finished.id), bench.job(failed.id)
    outcomes = [bench.complete(finished, 1).outcome, bench.fail(failed, 1).outcome]
    same("outcomes", outcomes, [pb.REPORT_OUTCOME_REPEATED] * 2)
    same("both jobs", (bench.job(finished.id), bench.job(failed.id)), first)


@AREA.case
def a_late_report_after_the_end_is_refused(bench: Bench) -> None:
    """A new report after the end is FAILED_PRECONDITION, whatever it says."""
    job = bench.running()
    bench.complete(job, 5)
    with refused("FAILED_PRECONDITION", "JOB_ENDED", state="FINISHED"):
        bench.progress(job, 6, 10)
    with refused("FAILED_PRECONDITION", "JOB_ENDED", state="FINISHED"):
        bench.fail(job, 6)


@AREA.case
def a_number_belongs_to_one_kind_of_report(bench: Bench) -> None:
    """An end under the number of a progress report is FAILED_PRECONDITION."""
    job = bench.running()
    bench.progress(job, 1, 10)
    with refused("FAILED_PRECONDITION", "REPORT_NUMBER_USED", report_number="1"):
        bench.complete(job, 1)


@AREA.case
def reports_are_checked(bench: Bench) -> None:
    """A percentage over 100, an attempt or a number of 0, and a failure without an error are refused."""
    job = bench.running()
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "percentage"):
        bench.progress(job, 1, 101)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "attempt", "report_number"):
        bench.progress(job, 0, 10, attempt=0)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "error"):
        bench.fail(job, 1, "")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "result.quality"):
        bench.complete(job, 1, result=pb.JobResult(quality=1.5))


@AREA.case
def only_changes_have_events(bench: Bench) -> None:
    """Each change has one event, numbered without a gap; repeats and ignored reports have none."""
    job = bench.running()
    for number in (1, 2, 2, 1, 3):
        bench.progress(job, number, number * 10)
    bench.complete(job, 4)
    bench.complete(job, 4)
    events = bench.mine.jobs.ListJobEvents(pb.ListJobEventsRequest(job_id=job.id)).events
    same("the numbers", [event.sequence for event in events], list(range(1, 7)))
    same("the percentages", [event.percentage for event in events], [0, 0, 10, 20, 30, 100])
