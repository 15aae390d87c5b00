"""What the records give back: plain values, free of SQLAlchemy. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError
from raytrain.runs.ownership import Owner

RunState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
RUN_STATES: tuple[RunState, ...] = get_args(RunState)
RunKind = Literal["train", "evaluate", "tune", "pipeline", "watch", "retrain"]
RUN_KINDS: tuple[RunKind, ...] = get_args(RunKind)
Direction = Literal["read", "written"]

T = TypeVar("T", bound=str)

OWNER_GONE = "owner gone"


def check_state(text: str) -> RunState:
    """`text` as a state; ConfigError with the nearest one where it is none."""
    return one_of(text, RUN_STATES, "state of a run")


def check_kind(text: str) -> RunKind:
    """`text` as a kind of run; ConfigError with the nearest one where it is none."""
    return one_of(text, RUN_KINDS, "kind of a run")


def one_of(text: str, known: Sequence[T], what: str) -> T:
    """The one that `text` names; ConfigError with the nearest where it names none."""
    for one in known:
        if one == text:
            return one
    near = nearest(text, known)
    raise ConfigError(
        f"`{text}` is no {what}",
        why=f"it is one of {', '.join(known)}",
        fix=f"did you mean `{near}`?" if near else "name one of these",
    )


@dataclass(frozen=True)
class RunRecord:
    """One run as it stands.

    `state` is the stored one, except that a run whose owner died without a word is `failed` and `owner_gone`.
    """

    id: str
    kind: str
    name: str
    state: RunState
    config: dict[str, Any]
    config_digest: str
    created_at: float
    storage_uri: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    owner: Owner | None = None
    heartbeat_at: float | None = None
    exit_reason: str | None = None
    error: dict[str, Any] | None = None
    global_step: int = 0
    max_steps: int | None = None
    stop_requested: bool = False
    owner_gone: bool = False

    @property
    def label(self) -> str:
        """The state for a person's eye."""
        if self.owner_gone:
            return f"failed ({OWNER_GONE})"
        return "running (stopping)" if self.state == "running" and self.stop_requested else self.state

    @property
    def is_resumable(self) -> bool:
        """The same command goes on with it: it began, ended short of success, and nobody holds it."""
        return self.state in ("failed", "cancelled")


@dataclass(frozen=True)
class RunPage:
    """A part of the runs that fit a filter, newest first, and how many fit in all."""

    runs: list[RunRecord]
    total: int


class MetricPoint(NamedTuple):
    global_step: int
    value: float
    time: float


class MetricRow(NamedTuple):
    """What was measured at one step, by metric key."""

    global_step: int
    time: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class EventRecord:
    time: float
    kind: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True)
class ArtifactUse:
    """An artifact in its role in one run."""

    run_id: str
    role: str
    direction: Direction
    kind: str
    digest: str
    uri: str | None
    time: float


@dataclass(frozen=True)
class ArtifactRecord:
    digest: str
    kind: str
    uri: str | None
    parents: dict[str, str]
    """Role to digest, as in the manifest."""
    uses: list[ArtifactUse]


@dataclass(frozen=True)
class LineageNode:
    """An artifact, the run that wrote it, what it was made from. `kind` is None where it is not recorded."""

    digest: str
    role: str | None
    kind: str | None
    uri: str | None
    written_by: str | None
    parents: list[LineageNode] = field(default_factory=list)
