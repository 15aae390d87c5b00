from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from raytrain.training.optimizer import build_optimizer, learning_rate_at, set_learning_rate
from raytrain.training.section import TrainSection

PEAK, STEPS = 3e-3, 40


def torch_schedule(section: TrainSection) -> list[float]:
    """The same shape, put together from torch's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=section.learning_rate)
    warmup = section.warmup_steps
    decay = STEPS - warmup
    after: LRScheduler
    if section.schedule == "cosine":
        after = CosineAnnealingLR(optimizer, decay, eta_min=section.min_learning_rate)
    elif section.schedule == "linear":
        end = section.min_learning_rate / section.learning_rate
        after = LinearLR(optimizer, 1.0, end, decay)
    else:
        after = ConstantLR(optimizer, 1.0)
    if warmup:
        # LinearLR begins at its start factor; the first step of ours is the first part of the rise.
        rise = LinearLR(optimizer, 1 / warmup, 1.0, max(1, warmup - 1))
        after = SequentialLR(optimizer, [rise, after], [warmup])
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        after.step()
    return rates


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_steps", [0, 5])
@pytest.mark.parametrize("min_learning_rate", [0.0, 1e-4])
def test_schedules_are_torchs(schedule: str, warmup_steps: int, min_learning_rate: float) -> None:
    section = TrainSection(
        learning_rate=PEAK,
        schedule=schedule,
        warmup_steps=warmup_steps,
        min_learning_rate=min_learning_rate,
    )
    ours = [learning_rate_at(step, section, STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(torch_schedule(section), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("step", "schedule", "expected"),
    [
        (0, "linear", 1e-3 / 4),
        (3, "linear", 1e-3),
        (4, "linear", 1e-3),
        (12, "linear", 1e-3 * 0.5),
        (12, "cosine", 1e-3 * 0.5),
        (20, "linear", 0.0),
        (99, "cosine", 0.0),  # beyond the end it stays at the minimum
        (99, "constant", 1e-3),
    ],
)
def test_points_on_the_curves(step: int, schedule: str, expected: float) -> None:
    section = TrainSection(learning_rate=1e-3, schedule=schedule, warmup_steps=4)
    assert learning_rate_at(step, section, max_steps=20) == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_longer_than_the_run_never_divides_by_zero() -> None:
    section = TrainSection(learning_rate=1e-3, warmup_steps=100)
    assert learning_rate_at(9, section, max_steps=10) == pytest.approx(1e-4)
    assert math.isfinite(learning_rate_at(100, section, max_steps=100))


def test_norms_and_biases_are_not_decayed_and_frozen_ones_are_left_out() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    section = TrainSection(weight_decay=0.1, adam_betas=(0.8, 0.95), adam_epsilon=1e-6)
    optimizer = build_optimizer(model, section)
    decayed, plain = optimizer.param_groups
    assert [p is model[0].weight for p in decayed["params"]] == [True]
    assert len(plain["params"]) == 4
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert (decayed["betas"], decayed["eps"]) == ((0.8, 0.95), 1e-6)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_a_model_without_biases_has_one_group() -> None:
    optimizer = build_optimizer(torch.nn.Linear(3, 3, bias=False), TrainSection())
    assert len(optimizer.param_groups) == 1
