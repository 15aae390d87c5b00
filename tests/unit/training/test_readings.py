"""Between two looks at the device nothing asks it for a number, and nothing is lost by looking late."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from conftest_training import JobMaker

from raytrain.errors import TrainingError
from raytrain.training import loop, votes
from raytrain.training.gradients import GradientNorms
from raytrain.training.hooks import Hook
from raytrain.training.job import Job
from raytrain.training.losses.batch_checks import ValueChecks
from raytrain.training.optimizer import build_optimizer
from raytrain.training.readings import StepReading, UnreadStep, read

pytestmark = pytest.mark.slow

QUIET: dict[str, Any] = {"save_every": 0, "save_every_minutes": None, "eval_every": 0}


def without_numbers(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the job to the meta device, whose tensors have shapes and no numbers: who asks for one gets an exception.

    As on a GPU, the checks of values look at the first batch only; that look is taken as done.
    """
    # Fused AdamW has a kernel of shapes alone.
    module = sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # it does not know the device
    monkeypatch.setattr(ValueChecks, "__call__", lambda *_, **__: None)
    device = torch.device("meta")
    job.model.to(device)
    job.strategy.device = device
    parameters = [(name, one) for name, one in job.model.named_parameters() if one.requires_grad]
    job.gradients = type(job.gradients)(parameters, job.section.max_grad_norm, job.strategy)
    job.optimizer = build_optimizer(job.model, job.section)


@pytest.mark.parametrize("path", ["frozen", "recomputed", "kept"])
def test_steps_that_nobody_is_told_of_are_not_read(
    make_job: JobMaker, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Six steps of accumulated, packed micro-batches on a device without numbers; it is asked after the third and the
    sixth."""
    adapter = {"method": "full"} if path == "recomputed" else {"lora_rank": 4}
    job = make_job(adapter=adapter, log_every=3, max_steps=6, micro_batch_size=3, packing="on", **QUIET)
    job.strategy._objective.loss.path = path  # type: ignore[attr-defined]
    without_numbers(job, monkeypatch)
    asked = []

    def answer(steps: list[UnreadStep]) -> list[StepReading]:
        asked.append([one.global_step for one in steps])
        found = [StepReading(one.global_step, one.loss_weight, 1.0, 1.0, 1.0, [1.0]) for one in steps]
        steps.clear()
        return found

    monkeypatch.setattr(votes, "read", answer)
    monkeypatch.setattr(loop, "finish", lambda *_: None)  # evaluation and the last checkpoint want numbers
    monkeypatch.setattr(loop, "evaluate", lambda *_: False)
    assert loop.run_loop(job) == "finished"
    assert asked == [[1, 2, 3], [4, 5, 6]]


def test_the_device_without_numbers_does_refuse(make_job: JobMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail."""
    job = make_job(log_every=3, max_steps=3, packing="on", **QUIET)
    without_numbers(job, monkeypatch)
    with pytest.raises((NotImplementedError, RuntimeError), match=r"(?i)meta"):
        loop.run_loop(job)


def test_steps_are_read_at_once_and_in_order() -> None:
    norms = GradientNorms(torch.tensor(5.0), torch.tensor([3.0, 4.0]))
    steps = [
        UnreadStep(i, 2.0, torch.tensor(float(i), dtype=torch.float64), norms, torch.ones(())) for i in (1, 2)
    ]
    assert read(steps) == [StepReading(i, 2.0, float(i), 5.0, 1.0, [3.0, 4.0]) for i in (1, 2)]
    assert steps == []
    assert read(steps) == []


class Seen(Hook):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        assert metrics["train/loss"] > 0
        self.steps.append(global_step)


def losses(job: Job) -> dict[int, float]:
    found: dict[int, float] = job.channel.losses()  # type: ignore[attr-defined]
    return found


def test_how_often_it_is_read_changes_no_number(make_job: JobMaker) -> None:
    often = make_job("often")
    loop.run_loop(often)
    seldom = make_job("seldom", log_every=4)
    loop.run_loop(seldom)
    assert losses(seldom) == {step: loss for step, loss in losses(often).items() if step in (4, 6)}
    for mine, other in zip(often.model.parameters(), seldom.model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert often.gradients.state_dict() == seldom.gradients.state_dict()


def test_a_hook_sees_every_step(make_job: JobMaker) -> None:
    job = make_job(log_every=4)
    job.hooks["seen"] = hook = Seen()
    loop.run_loop(job)
    assert hook.steps == [1, 2, 3, 4, 5, 6]
    assert sorted(losses(job)) == [4, 6]


def spoil(job: Job, steps: set[int]) -> None:
    """NaN gradients in these steps."""

    def poisoned(_module: torch.nn.Module, _inputs: object, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * (math.nan if job.state.global_step + 1 in steps else 1.0)

    norm: Any = job.model.get_base_model().model.norm  # type: ignore[operator]
    norm.register_forward_hook(poisoned)


def test_a_bad_step_changes_nothing_though_it_is_read_later(make_job: JobMaker) -> None:
    jobs = []
    for name, log_every in (("often", 1), ("seldom", 6)):
        job = make_job(name, log_every=log_every, save_every=5)
        spoil(job, {2, 4})
        loop.run_loop(job)
        jobs.append(job)
    often, seldom = jobs
    assert often.state == seldom.state
    assert seldom.state.num_skipped_steps == 2
    for mine, other in zip(often.model.parameters(), seldom.model.parameters(), strict=True):
        assert torch.equal(mine, other)
    events = [
        [told["text"] for told in job.channel.of("event")]  # type: ignore[attr-defined]
        for job in (often, seldom)
    ]
    assert events[0] == events[1]
    assert [text.split(":")[0] for text in events[1]] == ["step 2", "step 4"]


def test_too_many_bad_steps_in_a_row_end_the_run_also_where_a_good_one_came_before_the_look(
    make_job: JobMaker,
) -> None:
    job = make_job(log_every=6)
    spoil(job, {2, 3, 4})
    with pytest.raises(TrainingError, match="3 steps in a row, up to step 4"):
        loop.run_loop(job)


@pytest.mark.parametrize("log_every", [1, 6])
def test_overflows_while_the_loss_scale_is_sought_are_judged_by_the_scale_of_their_step(
    make_job: JobMaker, log_every: int
) -> None:
    """After steps 1 to 3 the scale is 2, and something is left to give up; after step 5 it is 1."""
    job = make_job(log_every=log_every)
    job.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    spoil(job, {1, 2, 3, 5})
    assert loop.run_loop(job) == "finished"
    assert (job.state.num_skipped_steps, job.scaler.get_scale()) == (4, 1.0)
