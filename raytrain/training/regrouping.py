"""Where Ray puts the workers together anew without a fault: nothing that was trained is lost.

Two things lead there. A worker is given notice, by SIGTERM or because Ray drains its node; or there is room for more
workers, and an elastic run grows. In both, all ranks save after the present step (loop.py: `yielded`), and Ray then
replaces them. Ray 2.60 has no public way to either; what is used of its inside is in this file alone.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller.state import (
    ResizingState,
    RestartingState,
    TrainControllerState,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from raytrain.training.signals import expect_notice, worker_is_to_end

_LONGEST_SAVE_S = 600.0
_LONGEST_WAIT_FOR_REPLACEMENT_S = 300.0
_POLL_S = 0.25


class NoticeBeforeEnd(WorkerCallback):  # type: ignore[misc]  # Ray is not typed
    """On every worker, in its main thread, which alone may set a handler: SIGTERM means save first."""

    def after_init_train_context(self) -> None:
        expect_notice()


class SaveBeforeResize(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """In Ray's controller: before it ends healthy workers to start more (or fewer), they save and return."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._workers: WorkerGroup | None = None

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        self._workers = worker_group

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        if isinstance(current_state, RestartingState) and previous_state is not current_state:
            why = _first_fault(current_state.training_failed_error)
            ray.get(self._mailbox.put.remote(("restarting", {"why": why})))
        # Where Ray changes the size of a group that is well, and nowhere else.
        if isinstance(current_state, ResizingState) and self._workers is not None:
            self._have_saved(self._workers, current_state.scaling_decision.num_workers)

    def _have_saved(self, workers: WorkerGroup, wanted: int) -> None:
        """Return when the present workers have saved, or cannot any more."""
        ray.get(self._mailbox.put.remote(("resizing", {"num_workers": wanted})))
        ray.get(self._mailbox.request_yield.remote())
        deadline = time.monotonic() + _LONGEST_SAVE_S
        while time.monotonic() < deadline:
            # Polled as the controller does it, which also takes the workers' reports: they wait for that.
            status = workers.poll_status(timeout=_POLL_S)
            if status.finished or status.errors or status.get_preemption_info() is not None:
                return
            time.sleep(_POLL_S)


def _first_fault(error: BaseException) -> str | None:
    """One line of what the first failed worker died of; None where workers went after a notice."""
    if not isinstance(error, WorkerGroupError):
        return None
    rank, fault = min(error.worker_failures.items())
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return f"worker {rank}: {type(fault).__name__}: {lines[0] if lines else 'no message'}"[:200]


def has_to_go() -> bool:
    """Whether Ray has to replace this worker: it got notice, or Ray drains a node of the group; asked on the worker."""
    return worker_is_to_end() or get_train_context().preemption_context.preemption_info is not None


def own_notice() -> str | None:
    """What notice this very worker got, if any; Ray tells all workers where it drains the node of one."""
    if worker_is_to_end():
        return "SIGTERM"
    context = get_train_context()
    info = context.preemption_context.preemption_info
    return "Ray drains its node" if info and context.get_world_rank() in info.preempted_ranks else None


def wait_for_replacement() -> None:
    """Have Ray's controller replace the workers at once, and stay until it does; counts as no failure.

    To the controller this is a preemption whose deadline has passed.
    """
    context = get_train_context()
    node = ray.get_runtime_context().get_node_id()
    context.preemption_context.preemption_info = PreemptionInfo(
        deadline_ms=1, preempted_node_to_ranks={node: [context.get_world_rank()]}
    )
    time.sleep(_LONGEST_WAIT_FOR_REPLACEMENT_S)
    raise RuntimeError("Ray did not replace a worker that has to go")
