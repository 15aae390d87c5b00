"""The training loop: batch, forward and backward, step, tell, evaluate, save; then finish.

Every rank runs it in step with the others. Lines that are collective say so.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from raytrain.data.batches import GlobalBatch
from raytrain.errors import PlatformError, TrainingError
from raytrain.training.batching import tensors_of
from raytrain.training.checkpoint_store import SavedCheckpoint
from raytrain.training.gradients import GradientHealth, GradientNorms, bad_gradients_error
from raytrain.training.job import Job
from raytrain.training.losses.base import FollowsSteps
from raytrain.training.optimizer import learning_rate_at, set_learning_rate
from raytrain.training.precision import autocast
from raytrain.training.readings import StepReading, UnreadStep
from raytrain.training.saving import should_save
from raytrain.training.step_clock import StepClock
from raytrain.training.votes import vote

Ending = Literal["finished", "early_stopped", "stop_requested", "yielded"]


def run_loop(job: Job) -> Ending:
    """Train from `job.state` to `max_steps`, or until early stopping, a request to stop, or a worker's notice to yield.

    Raises TrainingError after too many bad steps in a row, and the StorageError of a checkpoint that cannot be written.
    """
    state, section = job.state, job.section
    ending: Ending = "early_stopped" if stops_early(job) else "finished"
    job.model.train()
    clock = StepClock()
    while ending == "finished" and state.global_step < job.max_steps:
        batch = job.planner.batch_at(state.position)
        loss_sum = forward_backward(job, batch)
        norms, loss_scale = take_step(job)
        state.global_step += 1
        state.position = batch.after
        state.tokens_seen += batch.num_tokens
        clock.count(batch.num_tokens)
        job.unread.append(UnreadStep(state.global_step, batch.loss_weight, loss_sum, norms, loss_scale))

        is_last = state.global_step == job.max_steps
        finished_saves = job.saver.finished()
        votes, readings = vote(job, finished_saves)  # collective
        healths = [(one, judge_reading(job, one)) for one in readings]
        if readings:
            metrics = step_metrics(job, readings[-1])
            if is_last or state.global_step % section.log_every == 0:
                metrics |= clock.lap()
                told = metrics | job.validation.take_logged("train")
                job.saver.tell_metrics(state.global_step, told)
            for hook in job.hooks.values():
                hook.on_step_end(state.global_step, metrics)
        for reading, health in healths:
            tell_health(job, reading, health)

        is_new_best = False
        if is_last or (section.eval_every and state.global_step % section.eval_every == 0):
            is_new_best = evaluate(job)  # collective
            if stops_early(job):
                ending = "early_stopped"
        settle_saves(job, finished_saves, votes.num_committed, votes.num_failed)  # collective
        if should_save(
            state.global_step,
            last_saved_step=job.saver.last_saved_step,
            section=section,
            clock_says_so=votes.save_now > 0,
            is_new_best=is_new_best,
        ):
            save(job)  # collective
        if ending == "finished" and (votes.stop > 0 or votes.num_yielding > 0) and not is_last:
            ending = "stop_requested" if votes.stop > 0 else "yielded"
    finish(job, ending)  # collective
    return ending


def stops_early(job: Job) -> bool:
    """Whether patience has run out; asked of a resumed run too, whose last evaluation may have said so."""
    patience = job.section.early_stopping_patience
    return patience is not None and job.state.num_evals_since_best >= patience


def forward_backward(job: Job, batch: GlobalBatch) -> torch.Tensor:
    """Gradients of the mean loss per target token over the whole global batch; returns this rank's summed loss, float64
    without dimensions, on the device.

    Each micro-batch's summed loss is divided by the target tokens of ALL micro-batches on ALL ranks, which every rank
    knows from the plan. A mean of means, which weighs the tokens of short rows more, cannot arise. The strategy
    averages over the ranks, hence the factor world_size.
    """
    strategy = job.strategy
    scale = strategy.world_size / (batch.loss_weight or 1.0)
    loss_sums = []
    follower = job.validation.loss if isinstance(job.validation.loss, FollowsSteps) else None
    for i, slots in enumerate(batch.slots):
        if follower is not None:
            follower.at(job.state.global_step, job.state.position.epoch, first_batch_index(job) + i)
        inputs, labels = micro_batch(job, slots[strategy.world_rank])
        with strategy.accumulating(is_last=i == len(batch.slots) - 1):
            with autocast(strategy.device, job.section.precision):
                loss_sum = strategy.forward(inputs, labels)
            strategy.backward(job.scaler.scale(loss_sum * scale))
        loss_sums.append(loss_sum.detach())
    return torch.stack(loss_sums).double().sum()


def first_batch_index(job: Job) -> int:
    """The number in its epoch of the next step's first micro-batch, on each worker."""
    section = job.section
    in_one_step = -(-section.global_batch_size // (section.micro_batch_size * job.strategy.world_size))
    return job.state.position.row // section.global_batch_size * in_one_step


def micro_batch(job: Job, rows: NDArray[np.int64]) -> tuple[dict[str, Any], torch.Tensor]:
    """The model's arguments and the labels of some rows, on this rank's device."""
    batch = job.collate(job.planner.table, rows, job.state.position.epoch)
    return tensors_of(batch, job.strategy.device)


def take_step(job: Job) -> tuple[GradientNorms, torch.Tensor]:
    """Clip the gradients, and step the optimizer unless they are not finite; the norms, and the loss scale after it."""
    set_learning_rate(job.optimizer, learning_rate_at(job.state.global_step, job.section, job.max_steps))
    if job.scaler.is_enabled():
        job.scaler.unscale_(job.optimizer)
    norms = job.gradients.measure_and_clip()
    job.strategy.step(job.optimizer, norms.are_bad)
    if job.scaler.is_enabled():
        job.scaler.update()
    job.optimizer.zero_grad(set_to_none=True)
    return norms, job.scaler.scale(torch.ones((), device=job.strategy.device))


def judge_reading(job: Job, reading: StepReading) -> GradientHealth:
    """The health of a step's gradients; the state learns of steps that changed nothing."""
    health = job.gradients.judge(reading.grad_norm, reading.grad_norms)
    job.state.num_skipped_steps += health.verdict == "not_finite"
    return health


def step_metrics(job: Job, reading: StepReading) -> dict[str, float]:
    """What the newest step is measured by; equal on every rank."""
    state = job.state
    metrics = {
        "train/loss": reading.loss_sum / (reading.loss_weight or 1.0),
        "train/grad_norm": reading.grad_norm,
        "train/learning_rate": float(job.optimizer.param_groups[0]["lr"]),
        "train/epoch": state.position.epoch + state.position.row / len(job.planner.table),
        "train/tokens_seen": float(state.tokens_seen),
    }
    if state.num_skipped_steps:
        metrics["train/skipped_steps"] = float(state.num_skipped_steps)
    return metrics


def tell_health(job: Job, reading: StepReading, health: GradientHealth) -> None:
    """Tell of unhealthy gradients; too many bad steps in a row end the run with TrainingError, on every rank."""
    if health.verdict == "healthy":
        return
    step, names = reading.global_step, ", ".join(health.layers)
    text = f"step {step}: gradients {health.verdict.replace('_', ' ')}, norm {health.grad_norm:.3g} {names}"
    job.channel.send("event", event="gradients", text=text.rstrip(), global_step=step)
    # Infinite gradients are how float16 finds its loss scale; they are bad once there is no scale left to give up.
    if health.num_bad_in_row >= job.section.max_bad_steps and reading.loss_scale <= 1.0:
        job.saver.wait()
        job.saver.finished()
        raise bad_gradients_error(health, step)


def evaluate(job: Job) -> bool:
    """*Collective.* Evaluate on the validation rows, if there are any; true at a new best."""
    if job.validation.num_rows == 0:
        return False
    started = time.perf_counter()
    job.model.eval()
    try:
        metrics = job.validation.evaluate(job.strategy)
    finally:
        job.model.train()
    is_new_best = job.state.observe_evaluation(
        metrics,
        monitor=job.section.monitor,
        mode=job.section.mode,
        min_delta=job.section.early_stopping_min_delta,
    )
    timed = {
        **metrics,
        **job.validation.take_logged("eval"),
        "eval/duration_s": time.perf_counter() - started,
    }
    job.saver.tell_metrics(job.state.global_step, timed)
    for hook in job.hooks.values():
        hook.on_evaluate(job.state.global_step, metrics)
    return is_new_best


def save(job: Job) -> None:
    """*Collective.* Begin a checkpoint of this very state."""
    job.saver.save(
        job.model,
        job.optimizer,
        job.state,
        learning_rate=learning_rate_at(job.state.global_step, job.section, job.max_steps),
        gradients=job.gradients,
        scaler=job.scaler,
        hooks=job.hooks,
    )


def settle_saves(job: Job, finished: list[SavedCheckpoint], num_committed: float, num_failed: float) -> None:
    """*Collective.* Tell Ray of committed checkpoints; a failed one ends the run on every rank.

    `finished` is known on rank 0 only; the two counts were summed over the ranks and are equal everywhere.
    """
    if num_committed > 0:
        started = time.perf_counter()
        uris = [str(saved.location) for saved in finished if saved.error is None]
        job.channel.checkpoint_stands(uris[-1] if uris else "", dict(job.state.last_eval))
        job.saver.blocked_s += time.perf_counter() - started
    if num_failed > 0:
        error = next((saved.error for saved in finished if saved.error is not None), None)
        told = job.strategy.broadcast_from_rank_zero(error)
        raise (
            told
            if isinstance(told, PlatformError)
            else TrainingError(
                "a checkpoint could not be written", why="rank 0 knows", fix="see the log of the run"
            )
        )


def finish(job: Job, ending: Ending) -> None:
    """*Collective.* Save the last state if that has not been done, and see every write through."""
    is_wanted = job.section.saves or ending in ("stop_requested", "yielded")
    if is_wanted and job.saver.last_saved_step != job.state.global_step:
        save(job)
    job.saver.wait()
    finished = job.saver.finished()
    failed, committed = job.strategy.sum_over_ranks(
        [sum(saved.error is not None for saved in finished), sum(saved.error is None for saved in finished)]
    )
    settle_saves(job, finished, committed, failed)
