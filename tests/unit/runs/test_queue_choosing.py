"""Which job is next: tables over plain values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queued import a_job

from raytrain.runs.ownership import Owner
from raytrain.runs.queue.choosing import KEEP_FREE_AFTER_S, Choice, Situation, choose, weight
from raytrain.runs.queue.job import Job, Limits, Need, Queue

pytestmark = pytest.mark.whole

NOW = 10_000.0
NO_LIMITS = Limits()


def job(job_id: str, **values: Any) -> Job:
    values.setdefault("created_at", NOW - 10)
    values.setdefault("ready_at", values["created_at"])
    return a_job(job_id, **values)


def running(job_id: str, **values: Any) -> Job:
    return job(
        job_id, state="running", started_at=values.pop("started_at", NOW - 100), num_starts=1, **values
    )


def choice(
    waiting: list[Job],
    on: list[Job] | None = None,
    *,
    limits: Limits = NO_LIMITS,
    room: Limits = NO_LIMITS,
    served: dict[tuple[str, str], float] | None = None,
    queues: dict[str, Queue] | None = None,
    clusters: dict[str, Limits] | None = None,
) -> Choice:
    queues = {"default": Queue("default", limits=limits), **(queues or {})}
    return choose(Situation(waiting, on or [], queues, room, "here", NOW, served or {}, clusters or {}))


def started(found: Choice) -> list[str]:
    return [one.id for one in found.start]


def test_urgent_before_normal_before_background_whatever_their_age() -> None:
    waiting = [job("c", priority="P2", created_at=1.0), job("b", created_at=2.0), job("a", priority="P0")]
    assert started(choice(waiting)) == ["a", "b", "c"]
    assert started(choice(waiting, limits=Limits(running=1))) == ["a"]


def test_within_one_priority_users_take_turns() -> None:
    ada = [job(f"ada-{i}", user="ada", created_at=float(i)) for i in range(3)]
    bob = [job(f"bob-{i}", user="bob", created_at=50.0 + i) for i in range(2)]
    assert started(choice([*ada, *bob])) == ["ada-0", "bob-0", "ada-1", "bob-1", "ada-2"]


def test_who_had_less_over_the_day_is_first() -> None:
    waiting = [job("ada-0", user="ada", created_at=1.0), job("bob-0", user="bob")]
    found = choice(waiting, limits=Limits(running=1), served={("default", "ada"): 3600.0})
    assert started(found) == ["bob-0"]


def test_a_running_job_counts_against_its_user_at_once() -> None:
    waiting = [job("ada-0", user="ada", created_at=1.0), job("bob-0", user="bob")]
    found = choice(waiting, [running("ada-9", user="ada")], limits=Limits(running=2))
    assert started(found) == ["bob-0"]


def test_queues_of_one_machine_take_turns() -> None:
    waiting = [*(job(f"a{i}", created_at=float(i)) for i in range(3)), job("b0", queue="b", user="ada")]
    found = choice(waiting, room=Limits(cpus=2), queues={"b": Queue("b")})
    assert started(found) == ["a0", "b0"]


@pytest.mark.parametrize(
    ("limits", "need", "reason"),
    [
        (Limits(running=1), Need(), "queue default runs 1 of 1 jobs"),
        (Limits(cpus=4), Need(3), "needs 3 CPUs, queue default has 2 of 4 free"),
        (Limits(gpus=1), Need(1, 1), "needs 1 GPUs, queue default has 0 of 1 free"),
        (
            Limits(memory_bytes=10**9),
            Need(1, 0, 10**9),
            "needs 1 GB of memory, queue default has 0.5 of 1 free",
        ),
    ],
)
def test_limits_of_a_queue(limits: Limits, need: Need, reason: str) -> None:
    on = [running("on", need=Need(2, 1, 500_000_000))]
    found = choice([job("waits", need=need)], on, limits=limits)
    assert (started(found), found.reasons) == ([], {"waits": reason})
    assert started(choice([job("waits", need=need)], [], limits=limits)) == ["waits"]


def test_this_machine_lends_only_what_it_has() -> None:
    here = Owner("here", 1, 0.0)
    on = [running("on", need=Need(2), owner=here), running("off", need=Need(9), owner=Owner("there", 1, 0.0))]
    found = choice([job("fits", need=Need(2)), job("waits", need=Need(3)), job("far", need=Need(9), backend="ray")],
                   on, room=Limits(cpus=4))  # fmt: skip
    assert sorted(started(found)) == ["far", "fits"]
    assert found.reasons == {"waits": "needs 3 CPUs, this machine has 0 of 4 free"}


def test_what_was_given_back_is_others_and_nobody_is_asked_to_make_room_with_it() -> None:
    here = Owner("here", 1, 0.0)
    need = Need(4, memory_bytes=3_000_000_000)
    waits = running("trial", need=need, owner=here, priority="P2", gave_back_at=NOW - 5)
    room, limits = Limits(cpus=4, memory_bytes=4_000_000_000), Limits(running=1)
    assert started(choice([job("a", need=Need(4))], [waits], room=room, limits=limits)) == ["a"]
    urgent = job("urgent", need=Need(4, memory_bytes=2_000_000_000), priority="P0")
    found = choice([urgent], [waits], room=room)
    assert (started(found), found.make_room) == ([], {}), "its memory is still taken"
    assert found.reasons["urgent"].startswith("needs 2 GB of memory, this machine has 1 of 4 free")


def test_what_another_machine_carried_before_takes_room_here() -> None:
    """As when that machine died: all of its jobs wait at once."""
    there = Owner("there", 1, 0.0)
    found = choice([job(f"j{i}", need=Need(2), owner=there) for i in range(3)], room=Limits(cpus=2))
    assert started(found) == ["j0"]


def test_what_is_paused_or_was_tried_a_moment_ago_waits() -> None:
    queues = {"default": Queue("default", "paused"), "b": Queue("b", "draining")}
    waiting = [job("a"), job("b", queue="b"), job("c", queue="b", ready_at=NOW + 30)]
    found = choice(waiting, queues=queues)
    assert started(found) == ["b"], "a queue that is drained works off what it has"
    assert found.reasons == {"a": "queue default is paused", "c": "is tried again in 30 s"}


def test_smaller_jobs_pass_a_large_one_until_it_has_waited_for_long() -> None:
    small = job("small", priority="P2")
    on = [running("on", need=Need(2))]
    young = job("large", need=Need(4), created_at=NOW - 60)
    assert started(choice([young, small], on, limits=Limits(cpus=4))) == ["small"]
    old = job("large", need=Need(4), created_at=NOW - KEEP_FREE_AFTER_S - 1)
    found = choice([old, small], on, limits=Limits(cpus=4))
    assert (started(found), found.reasons["small"]) == ([], "what becomes free is kept for large")


def test_what_can_never_start_holds_nobody_up() -> None:
    old = job("huge", need=Need(99), created_at=1.0)
    found = choice([old, job("small")], limits=Limits(cpus=4))
    assert started(found) == ["small"]
    assert found.reasons["huge"].startswith("can never start: needs 99 CPUs")


class TestOneCluster:
    """Jobs that are carried elsewhere count against what is there."""

    def test_only_what_fits_starts_in_the_order_of_the_queue(self) -> None:
        waiting = [far(f"j{i}", need=Need(2), created_at=NOW - 50 + i) for i in range(4)]
        found = choice(waiting, clusters=FOUR)
        assert started(found) == ["j0", "j1"]
        assert found.reasons["j3"] == f"needs 2 CPUs, the cluster at {HEAD} has 0 of 4 free"
        assert started(choice(waiting)) == ["j0", "j1", "j2", "j3"], "where nobody can say what there is"

    def test_what_runs_there_counts_whatever_its_queue(self) -> None:
        on = [far_running("on", queue="b", need=Need(3)), running("here", need=Need(9))]
        waiting = [
            far("two", need=Need(2)),
            far("one"),
            far("elsewhere", need=Need(4), address="http://other:8265"),
        ]
        found = choice(waiting, on, clusters=FOUR, queues={"b": Queue("b")})
        assert sorted(started(found)) == ["elsewhere", "one"]

    def test_gpus_count_too(self) -> None:
        on = [far_running("on", need=Need(1, 1))]
        found = choice([far("gpu", need=Need(1, 1))], on, clusters={HEAD: Limits(cpus=8, gpus=1)})
        assert found.reasons == {"gpu": f"needs 1 GPUs, the cluster at {HEAD} has 0 of 1 free"}

    def test_what_is_larger_than_the_cluster_is_left_to_it(self) -> None:
        """It may grow, or refuses with the words that fit: how many workers it can place."""
        found = choice([far("huge", need=Need(99)), far("small")], clusters=FOUR)
        assert started(found) == ["huge"], "and what comes after waits until it is refused"
        assert started(choice([far("small")], [far_running("huge", need=Need(99))], clusters=FOUR)) == []

    def test_an_urgent_job_has_background_ones_make_room_there(self) -> None:
        on = [far_running("far", priority="P2", need=Need(3)), running("near", priority="P2", need=Need(3))]
        found = choice([far("urgent", priority="P0", need=Need(2))], on, clusters=FOUR)
        assert found.make_room == {"far": "urgent"}

    def test_a_large_one_is_not_starved_by_small_ones_that_come_and_go(self) -> None:
        """For three hours more small jobs come than there is room for, and two that want all of the cluster."""
        jobs = [far(f"small-{i:03d}", created_at=25.0 * i) for i in range(400)]
        jobs += [far(f"large-{i}", need=Need(4), created_at=300.0 + i) for i in range(2)]
        times = simulated(jobs, takes_s=120.0, until=3 * 3600.0)
        waited = [times[one.id] - one.created_at for one in jobs if one.id.startswith("large")]
        assert waited[0] <= KEEP_FREE_AFTER_S + 130.0 and waited[1] <= KEEP_FREE_AFTER_S + 260.0, waited
        in_order = [times[one.id] for one in jobs if one.id.startswith("small") and one.id in times]
        assert in_order == sorted(in_order) and len(in_order) > 300

    def test_who_has_few_does_not_wait_for_who_has_many(self) -> None:
        many = [far(f"ada-{i:02d}", user="ada", created_at=float(i)) for i in range(40)]
        few = [far(f"bob-{i}", user="bob", created_at=600.0 + i) for i in range(3)]
        times = simulated([*many, *few], takes_s=120.0, until=7200.0)
        assert max(times[one.id] - one.created_at for one in few) <= 240.0
        assert len(times) == 43


HEAD = "http://head:8265"
FOUR = {HEAD: Limits(cpus=4)}


def far(job_id: str, **values: Any) -> Job:
    return job(job_id, backend="ray", **{"address": HEAD, **values})


def far_running(job_id: str, **values: Any) -> Job:
    return running(job_id, backend="ray", address=HEAD, **values)


def simulated(jobs: list[Job], *, takes_s: float, until: float) -> dict[str, float]:
    """When each job starts on the cluster of four CPUs, where every ten seconds somebody looks."""
    times: dict[str, float] = {}
    now = 0.0
    while now <= until:
        served: dict[tuple[str, str], float] = {}
        for one in jobs:
            if one.id in times:
                seconds = min(takes_s, now - times[one.id]) * weight(one.need)
                served[one.queue, one.user] = served.get((one.queue, one.user), 0.0) + seconds
        on = [
            replace(one, state="running", started_at=times[one.id])
            for one in jobs
            if one.id in times and now < times[one.id] + takes_s
        ]
        assert sum(one.need.cpus for one in on) <= 4.0
        waiting = [one for one in jobs if one.created_at <= now and one.id not in times]
        found = choose(
            Situation(waiting, on, {"default": Queue("default")}, NO_LIMITS, "here", now, served, FOUR)
        )
        times |= dict.fromkeys(started(found), now)
        now += 10.0
    return times


class TestPreemption:
    def test_the_last_started_background_job_makes_room(self) -> None:
        on = [
            running("old", priority="P2", started_at=10.0),
            running("young", priority="P2", started_at=20.0),
            running("normal", started_at=30.0),
        ]
        found = choice([job("urgent", priority="P0")], on, limits=Limits(running=3))
        assert found.make_room == {"young": "urgent"}
        assert started(found) == [] and "make room" in found.reasons["urgent"]

    def test_no_more_than_it_takes(self) -> None:
        on = [
            running("small", priority="P2", need=Need(1), started_at=30.0),
            running("large", priority="P2", need=Need(3), started_at=20.0),
        ]
        found = choice([job("urgent", priority="P0", need=Need(3))], on, limits=Limits(cpus=4))
        assert found.make_room == {"large": "urgent"}, "the small one may stay"

    @pytest.mark.parametrize("priority", ["P1", "P2"])
    def test_only_an_urgent_job_makes_others_leave(self, priority: str) -> None:
        found = choice(
            [job("waits", priority=priority)], [running("on", priority="P2")], limits=Limits(running=1)
        )
        assert found.make_room == {}

    def test_nobody_leaves_where_it_would_not_help(self) -> None:
        on = [running("normal", need=Need(3)), running("background", priority="P2", need=Need(1))]
        found = choice([job("urgent", priority="P0", need=Need(4))], on, limits=Limits(cpus=4))
        assert found.make_room == {}

    def test_nobody_leaves_another_queue_for_this_ones_limit(self) -> None:
        on = [running("on"), running("elsewhere", queue="b", priority="P2")]
        found = choice([job("urgent", priority="P0")], on, limits=Limits(running=1), queues={"b": Queue("b")})
        assert found.make_room == {}

    def test_one_that_leaves_already_is_enough_and_its_place_is_kept(self) -> None:
        on = [
            running("leaving", priority="P2", wish="preempt", started_at=5.0, need=Need(2)),
            running("stays", priority="P2", need=Need(1)),
        ]
        waiting = [job("urgent", priority="P0", need=Need(2)), job("normal")]
        found = choice(waiting, on, limits=Limits(cpus=4))
        assert found.make_room == {}
        assert started(found) == [] and found.reasons["normal"] == "what becomes free is kept for urgent"


jobs = st.builds(
    lambda i, user, priority, cpus, age: job(
        f"j{i}", user=user, priority=priority, need=Need(cpus), created_at=NOW - age
    ),
    st.integers(0, 10**6),
    st.sampled_from(["ada", "bob", "eve"]),
    st.sampled_from(["P0", "P1", "P2"]),
    st.sampled_from([0.5, 1.0, 2.0, 5.0]),
    st.floats(0, 5000),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(jobs, max_size=12, unique_by=lambda one: one.id),
    st.lists(jobs, max_size=4, unique_by=lambda one: one.id),
)
def test_no_choice_goes_over_a_limit_and_every_job_is_answered(waiting: list[Job], on: list[Job]) -> None:
    on = [running(f"on-{one.id}", user=one.user, priority=one.priority, need=one.need) for one in on]
    found = choice(waiting, on, limits=Limits(cpus=6, running=5))
    if found.start:
        assert sum(one.need.cpus for one in [*on, *found.start]) <= 6
        assert len(on) + len(found.start) <= 5
    assert {one.id for one in waiting} == {*started(found), *found.reasons}
    assert not set(started(found)) & set(found.reasons)
    assert all(next(one for one in on if one.id == victim).priority == "P2" for victim in found.make_room)
