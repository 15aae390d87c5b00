"""Real `raytrain train` processes of a check: started with a home of their own, held, and killed with kill -9."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from raytrain.errors import TrainingError
from raytrain.runs.folder import read_json_lines
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.training.checks.holding import (
    FOLDER_VARIABLE,
    RESUMED_FILE,
    SEEN_FILE,
    Place,
    held_ranks,
    hold_at,
)
from raytrain.training.checks.trace import Trace, read_checkpoints, read_steps
from raytrain.training.spec import RunSpec

_TOKEN_VARIABLE = "RAYTRAIN_CHECK_TOKEN"
_POLL_S = 0.1
_LONGEST_WAIT_S = 1800.0
_END_S = 30.0


@dataclass
class Line:
    """One run in a folder of its own (home, storage, the hook's notes), carried on by one process after another."""

    folder: Path
    spec: RunSpec
    result: dict[str, Any] | None = None
    _num_legs: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.notes = self.folder / "notes"
        self.notes.mkdir(parents=True)
        storage = self.spec.storage.model_copy(update={"path": str(self.folder / "storage"), "mirror": None})
        self.spec = self.spec.model_copy(update={"storage": storage})
        self.recipe = self.folder / "recipe.yaml"
        self.recipe.write_text(self.spec.to_yaml(), encoding="utf-8")

    @property
    def run_id(self) -> str:
        return self.spec.run_id

    @property
    def run_folder(self) -> Path:
        """Metrics, events and TensorBoard files."""
        return self.home / "runs" / self.run_id

    @property
    def checkpoints(self) -> Path:
        return self.folder / "storage" / "runs" / self.run_id / "checkpoints"

    def resumed_at(self) -> list[int]:
        """The steps from which its processes went on, in their order."""
        by_pid = {line["pid"]: int(line["step"]) for line in read_json_lines(self.notes / RESUMED_FILE)}
        steps = list(by_pid.values())
        return steps[:: self.spec.scaling.max_workers]

    def artifact(self) -> Artifact | None:
        place = (self.result or {}).get("artifact")
        return None if place is None else open_artifact(Location(place))

    def trace(self) -> Trace:
        """What it did, and every checkpoint, verified."""
        return Trace(read_steps(self.notes / SEEN_FILE), read_checkpoints(self.checkpoints), self.artifact())

    def run_to_the_end(self) -> None:
        """A leg that nobody kills. Raises TrainingError with the run's own words where it does not succeed."""
        hold_at(self.notes, None)
        with _Process(self) as process:
            code = process.wait()
            self.result = process.said()
        if code != 0:
            raise _ended_badly(process, code)

    def run_and_kill(self, place: Place, *, after_checkpoint: int) -> None:
        """A leg that is held at `place` and ends there, all its processes at once, as in a power cut.

        The checkpoint of `after_checkpoint` stands before.
        """
        hold_at(self.notes, place)
        num_held = 1 if place.moment == "mid-save" else self.spec.scaling.max_workers
        manifest = self.checkpoints / f"step-{after_checkpoint:08d}" / "manifest.json"
        with _Process(self) as process:
            process.wait_until(lambda: held_ranks(self.notes, place) >= num_held and manifest.exists(), place)


class _Process:
    """`raytrain train` and all that it starts, told apart by a variable in their environment."""

    def __init__(self, line: Line) -> None:
        line._num_legs += 1
        self._token = uuid.uuid4().hex
        # Short, as Ray puts Unix sockets below it, whose paths may have 107 characters.
        self._ray_folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp" if os.name == "posix" else None))
        self._files = tuple(line.folder / f"leg-{line._num_legs}.{name}" for name in ("out", "err"))
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        kept.pop("RAYTRAIN_DATABASE", None)
        environment = {
            **kept,
            "RAYTRAIN_HOME": str(line.home),
            "RAY_TMPDIR": str(self._ray_folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            FOLDER_VARIABLE: str(line.notes),
            _TOKEN_VARIABLE: self._token,
        }
        with self._files[0].open("w") as stdout, self._files[1].open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raytrain", "train", str(line.recipe), "--json"],
                env=environment, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._ray_folder, ignore_errors=True)

    def wait(self) -> int:
        return self._process.wait(_LONGEST_WAIT_S)

    def wait_until(self, condition: Callable[[], bool], place: Place) -> None:
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while not condition():
            code = self._process.poll()
            if code is not None:
                raise _ended_badly(self, code)
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"a run of the check never came to {place.moment} at step {place.step}",
                    why=self.last_words(),
                    fix="see that the recipe trains with `raytrain train`, then check again",
                )
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """SIGKILL to the driver first, so that it can save nothing, then to all that it started."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(_END_S)
        left = self._started()
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_END_S)

    def _started(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(_TOKEN_VARIABLE) == self._token:
                    found.append(process)
        return found

    def said(self) -> dict[str, Any]:
        """The object on its stdout; empty where there is none."""
        try:
            said: dict[str, Any] = json.loads(self._files[0].read_text())
        except ValueError:
            return {}
        return said

    def last_words(self) -> str:
        error = self.said().get("error")
        if error is not None:
            return f"{error['what']}: {error['why']}"
        lines = self._files[1].read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _ended_badly(process: _Process, code: int) -> TrainingError:
    return TrainingError(
        f"a run of the check ended with exit code {code}",
        why=process.last_words(),
        fix="mend what it says, then check again; `raytrain train` with the same recipe ends the same way",
    )
