"""When a run saves, and what happens around a save on every rank."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch

from raytrain.training.channel import Channel
from raytrain.training.checkpoint import Belonging, take_snapshot
from raytrain.training.checkpoint_store import BackgroundWriter, CheckpointStore, SavedCheckpoint
from raytrain.training.gradients import GradientCheck
from raytrain.training.hooks import Hook
from raytrain.training.random_state import capture_random_state
from raytrain.training.section import TrainSection
from raytrain.training.state import TrainingState
from raytrain.training.strategies.base import Strategy
from raytrain.training.told import Told


def should_save(
    global_step: int, *, last_saved_step: int, section: TrainSection, clock_says_so: bool, is_new_best: bool
) -> bool:
    """Every N steps, every M minutes (rank 0's clock, told to all), and at a new best that retention wants to keep."""
    if global_step == last_saved_step:
        return False
    by_steps = section.save_every > 0 and global_step % section.save_every == 0
    return by_steps or clock_says_so or (is_new_best and section.keep_best_k > 0 and section.saves)


class Saver:
    """Takes snapshots between two steps and has rank 0 write them in the background."""

    def __init__(
        self,
        *,
        section: TrainSection,
        strategy: Strategy,
        channel: Channel,
        store: CheckpointStore,
        belonging: Belonging,
        provenance: dict[str, Any],
        run_id: str,
    ) -> None:
        self._section = section
        self._strategy = strategy
        self._channel = channel
        self.store = store
        self.belonging = belonging
        self._provenance = provenance
        self.told = Told(run_id)
        self._writer = BackgroundWriter()
        self.last_saved_step = -1
        self._last_saved_at = time.monotonic()
        self.blocked_s = 0.0
        self.num_saved = 0

    def tell_metrics(self, global_step: int, metrics: dict[str, float]) -> None:
        """Tell the driver; the next checkpoints have them too, in case it does not hear of them."""
        point = {"global_step": global_step, "time": time.time(), "metrics": metrics}
        self.told.add(point)
        self._channel.send("metrics", **point)

    def clock_says_so(self) -> bool:
        """Whether `save_every_minutes` have passed; asked on rank 0."""
        minutes = self._section.save_every_minutes
        return minutes is not None and time.monotonic() - self._last_saved_at >= 60 * minutes

    def save(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        *,
        learning_rate: float,
        gradients: GradientCheck,
        scaler: torch.amp.GradScaler,
        hooks: dict[str, Hook],
    ) -> None:
        """*Collective.* Copy everything to the CPU, then return while rank 0 goes on writing."""
        started = time.perf_counter()
        for hook in hooks.values():
            hook.on_checkpoint(state.global_step)
        random = self._strategy.gather_on_rank_zero(capture_random_state())
        self.last_saved_step = state.global_step
        self._last_saved_at = time.monotonic()
        content = {
            "training": state.to_json(),
            "learning_rate": learning_rate,
            "gradients": gradients.state_dict(),
            "scaler": scaler.state_dict(),
            "hooks": {name: hook.state_dict() for name, hook in hooks.items()},
            "belonging": asdict(self.belonging),
            "world_size": self._strategy.world_size,
        }
        self._writer.wait()  # before the copy: two snapshots at once would need the memory twice
        snapshot = take_snapshot(model, optimizer, self._strategy, content, random)
        if snapshot is not None:
            parents = {
                "dataset": self.belonging.dataset_digest,
                "base_model": self.belonging.base_model_digest,
            }
            monitored = state.monitored(self._section.monitor)
            provenance = {
                **self._provenance,
                "monitored": {self._section.monitor: monitored},
                "told": self.told.content(),
            }
            self._writer.submit(lambda: self._write(snapshot, parents, provenance))
        self.blocked_s += time.perf_counter() - started
        self.num_saved += 1

    def _write(self, snapshot: Any, parents: dict[str, str], provenance: dict[str, Any]) -> SavedCheckpoint:
        saved = self.store.write(snapshot, parents, provenance)
        if saved.error is None:
            self.store.prune(
                keep_last_n=self._section.keep_last_n,
                keep_best_k=self._section.keep_best_k,
                mode=self._section.mode,
            )
        return saved

    def finished(self) -> list[SavedCheckpoint]:
        """Writes that ended since the last call, told to the driver; empty on ranks other than 0."""
        results = self._writer.finished()
        for saved in results:
            if saved.error is not None:
                self._channel.send(
                    "note", text=f"checkpoint of step {saved.global_step} failed: {saved.error.what}"
                )
                continue
            self._channel.send(
                "checkpoint",
                global_step=saved.global_step,
                uri=str(saved.location),
                digest=saved.digest,
                size_bytes=saved.size_bytes,
                write_s=saved.write_s,
            )
            if saved.mirror_error is not None:
                self._channel.send(
                    "note", text=f"the mirror has no copy of step {saved.global_step}: {saved.mirror_error}"
                )
        return results

    def wait(self) -> None:
        """Block until the write in the background has ended."""
        started = time.perf_counter()
        self._writer.wait()
        self.blocked_s += time.perf_counter() - started
