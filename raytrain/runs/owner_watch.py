"""What becomes of a running run whose owner died without a word."""

from __future__ import annotations

from dataclasses import dataclass, replace

from raytrain.runs.ownership import StartTimeOf, owner_is_alive
from raytrain.runs.record_types import OWNER_GONE, RunRecord


@dataclass(frozen=True)
class OwnerWatch:
    """Owners of runs, as they are seen from one machine."""

    this_host: str
    start_time_of: StartTimeOf

    def is_alive(self, run: RunRecord, now: float) -> bool:
        return run.owner is not None and owner_is_alive(
            run.owner, run.heartbeat_at, now, self.this_host, self.start_time_of
        )

    def as_it_stands(self, run: RunRecord, now: float) -> RunRecord:
        """A running run whose owner is dead has failed, although nobody was left to write it down."""
        if run.state != "running" or self.is_alive(run, now):
            return run
        return replace(
            run, state="failed", exit_reason=OWNER_GONE, owner_gone=True, ended_at=run.heartbeat_at
        )
