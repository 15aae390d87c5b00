"""What a run has cost so far, with the runs through which it takes its workers."""

from __future__ import annotations

from raytrain.errors import ConfigError
from raytrain.runs.cost import MADE_OF_OTHERS, Cost, Line, active_seconds, cost_of, sections_of, total
from raytrain.runs.record_types import RunRecord
from raytrain.runs.records import Records

MADE_OF = "runs"
"""In the data of an event: ids of runs that a run of several steps is made of."""


def spent(records: Records, run: RunRecord, now: float) -> Cost:
    """By one run itself, over all of its starts; one that goes on counts up to `now`."""
    return cost_of(active_seconds(run, records.events(run.id), now), *sections_of(run.config))


def spent_with_parts(records: Records, run_id: str, now: float) -> Line | None:
    """By a run, or by those that it is made of; None where nothing of it has begun, as far as these records know."""
    parts = [one for one in parts_of(records, run_id) if one.started_at is not None]
    return total(run_id, [spent(records, one, now) for one in parts]) if parts else None


def parts_of(records: Records, run_id: str) -> list[RunRecord]:
    """The runs that took workers for it, each once: of a search its trials and its probe, of a pipeline the runs of its
    steps, and those whose results it took as they were."""
    found: dict[str, RunRecord] = {}
    _collect(records, run_id, found)
    return [run for run in found.values() if run.kind not in MADE_OF_OTHERS]


def _collect(records: Records, run_id: str, found: dict[str, RunRecord]) -> None:
    if run_id in found:
        return
    try:
        run = found[run_id] = records.get_run(run_id)
    except ConfigError:
        return  # not begun, or known to other records alone
    if run.kind == "tune":
        trials = records.list_runs(kind="train", name=run.name, limit=1_000_000).runs
        found.update({one.id: one for one in trials if one.id.startswith(f"{run_id}-")})
    elif run.kind in MADE_OF_OTHERS:
        for event in records.events(run_id):
            for part in event.data.get(MADE_OF, ()):
                _collect(records, part, found)
