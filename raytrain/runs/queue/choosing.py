"""Which jobs start now, and which make room for them: a function of what waits and what runs.

Order: priority; then who had less, queue by queue and user by user, over the last day; then age. What does not fit lets
others pass, unless it has waited for long: then what becomes free is kept for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raytrain.runs.queue.job import NOTHING, PRIORITIES, Job, Limits, Need, Queue

KEEP_FREE_AFTER_S = 900.0
NOMINAL_S = 600.0
"""A job that runs counts as this much more, or one user would get every place that becomes free at once."""

_GPU_IN_CPUS = 8.0


@dataclass(frozen=True)
class Situation:
    """What the decision is about. `room` is this machine's, for jobs of the back end `local`."""

    waiting: Sequence[Job]
    running: Sequence[Job]
    queues: Mapping[str, Queue]
    room: Limits
    host: str
    now: float
    served: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By queue and user: weighted seconds of the last day."""
    clusters: Mapping[str, Limits] = field(default_factory=dict)
    """What each has, by its address, for jobs of the back end `ray`; of one that is not here nobody can say."""
    obstacle: Callable[[Job], str | None] = lambda _: None
    """Why whoever decides here cannot start a job, which another may."""


@dataclass(frozen=True)
class Choice:
    """`make_room` maps a running job's id to the job that it makes room for; `reasons` says why a job waits."""

    start: list[Job]
    make_room: dict[str, str]
    reasons: dict[str, str]


def weight(need: Need) -> float:
    """Of a second of this job, as fairness counts it."""
    return max(need.cpus + _GPU_IN_CPUS * need.gpus, 0.1)


def choose(situation: Situation) -> Choice:
    """Decide for one moment; nothing is changed."""
    return _Chooser(situation).choose()


