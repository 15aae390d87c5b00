"""What trials leave on the storage, and what of it goes."""

from __future__ import annotations

import threading

from raytrain.storage.location import Location
from raytrain.training.checkpoint_store import checkpoint_folder, folder_of
from raytrain.tuning.budget import Kept, choose_to_drop
from raytrain.tuning.study import GENERATION, RUN_ID, StudyMemory, TrialState, TrialView

CAME_TO_NOTHING: tuple[TrialState, ...] = ("pruned", "failed")
_RESULTS = ("adapter", "model")


class TrialDisk:
    """The folders of a search's trials. The driver's thread makes room, Ray Tune's drops what came to nothing: one
    waits for the other, or a size that was measured before the drop would be kept after it."""

    def __init__(self, storage: Location, memory: StudyMemory) -> None:
        self._storage = storage
        self._memory = memory
        self._sizes: dict[int, tuple[int, int]] = {}
        self._lock = threading.RLock()

    def used_bytes(self) -> int:
        """Of all trials; what ended trials have is measured once."""
        total = 0
        with self._lock:
            for one in self._memory.trials():
                run_id = one.attrs.get(RUN_ID)
                if run_id is None:
                    continue
                if one.state == "running":
                    total += folder_of(self._storage, run_id).size_bytes()
                else:
                    total += sum(self._size(one.number, run_id))
        return total

    def drop_all(self, run_id: str, number: int) -> None:
        """Everything of a trial that came to nothing: nobody goes on from it."""
        with self._lock:
            folder_of(self._storage, run_id).delete()
            self._sizes[number] = (0, 0)

    def drop_left_behind(self) -> None:
        """What a command that was killed between telling of such a trial and dropping it has left."""
        there = {one.name for one in folder_of(self._storage, self._memory.name).parent.children()}
        for one in self._memory.trials():
            run_id = one.attrs.get(RUN_ID)
            if run_id in there and one.state in CAME_TO_NOTHING:
                self.drop_all(run_id, one.number)

    def make_room(self, limit_bytes: float | None) -> int:
        """Drop what the limit leaves no room for; the bytes that are used after it."""
        with self._lock:
            used = self.used_bytes()
            if limit_bytes is None or used < limit_bytes:
                return used
            return self._drop_over(limit_bytes, used)

    def _drop_over(self, limit_bytes: float, used: int) -> int:
        best = {one.number for one in self._memory.best()}
        sign = 1 if self._memory.recipe.objectives[0].mode == "min" else -1
        ended = [one for one in _droppable(self._memory.trials()) if one.state not in ("running", "waiting")]
        order = sorted(ended, key=lambda one: sign * one.objectives[0] if one.objectives else float("inf"))
        run_ids = {one.number: one.attrs[RUN_ID] for one in order if RUN_ID in one.attrs}
        kept = [
            Kept(one.number, one.number in best, rank, *self._size(one.number, run_ids[one.number]))
            for rank, one in enumerate(order)
            if one.number in run_ids
        ]
        for drop in choose_to_drop(kept, used, limit_bytes):
            run_id = run_ids[drop.number]
            if drop.what == "checkpoints":
                checkpoint_folder(self._storage, run_id).delete()
            else:
                for name in _RESULTS:
                    (folder_of(self._storage, run_id) / name).delete()
            self._sizes.pop(drop.number, None)
            used -= drop.num_bytes
        return used

    def _size(self, number: int, run_id: str) -> tuple[int, int]:
        """Bytes of an ended trial's checkpoints, and of the rest."""
        if number not in self._sizes:
            checkpoints = checkpoint_folder(self._storage, run_id).size_bytes()
            whole = folder_of(self._storage, run_id).size_bytes()
            self._sizes[number] = (checkpoints, whole - checkpoints)
        return self._sizes[number]


def _droppable(trials: list[TrialView]) -> list[TrialView]:
    """Without those of a population's newest two generations: its members go on from their checkpoints."""
    newest = max((one.attrs.get(GENERATION, 0) for one in trials), default=0)
    return [one for one in trials if GENERATION not in one.attrs or one.attrs[GENERATION] < newest - 1]
