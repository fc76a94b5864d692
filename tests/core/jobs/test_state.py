"""The table of the life cycle."""

import hypothesis.strategies as st
from hypothesis import given

from core.jobs.state import CLAIMABLE, FINAL, MOVES, JobStatus, sources_of


def test_final_statuses_are_those_of_the_api() -> None:
    assert {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED} == FINAL


def test_every_unfinished_job_can_be_cancelled_and_none_other() -> None:
    assert sources_of(JobStatus.CANCELLED) == set(JobStatus) - FINAL


def test_every_status_can_be_reached_and_every_job_can_end() -> None:
    def reachable(start: JobStatus) -> set[JobStatus]:
        seen: set[JobStatus] = set()
        frontier = {start}
        while frontier:
            seen |= frontier
            frontier = {after for status in frontier for after in MOVES[status]} - seen
        return seen

    assert reachable(JobStatus.VALIDATING_FILES) == set(JobStatus)
    for status in JobStatus:
        assert reachable(status) & FINAL


@given(st.sampled_from(JobStatus), st.sampled_from(JobStatus))
def test_sources_are_the_moves_read_backwards(status: JobStatus, target: JobStatus) -> None:
    assert (status in sources_of(target)) == (target in MOVES[status])


def test_only_jobs_that_wait_for_a_worker_can_be_claimed() -> None:
    assert {JobStatus.VALIDATING_FILES, JobStatus.QUEUED} == CLAIMABLE
    assert JobStatus.PAUSED not in CLAIMABLE
