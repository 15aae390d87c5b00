"""What one trial is given to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Donor:
    """Of a population's trial: whose checkpoint it goes on from, and up to which step it goes."""

    run_id: str | None
    """None = it begins at step 0."""
    until_step: int


@dataclass(frozen=True)
class TrialTask:
    """One trial: its number in the study, its run, and the values of its keys. Picklable."""

    number: int
    run_id: str
    values: Mapping[str, Any]
    donor: Donor | None = None


Ending = Literal["complete", "pruned", "diverged", "stopped", "failed", "unreported", "outage"]


@dataclass(frozen=True)
class Ended:
    """How a trial ended, as it tells the driver; one object, which Ray Tune hands on as it is.

    Pruned is one that others were better than, diverged one whose numbers are none any more. An outage, of the storage
    or the cluster, says nothing of the trial's values: it is taken up again.
    """

    state: Ending
    reason: str | None = None
    """Why it gave no result; of `unreported` the metric that is missing."""
    fix: str | None = None
    objectives: list[float] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    global_step: int = 0


def probe_run_id(study_name: str) -> str:
    """The short run that the forecast is made from."""
    return f"{study_name}-probe"


def trial_run_id(study_name: str, number: int) -> str:
    """The run of a trial, the same whenever the search is taken up again."""
    return f"{study_name}-{number:04d}"
