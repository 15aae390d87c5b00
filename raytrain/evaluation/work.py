"""An evaluation under way: what was answered, what it cost, and whether somebody wants it to stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raytrain.evaluation.answering.answerer import Answerer
from raytrain.evaluation.items import Suite
from raytrain.evaluation.records import ItemRecord, RecordFolder
from raytrain.runs.records import Records
from raytrain.runs.signals import SignalWatch
from raytrain.storage.home import run_folder
from raytrain.storage.location import write_atomically


@dataclass(frozen=True)
class EvaluateProgress:
    """Where an evaluation stands: `num_done` of `num_items` in `suite`; `note` is for a person, of the evaluation as a
    whole where no suite is named."""

    suite: str = ""
    num_done: int = 0
    num_items: int = 0
    note: str | None = None


OnProgress = Callable[[EvaluateProgress], None]


@dataclass
class Work:
    """One evaluation under way."""

    run_id: str
    suites: Sequence[Suite]
    answerer: Answerer
    records: Records
    tell: OnProgress
    watch: SignalWatch
    how: dict[str, Any]
    """The `answering` settings, for who wants to answer again in the same way."""
    found: dict[str, dict[str, ItemRecord]] = field(default_factory=dict)
    stopped_by: str | None = None

    @property
    def num_done(self) -> int:
        return sum(map(len, self.found.values()))

    def cost(self) -> dict[str, float]:
        """Seconds and most memory of all sessions so far, as far as they were measured."""
        try:
            content = json.loads(self._cost_file.read_text(encoding="utf-8"))
            return {key: float(value) for key, value in content.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def add_cost(self, seconds: float) -> None:
        known, peak = self.cost(), self.answerer.resources().get("peak_rss_bytes")
        known["wall_s"] = known.get("wall_s", 0.0) + seconds
        if peak:
            known["peak_rss_bytes"] = max(known.get("peak_rss_bytes", 0.0), float(peak))
        write_atomically(self._cost_file, json.dumps(known).encode())

    @property
    def _cost_file(self) -> Path:
        return run_folder(self.run_id) / "records" / "cost.json"

    def folder_of(self, suite: Suite) -> RecordFolder:
        return RecordFolder(run_folder(self.run_id) / "records" / suite.section.suite)

    def should_stop(self) -> bool:
        self.watch.listen()  # Ray, where it was started since, puts its own handler over ours
        if self.watch.signal_name is not None:
            self.stopped_by = self.watch.signal_name
        elif self.records.stop_requested(self.run_id):
            self.stopped_by = "raytrain runs stop"
        return self.stopped_by is not None
