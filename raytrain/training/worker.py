"""What Ray Train starts on every worker."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

from raytrain.errors import PlatformError
from raytrain.training.setup import Assignment

if TYPE_CHECKING:
    from raytrain.training.loop import Ending


def train_worker(config: dict[str, Any]) -> None:
    """Run one rank of a training run. `config` holds `assignment` and `mailbox`.

    A PlatformError is told to the driver and ends all ranks in peace: Ray would only repeat what must fail again.
    Every other exception, and the death of a process, is left to Ray, which starts the group anew.
    """
    import torch
    import torch.distributed

    from raytrain.training.mailbox import MailboxChannel
    from raytrain.training.regrouping import wait_for_replacement

    assignment: Assignment = config["assignment"]
    scaling = assignment.spec.scaling
    # Ray sets one thread for one CPU through the environment; the recipe decides.
    torch.set_num_threads(scaling.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    channel = MailboxChannel(config["mailbox"], world_rank=context.get_world_rank())
    channel.send(
        "worker",
        world_rank=context.get_world_rank(),
        node=ray.get_runtime_context().get_node_id(),
        pid=os.getpid(),
        world_size=context.get_world_size(),
        max_workers=scaling.max_workers,
    )
    ending = None
    try:
        ending = run_rank(
            assignment,
            _strategy(assignment, context.get_world_size(), ray.train.torch.get_device()),
            channel,
        )
    except PlatformError as error:
        channel.send_error(error)
    finally:
        channel.flush()
    if ending == "yielded" and channel.must_go():
        wait_for_replacement()


def _strategy(assignment: Assignment, world_size: int, device: Any) -> Any:
    from raytrain.training.strategies.build import build_strategy

    spec = assignment.spec
    return build_strategy(spec.scaling, spec.train, world_size=world_size, device=device)


def run_rank(assignment: Assignment, strategy: Any, channel: Any) -> Ending:
    """Set up, train, and write the result; the part of a worker that knows nothing of Ray."""
    from raytrain.models.adapter import trained_state
    from raytrain.training.loop import run_loop
    from raytrain.training.result import write_result
    from raytrain.training.setup import build_job, together

    job = build_job(assignment, strategy, channel)
    ending = run_loop(job)
    if ending == "yielded":
        return ending
    artifact = None
    if ending != "stop_requested":
        trained = strategy.whole_tensors(trained_state(job.model))
        artifact = together(
            strategy,
            lambda: (
                write_result(job, assignment, job.saver.store, trained) if strategy.world_rank == 0 else None
            ),
        )
    if strategy.world_rank == 0:
        metrics = {
            **job.state.last_eval,
            "train/tokens_seen": float(job.state.tokens_seen),
            "train/num_saves": float(job.saver.num_saved),
            "train/save_blocked_s": job.saver.blocked_s,
            "train/peak_memory_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
        }
        channel.send(
            "result",
            ending=ending,
            global_step=job.state.global_step,
            artifact=str(artifact.location) if artifact else None,
            digest=artifact.digest if artifact else None,
            parents=artifact.manifest.parents if artifact else {},
            artifact_kind=artifact.kind if artifact else None,
            metrics=metrics,
        )
    return ending
