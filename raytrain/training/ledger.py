"""The driver's book of one run: what workers say goes into the records, the metric sinks and before the user's eyes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from raytrain.data.prepare import PrepareProgress
from raytrain.errors import PlatformError, TrainingError
from raytrain.runs.folder import LOG_FILE
from raytrain.runs.ownership import Owner
from raytrain.runs.records import Records
from raytrain.runs.sinks.build import MetricSinks
from raytrain.storage.home import run_folder
from raytrain.training.observer import RunObserver

_HEARTBEAT_EVERY_S = 5.0
_ASK_FOR_STOP_EVERY_S = 2.0


@dataclass
class Ledger:
    """Takes the messages of channel.py in their order. Used by one thread of the driver."""

    run_id: str
    owner: Owner
    records: Records
    sinks: MetricSinks
    observer: RunObserver
    global_step: int = 0
    max_steps: int | None = None
    error: PlatformError | None = None
    result: dict[str, Any] | None = None
    num_worker_groups: int = 0
    world_size: int | None = None
    reason_to_regroup: str | None = None
    phases_s: dict[str, float] = field(default_factory=dict)
    first_step_at: float | None = None
    stopped_by: str | None = None
    """What the observer gave as its reason to stop."""
    _beat_at: float = 0.0
    _asked_at: float = 0.0

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Enter one message; an unknown kind is a fault of ours."""
        handler = getattr(self, f"_on_{kind}", None)
        assert handler is not None, f"no entry for a message of kind {kind}"
        handler(**content)

    def phase(self, text: str, seconds: float | None) -> None:
        """A part of the start-up on the driver."""
        self._on_phase(text, seconds)

    def note(self, text: str) -> None:
        self._on_note(text)

    def rows_progress(self, progress: PrepareProgress) -> None:
        """How far preparing the rows is."""
        if progress.note is not None:
            self._on_note(progress.note)
        self.beat()

    def beat(self) -> None:
        """Say now and then that this driver lives; TrainingError where another process has taken the run over."""
        now = time.monotonic()
        if now - self._beat_at < _HEARTBEAT_EVERY_S:
            return
        self._beat_at = now
        if not self.records.heartbeat(
            self.run_id, self.owner, global_step=self.global_step, max_steps=self.max_steps
        ):
            raise TrainingError(
                f"run {self.run_id} was taken over by another process",
                why="this one was silent for so long that it counted as dead",
                fix="let the other one go on; `raytrain runs show` names it",
            )

    def _log(self, text: str) -> None:
        """What was measured, for people who read along; what happened stands in the events."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (run_folder(self.run_id) / LOG_FILE).open("a", encoding="utf-8") as stream:
            stream.write(f"{stamp} {text}\n")

    def stop_was_asked(self) -> bool:
        """Whether the observer wants it, or somebody ran `raytrain runs stop`; asks the database now and then."""
        self.stopped_by = self.stopped_by or self.observer.stop_reason()
        if self.stopped_by is not None:
            return True
        now = time.monotonic()
        if now - self._asked_at < _ASK_FOR_STOP_EVERY_S:
            return False
        self._asked_at = now
        return self.records.stop_requested(self.run_id)

    def _on_worker(self, world_rank: int, node: str, pid: int, world_size: int, max_workers: int) -> None:
        text = f"worker {world_rank} runs as process {pid}"
        self.records.add_event(
            self.run_id, "worker", text, {"world_rank": world_rank, "node": node, "pid": pid}
        )
        if world_rank == 0:
            self.num_worker_groups += 1
            note = group_note(world_size, max_workers, before=self.world_size, reason=self.reason_to_regroup)
            self.world_size, self.reason_to_regroup = world_size, None
            if note is not None:
                self._on_note(note)

    def _on_notice(self, world_rank: int, reason: str) -> None:
        self.reason_to_regroup = f"worker {world_rank} had to go"
        self._on_note(f"worker {world_rank} has to go ({reason}): saving first")

    def _on_restarting(self, why: str | None) -> None:
        if why is not None:
            self._on_note(f"the workers have ended before their time, Ray looks for room for others ({why})")

    def _on_resizing(self, num_workers: int) -> None:
        self.reason_to_regroup = f"the cluster has room for {num_workers}"
        self._on_note(f"the cluster has room for {num_workers} workers: saving, then going on with them")

    def _on_phase(self, text: str, seconds: float | None) -> None:
        if seconds is not None:
            self.phases_s[text] = self.phases_s.get(text, 0.0) + seconds
            self._log(f"{text}: {seconds:.1f} s")
        self.observer.phase(text, seconds)

    def _on_plan(
        self,
        max_steps: int,
        num_rows: int,
        num_validation_rows: int,
        num_trainable: int,
        global_step: int,
        told_before: list[dict[str, Any]],
        tokens: dict[str, Any],
        dropped: dict[str, int],
    ) -> None:
        """told_before: what was told last until this step, as the checkpoint has it: all of some steps' metrics."""
        # Also where no checkpoint was there: workers that died before the first one begin again at step 0.
        missing = [point for point in told_before if not self._heard(point)]
        after = missing[0]["global_step"] - 1 if missing else global_step
        self.sinks.rewind(after)
        for point in told_before:
            if point["global_step"] > after:
                self.sinks.write(point["global_step"], point["time"], point["metrics"])
        self.max_steps, self.global_step = max_steps, global_step
        for reason, count in dropped.items():
            self._on_note(f"{count} training rows are left out: {reason.replace('_', ' ')}")
        self.records.add_artifact(self.run_id, "tokens", "read", "tokens", **tokens)
        self.records.add_event(
            self.run_id,
            "plan",
            f"{max_steps} steps over {num_rows} rows, {num_validation_rows} validation rows, "
            f"{num_trainable} trainable parameters",
        )
        self.observer.plan(
            run_id=self.run_id,
            max_steps=max_steps,
            global_step=global_step,
            num_rows=num_rows,
            num_trainable=num_trainable,
        )

    def _heard(self, point: dict[str, Any]) -> bool:
        """Whether the records have it: they are written in order, after metrics.jsonl."""
        last = (self.records.last_value(self.run_id, key) for key in point["metrics"])
        return all(one is not None and one.global_step >= point["global_step"] for one in last)

    def _on_resumed(self, global_step: int, uri: str, digest: str) -> None:
        self.records.add_artifact(self.run_id, "resumed_from", "read", "checkpoint", digest, uri)
        self._on_note(f"resumed at step {global_step} from {uri}")

    def _on_metrics(self, global_step: int, time: float, metrics: dict[str, float]) -> None:
        if self.first_step_at is None:
            self.first_step_at = time
        self.global_step = global_step
        self.sinks.write(global_step, time, metrics)
        self._log(f"step {global_step}: " + ", ".join(f"{key} {value:.6g}" for key, value in metrics.items()))
        self.observer.metrics(global_step, metrics)

    def _on_checkpoint(
        self, global_step: int, uri: str, digest: str, size_bytes: int, write_s: float
    ) -> None:
        self.records.add_artifact(self.run_id, "checkpoint", "written", "checkpoint", digest, uri)
        self.records.add_event(
            self.run_id,
            "checkpoint",
            f"step {global_step}: {size_bytes / 1e6:.1f} MB in {write_s:.2f} s",
            {"global_step": global_step, "uri": uri, "digest": digest},
        )

    def _on_event(self, event: str, text: str, **data: Any) -> None:
        self.records.add_event(self.run_id, event, text, data)
        self.observer.note(text)

    def _on_note(self, text: str) -> None:
        self.records.add_event(self.run_id, "note", text)
        self.observer.note(text)

    def _on_result(self, **result: Any) -> None:
        self.result = result
        self.global_step = result["global_step"]

    def _on_error(self, error: PlatformError) -> None:
        self.error = self.error or error


def group_note(world_size: int, max_workers: int, *, before: int | None, reason: str | None) -> str | None:
    """What to tell of a new group of workers; `before` is the size of the group that it replaces.

    `reason` is None where nobody announced the change: then a worker died.
    """
    if before is None:
        is_whole = world_size == max_workers
        return (
            None
            if is_whole
            else f"begins with {world_size} of {max_workers} workers: there is no room for more"
        )
    reason = reason or "a worker died"
    if world_size == before:
        return f"{reason}; Ray started the workers anew"
    return f"goes on with {world_size} of {max_workers} workers: {reason}"