class _Chooser:
    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self.taken = list(situation.running)
        self.by_queue: defaultdict[str, float] = defaultdict(float)
        self.by_user: defaultdict[tuple[str, str], float] = defaultdict(float)
        for (queue, user), seconds in situation.served.items():
            self._charge(queue, user, seconds)
        for job in situation.running:
            self._charge(job.queue, job.user, NOMINAL_S * weight(job.taken))
        self.kept: dict[str, str] = {}
        """Scope (a queue's name, "" for this machine, a cluster's address) to the job that it is kept free for."""
        self.choice = Choice([], {}, {})

    def choose(self) -> Choice:
        waiting = [job for job in self.situation.waiting if self._may_start(job)]
        while waiting:
            job = min(waiting, key=self._rank)
            waiting.remove(job)
            self._place(job)
        return self.choice

    def _may_start(self, job: Job) -> bool:
        if self._queue(job).state == "paused":
            self.choice.reasons[job.id] = f"queue {job.queue} is paused"
        elif job.ready_at > self.situation.now:
            self.choice.reasons[job.id] = f"is tried again in {job.ready_at - self.situation.now:.0f} s"
        elif (obstacle := self.situation.obstacle(job)) is not None:
            self.choice.reasons[job.id] = obstacle
        return job.id not in self.choice.reasons

    def _rank(self, job: Job) -> tuple[int, float, float, float, str]:
        return (
            PRIORITIES.index(job.priority),
            self.by_queue[job.queue],
            self.by_user[job.queue, job.user],
            job.created_at,
            job.id,
        )

    def _place(self, job: Job) -> None:
        keeper = next((self.kept[scope] for scope in self._scopes(job) if scope in self.kept), None)
        if keeper is not None:
            self.choice.reasons[job.id] = f"what becomes free is kept for {keeper}"
            return
        reason = self._in_the_way(job, self.taken)
        if reason is None:
            self.choice.start.append(job)
            self.taken.append(job)
            self._charge(job.queue, job.user, NOMINAL_S * weight(job.need))
            return
        self.choice.reasons[job.id] = reason
        if self._in_the_way(job, []) is not None:
            self.choice.reasons[job.id] = f"can never start: {self._in_the_way(job, [])}"
            return
        made_room = job.priority == "P0" and self._make_room(job)
        if made_room or self.situation.now - max(job.created_at, job.ready_at) > KEEP_FREE_AFTER_S:
            self.kept |= dict.fromkeys(self._scopes(job), job.id)

    def _make_room(self, job: Job) -> bool:
        """Background jobs, the latest started first, until the urgent one would fit; none where it never would."""
        leaving = {one.id for one in self.taken if one.wish is not None or one.id in self.choice.make_room}
        rest = [one for one in self.taken if one.id not in leaving]
        asked: list[Job] = []
        background = [
            one for one in rest
            if one.priority == "P2" and one in self.situation.running and one.gave_back_at is None
        ]  # fmt: skip
        for victim in sorted(background, key=lambda one: -(one.started_at or 0.0)):
            if self._in_the_way(job, rest) is None:
                break
            without = [one for one in rest if one.id != victim.id]
            if self._shares_a_scope(job, victim):
                rest = without
                asked.append(victim)
        if self._in_the_way(job, rest) is not None:
            return False
        # Those that the room is there without stay.
        for victim in list(asked):
            if self._in_the_way(job, [*rest, victim]) is None:
                rest.append(victim)
                asked.remove(victim)
        self.choice.make_room.update(dict.fromkeys((one.id for one in asked), job.id))
        if asked or leaving:
            self.choice.reasons[job.id] += "; background jobs make room"
        return True

    def _shares_a_scope(self, job: Job, other: Job) -> bool:
        return bool(set(self._scopes(job)) & set(self._scopes(other)))

    def _scopes(self, job: Job) -> list[str]:
        # A job that waits may have been carried elsewhere before; it would start here.
        is_elsewhere = (
            job.state == "running" and job.owner is not None and job.owner.host != self.situation.host
        )
        is_here = job.backend == "local" and not is_elsewhere
        place = [""] if is_here else [job.address] if self._room_of(job) is not None else []
        return [job.queue, *(one for one in place if one is not None)]

    def _room_of(self, job: Job) -> Limits | None:
        """Of its cluster. None where nobody can say, or the job is larger than that: it is for the cluster then to
        grow, or to refuse it in its own words."""
        room = None if job.backend != "ray" else self.situation.clusters.get(job.address or "")
        return None if room is None or _over(room, job.need, [], "") is not None else room

    def _in_the_way(self, job: Job, taken: Iterable[Job]) -> str | None:
        """Why `job` does not fit beside the `taken` ones; None where it does."""
        taken = list(taken)
        beside = [one for one in taken if one.queue == job.queue]
        reason = _over(self._queue(job).limits, job.need, beside, f"queue {job.queue}")
        if reason is None and job.backend == "local":
            here = [one for one in taken if "" in self._scopes(one)]
            reason = _over(self.situation.room, job.need, here, "this machine")
        if reason is None and (room := self._room_of(job)) is not None:
            there = [one for one in taken if one.backend == "ray" and one.address == job.address]
            reason = _over(room, job.need, there, f"the cluster at {job.address}")
        return reason

    def _queue(self, job: Job) -> Queue:
        return self.situation.queues.get(job.queue) or Queue(job.queue)

    def _charge(self, queue: str, user: str, seconds: float) -> None:
        self.by_queue[queue] += seconds
        self.by_user[queue, user] += seconds


def _over(limits: Limits, need: Need, beside: Sequence[Job], where: str) -> str | None:
    num_beside = sum(one.gave_back_at is None for one in beside)
    if limits.running is not None and num_beside + 1 > limits.running:
        return f"{where} runs {num_beside} of {limits.running} jobs"
    short = limits.shortage(need, sum((one.taken for one in beside), NOTHING))
    if short is None:
        return None
    return f"needs {short.wanted:g} {short.noun}, {where} has {short.free:g} of {short.limit:g} free"
