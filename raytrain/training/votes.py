"""What the ranks tell each other once a step, so that all do the same next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from raytrain.training.checkpoint_store import SavedCheckpoint
from raytrain.training.job import Job
from raytrain.training.readings import StepReading, read


@dataclass(frozen=True)
class Votes:
    """Summed over the ranks."""

    stop: float
    num_yielding: float
    save_now: float
    num_failed: float
    num_committed: float

    @property
    def end_or_save(self) -> bool:
        return self.stop > 0 or self.num_yielding > 0 or self.save_now > 0


def vote(job: Job, finished_saves: list[SavedCheckpoint]) -> tuple[Votes, list[StepReading]]:
    """*Collective.* One exchange for all of it, and for the losses where they are read; those are then of all ranks."""
    is_first = job.strategy.world_rank == 0
    readings = read(job.unread) if wants_reading(job) else []
    own = [
        float(is_first and job.channel.stop_requested()),
        float(job.channel.should_yield()),
        float(is_first and job.saver.clock_says_so()),
        sum(saved.error is not None for saved in finished_saves),
        sum(saved.error is None for saved in finished_saves),
    ]
    summed = job.strategy.sum_over_ranks([*own, *(one.loss_sum for one in readings)])
    votes, losses = Votes(*summed[: len(own)]), summed[len(own) :]
    if votes.end_or_save and not readings:
        readings = read(job.unread)
        losses = job.strategy.sum_over_ranks([one.loss_sum for one in readings])
    return votes, [replace(one, loss_sum=loss) for one, loss in zip(readings, losses, strict=True)]


def wants_reading(job: Job) -> bool:
    """Whether somebody is to be told of this step, or it is evaluated or saved; the same on every rank."""
    step, section = job.state.global_step, job.section
    every = (section.log_every, section.eval_every, section.save_every)
    return bool(job.hooks) or step == job.max_steps or any(n > 0 and step % n == 0 for n in every)
