"""What becomes of a job when its process has ended."""

from __future__ import annotations

import pytest
from queued import a_job

from raytrain.runs.queue.ending import MOST_LOSSES, STOPPED_CODE, Ended, back_off_s, judge
from raytrain.runs.queue.job import Job


def on(**values: object) -> Job:
    return a_job(state="running", **values)


@pytest.mark.parametrize(
    ("job", "ended", "state", "reason", "failures", "losses"),
    [
        (on(), Ended(0), "succeeded", None, 0, 0),
        (on(wish="cancel"), Ended(0), "succeeded", None, 0, 0),
        (on(wish="preempt"), Ended(0), "succeeded", None, 0, 0),
        (on(), Ended(STOPPED_CODE), "cancelled", "its run was asked to stop", 0, 0),
        (on(wish="cancel"), Ended(143), "cancelled", "cancelled while it ran", 0, 0),
        (on(wish="cancel"), Ended(4), "cancelled", "cancelled while it ran", 0, 0),
        (on(wish="cancel"), Ended(None), "cancelled", "cancelled while it ran", 0, 0),
        (on(wish="preempt"), Ended(143), "queued", "made room for an urgent job", 0, 0),
        (on(wish="preempt"), Ended(-15), "queued", "made room for an urgent job", 0, 0),
        (on(wish="preempt"), Ended(None), "queued", "made room for an urgent job", 0, 0),
        (
            on(wish="preempt", max_retries=0),
            Ended(-9, "killed: slow"),
            "queued",
            "an urgent job, killed: slow",
            0,
            0,
        ),
        (on(wish="preempt", max_retries=0), Ended(137), "queued", "made room for an urgent job", 0, 0),
        (on(wish="preempt", max_retries=0), Ended(4), "failed", "ended with exit code 4", 1, 0),
        (on(), Ended(4), "queued", "ended with exit code 4", 1, 0),
        (on(), Ended(-9, "killed"), "queued", "killed", 1, 0),
        (on(num_failures=3), Ended(4), "failed", "ended with exit code 4, after 3 retries", 1, 0),
        (on(max_retries=0), Ended(1), "failed", "ended with exit code 1", 1, 0),
        (on(), Ended(2), "failed", "configuration, which another try does not change", 1, 0),
        (on(), Ended(3), "failed", "data, which another try", 1, 0),
        (on(), Ended(5), "failed", "a refusal, which another try", 1, 0),
        (on(max_retries=0), Ended(143), "queued", "ended by SIGTERM from elsewhere", 0, 1),
        (on(max_retries=0), Ended(None, "its cluster is gone"), "queued", "its cluster is gone", 0, 1),
        (on(num_losses=MOST_LOSSES), Ended(None, "gone"), "failed", "gone, for the 6th time", 0, 1),
        (on(num_losses=MOST_LOSSES), Ended(None, "no way", not_begun=True), "queued", "no way", 0, 0),
        (on(wish="preempt"), Ended(None, "no way", not_begun=True), "queued", "no way", 0, 0),
        (
            on(wish="cancel"),
            Ended(None, "no way", not_begun=True),
            "cancelled",
            "cancelled before it ran",
            0,
            0,
        ),
    ],
)
def test_verdicts(job: Job, ended: Ended, state: str, reason: str | None, failures: int, losses: int) -> None:
    found = judge(job, ended, 0.5)
    assert (found.state, found.failures, found.losses) == (state, failures, losses)
    assert (found.reason is None) if reason is None else (reason in (found.reason or ""))


def test_a_failed_job_waits_longer_each_time_and_those_it_failed_with_at_other_moments() -> None:
    waits = [judge(on(num_failures=n, max_retries=99), Ended(4), 0.0).wait_s for n in range(8)]
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert [back_off_s(1, draw) for draw in (0.0, 0.5)] == [5.0, 7.5]
    assert back_off_s(10**6, 0.999) < 600.0
    assert judge(on(), Ended(None), 0.0).wait_s == 0.0, "a machine that went away is no fault of the job"
    assert judge(on(num_starts=3), Ended(None, not_begun=True), 0.0).wait_s == 20.0
    assert judge(on(num_losses=2), Ended(None), 0.0).wait_s == 20.0
