"""A run whose workers have no room any more, as where a node was lost: it waits for a while, and then ends in words.

Ray by itself would wait without end. What is used of its inside is in this file and in regrouping.py.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    SchedulingState,
    TrainControllerState,
)

from raytrain.cluster.connection import autoscales, num_placeable
from raytrain.training.lack import Lack
from raytrain.training.section import ScalingSection

_WITHOUT_WORKERS = (InitializingState, SchedulingState, ReschedulingState, RestartingState)
_LOOK_EVERY_S = 2.0


class WaitForRoom(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]  # Ray is not typed
    """In Ray's controller: looks at the cluster for as long as the run has no workers."""

    def __init__(self, mailbox: Any, run_id: str, scaling: ScalingSection) -> None:
        self._mailbox = mailbox
        self._lack = Lack(run_id, scaling)
        self._looked_at = 0.0

    def after_controller_start(self, _context: Any) -> None:
        self._look()

    def after_worker_group_training_start(self, _workers: Any) -> None:
        self._look()

    def after_controller_state_update(
        self, _before: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        if isinstance(current_state, _WITHOUT_WORKERS) and (
            time.monotonic() - self._looked_at >= _LOOK_EVERY_S
        ):
            self._look()

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        placeable = num_placeable(self._lack.scaling)
        if placeable < self._lack.scaling.min_workers and autoscales():
            return  # who makes nodes by itself is waited for: a cloud may have none to give for hours
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        note = self._lack.look(time.monotonic(), placeable, alive)
        if note is not None:
            ray.get(self._mailbox.put.remote(("note", {"text": note})))
