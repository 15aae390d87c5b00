"""The hook that `raytrain check resume` puts into the workers of its runs.

It notes what each rank saw in every step, and holds the run where the check wants to kill it: after a step, with only
a part of a step's gradients made, or with a checkpoint half written. The check and the workers meet in the folder that
the environment names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from raytrain.storage.manifest import digest_of, short_digest
from raytrain.training import checkpoint, checkpoint_store, loop
from raytrain.training.hooks import Hook
from raytrain.training.job import Job
from raytrain.training.random_state import capture_random_state

FOLDER_VARIABLE = "RAYTRAIN_CHECK_FOLDER"
SEEN_FILE = "seen.jsonl"
RESUMED_FILE = "resumed.jsonl"
_PLACE_FILE = "place.json"
_LONGEST_HOLD_S = 300.0

Moment = Literal["mid-epoch", "mid-accumulation", "mid-save"]


@dataclass(frozen=True)
class Place:
    """Where a run is held: after `step`; inside `step`; while the checkpoint of `step` is written."""

    moment: Moment
    step: int


def hold_at(folder: Path, place: Place | None) -> None:
    """Have the next run hold there; None lets it go."""
    staged = folder / f"{_PLACE_FILE}.tmp"
    staged.write_text(json.dumps(None if place is None else asdict(place)))
    staged.replace(folder / _PLACE_FILE)


def held_ranks(folder: Path, place: Place) -> int:
    """How many workers stand at `place`."""
    return sum(1 for _ in folder.glob(_mark(place, "*")))


def _mark(place: Place, rank: int | str) -> str:
    return f"held-{place.moment}-{place.step}-rank{rank}"


class Hold(Hook):
    """Made on every worker. Wraps what the loop calls by name, in the worker's process alone."""

    def __init__(self) -> None:
        self._folder = Path(os.environ[FOLDER_VARIABLE])
        self._rank = 0
        self._num_steps = 0
        self._step = 0  # the one that is being made
        self._num_micro_batches = 0
        self._rows: list[str] = []
        self._saving: int | None = None
        self._wrap_micro_batch(loop.micro_batch)
        self._wrap_take_step(loop.take_step)
        self._wrap_writing()

    def _wrap_micro_batch(self, before: Callable[..., Any]) -> None:
        def noting(job: Job, rows: Any) -> Any:
            self._rank = job.strategy.world_rank
            self._step = job.state.global_step + 1
            if self._num_micro_batches > 0:
                self._maybe_hold("mid-accumulation", self._step)
            self._num_micro_batches += 1
            self._rows += [_row_id(job.planner.table, int(row)) for row in rows]
            return before(job, rows)

        loop.micro_batch = noting

    def _wrap_take_step(self, before: Callable[..., Any]) -> None:
        def holding(job: Job) -> Any:
            # Where a step has one micro-batch: its gradients are there, the step is not made.
            self._maybe_hold("mid-accumulation", self._step)
            return before(job)

        loop.take_step = holding

    def _wrap_writing(self) -> None:
        """On rank 0, in the thread that writes: one checkpoint at a time."""
        write, save_file = checkpoint_store.write_snapshot, checkpoint.save_file  # type: ignore[attr-defined]

        def writing(snapshot: Any, folder: Path) -> None:
            self._saving = snapshot.global_step
            write(snapshot, folder)

        def holding(tensors: Any, filename: Any, **options: Any) -> Any:
            # The weights are in the staging folder, the optimizer is not.
            if self._saving is not None:
                self._maybe_hold("mid-save", self._saving)
            return save_file(tensors, filename, **options)

        checkpoint_store.write_snapshot = writing  # type: ignore[attr-defined]
        checkpoint.save_file = holding  # type: ignore[attr-defined]

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        line = {
            "step": global_step,
            "rank": self._rank,
            "rows": self._rows,
            "loss": metrics["train/loss"],
            "random": {name: short_digest(digest_of(one)) for name, one in capture_random_state().items()},
        }
        self._write(SEEN_FILE, line)
        self._num_steps = global_step
        self._rows = []
        self._num_micro_batches = 0
        self._maybe_hold("mid-epoch", global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self._num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._num_steps = int(state["num_steps"])
        self._write(RESUMED_FILE, {"step": self._num_steps, "pid": os.getpid()})

    def _write(self, name: str, line: dict[str, Any]) -> None:
        with (self._folder / name).open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def _maybe_hold(self, moment: Moment, step: int) -> None:
        """Stay here for as long as the check wants this very place."""
        here = Place(moment, step)
        deadline = time.monotonic() + _LONGEST_HOLD_S
        while self._wanted() == asdict(here) and time.monotonic() < deadline:
            (self._folder / _mark(here, self._rank)).touch()
            time.sleep(0.05)

    def _wanted(self) -> Any:
        try:
            return json.loads((self._folder / _PLACE_FILE).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _row_id(table: Any, row: int) -> str:
    row_ids = getattr(table, "row_ids", None)
    return str(row_ids[row]) if row_ids else str(row)
