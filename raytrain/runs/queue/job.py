"""Jobs of the queue as plain values. Times are seconds since the epoch, resources what Ray counts too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import one_of

Priority = Literal["P0", "P1", "P2"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Urgent, normal, background. An urgent job may have background ones saved and put back."""

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)
ENDED: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")

QueueState = Literal["open", "paused", "draining"]
"""paused: takes jobs and starts none. draining: takes none and works off those that it has."""

BackendName = Literal["local", "ray"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)

Wish = Literal["cancel", "preempt"]
"""Why a running job was asked to save and end."""

DEFAULT_QUEUE = "default"


@dataclass(frozen=True)
class Need:
    """What a job takes while it runs."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0

    def __add__(self, other: Need) -> Need:
        return Need(self.cpus + other.cpus, self.gpus + other.gpus, self.memory_bytes + other.memory_bytes)


NOTHING = Need(0.0, 0.0, 0)


@dataclass(frozen=True)
class Shortage:
    """Numbers are of what `noun` counts."""

    noun: str
    """CPUs, GPUs or GB of memory."""
    wanted: float
    free: float
    limit: float


@dataclass(frozen=True)
class Limits:
    """The most that jobs take together; None = no limit."""

    cpus: float | None = None
    gpus: float | None = None
    memory_bytes: int | None = None
    running: int | None = None

    def shortage(self, need: Need, taken: Need = NOTHING) -> Shortage | None:
        """The first resource of which `need` does not fit beside what is taken; `running` is not asked."""
        for noun, wanted, used, limit in (
            ("CPUs", need.cpus, taken.cpus, self.cpus),
            ("GPUs", need.gpus, taken.gpus, self.gpus),
            ("GB of memory", need.memory_bytes / 1e9, taken.memory_bytes / 1e9, _in_gb(self.memory_bytes)),
        ):
            if limit is not None and wanted > 0 and wanted + used > limit + 1e-9:
                return Shortage(noun, wanted, max(0.0, limit - used), limit)
        return None


def _in_gb(memory_bytes: int | None) -> float | None:
    return None if memory_bytes is None else memory_bytes / 1e9


@dataclass(frozen=True)
class Queue:
    name: str
    state: QueueState = "open"
    limits: Limits = Limits()


@dataclass(frozen=True)
class Job:
    """One `raytrain` command that waits, runs or has ended."""

    id: str
    queue: str
    priority: Priority
    user: str
    words: Sequence[str]
    """Of the command line, behind `raytrain`."""
    folder: str
    """Where the command runs."""
    backend: BackendName
    need: Need
    created_at: float
    ready_at: float
    """Not to be started before: a failed one waits a while."""
    state: JobState = "queued"
    address: str | None = None
    """Of the cluster's Jobs API, for the back end `ray`."""
    package: str | None = None
    """Zip file of the folder as it was at submission, for the back end `ray`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    """The run that the command makes, where that is known beforehand."""
    max_retries: int = 3
    num_starts: int = 0
    """Also the fence: whoever acts for an earlier start than the last is not heard."""
    num_failures: int = 0
    num_losses: int = 0
    """Times that the machine or cluster went away under it."""
    started_at: float | None = None
    ended_at: float | None = None
    gave_back_at: float | None = None
    """Since then this start waits for something outside: it takes no workers any more, and no place beside others."""
    wish: Wish | None = None
    wished_at: float | None = None
    scheduler: str | None = None
    owner: Owner | None = None
    """The process that carries it, for the back end `local`, once it has said so."""
    heartbeat_at: float | None = None
    exit_code: int | None = None
    exit_reason: str | None = None
    log_tail: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def taken(self) -> Need:
        """What it takes while it runs: of what it needed only the memory, once it has given the rest back."""
        return self.need if self.gave_back_at is None else Need(0.0, 0.0, self.need.memory_bytes)

    @property
    def label(self) -> str:
        """The state for a person's eye."""
        if self.state == "running" and self.wish is not None:
            return f"running (asked to save and {'end' if self.wish == 'cancel' else 'make room'})"
        if self.state == "running" and self.gave_back_at is not None:
            return "running (it waits, and has given its CPUs and GPUs back)"
        return self.state

    @property
    def submission_id(self) -> str:
        """What Ray's Jobs API calls this start; Ray takes no name twice."""
        return f"{self.id}-{self.num_starts}"


def check_priority(text: str) -> Priority:
    """ConfigError with what there is where `text` is none."""
    return one_of(text.upper(), PRIORITIES, "priority")


def check_backend(text: str) -> BackendName:
    """ConfigError with what there is where `text` is none."""
    return one_of(text, BACKENDS, "back end")


def check_job_state(text: str) -> JobState:
    """ConfigError with what there is where `text` is none."""
    return one_of(text, JOB_STATES, "state of a job")
