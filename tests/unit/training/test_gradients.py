from __future__ import annotations

import math

import pytest
import torch

from raytrain.training.gradients import (
    EXPLODING_RATIO,
    VANISHING_NORM,
    GradientCheck,
    GradientHealth,
    bad_gradients_error,
    judge,
)
from raytrain.training.strategies.single import SingleProcess

ALONE = SingleProcess(torch.device("cpu"))


def parameters(*gradients: list[float] | None) -> list[tuple[str, torch.nn.Parameter]]:
    named = []
    for i, values in enumerate(gradients):
        parameter = torch.nn.Parameter(torch.zeros(len(values or [0.0])))
        parameter.grad = None if values is None else torch.tensor(values)
        named.append((f"layer{i}", parameter))
    return named


def step(check: GradientCheck) -> GradientHealth:
    """One step, read at once."""
    norms = check.measure_and_clip()
    return check.judge(float(norms.total), norms.of_each.tolist())


@pytest.mark.parametrize(
    ("grad_norm", "mean_norm", "verdict"),
    [
        (1.0, 0.0, "healthy"),  # the first step has nothing to be compared with
        (1.0, 1.0, "healthy"),
        (EXPLODING_RATIO, 1.0, "healthy"),
        (EXPLODING_RATIO * 1.01, 1.0, "exploding"),
        (1e9, 0.0, "healthy"),
        (VANISHING_NORM, 1.0, "healthy"),
        (VANISHING_NORM / 2, 1.0, "vanishing"),
        (0.0, 0.0, "vanishing"),
        (math.inf, 1.0, "not_finite"),
        (math.nan, 0.0, "not_finite"),
    ],
)
def test_verdicts(grad_norm: float, mean_norm: float, verdict: str) -> None:
    assert judge(grad_norm, mean_norm) == verdict


@pytest.mark.parametrize("max_grad_norm", [0.1, 1.0, 5.0, 100.0, None])
def test_clips_as_torch_does(max_grad_norm: float | None) -> None:
    generator = torch.Generator().manual_seed(3)
    ours = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((7, 5), (11,), (2, 3, 4))]
    for parameter in ours:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    theirs = [torch.nn.Parameter(torch.zeros_like(parameter)) for parameter in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        other.grad = mine.grad.clone()
    limit = math.inf if max_grad_norm is None else max_grad_norm
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit)
    norms = GradientCheck(
        [(str(i), one) for i, one in enumerate(ours)], max_grad_norm, ALONE
    ).measure_and_clip()
    assert float(norms.total) == pytest.approx(float(expected), rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_names_the_layers_with_nan_or_infinity_and_changes_nothing(bad: float) -> None:
    named = parameters([1.0, 2.0], [3.0, bad], None, [9.0])
    check = GradientCheck(named, 1.0, ALONE)
    norms = check.measure_and_clip()
    assert float(norms.are_bad) == 1.0
    health = check.judge(float(norms.total), norms.of_each.tolist())
    assert health.verdict == "not_finite"
    assert health.layers == ("layer1",)
    assert named[3][1].grad is not None
    assert named[3][1].grad.tolist() == [9.0], "what is not finite is not clipped"
    assert (check.num_bad_in_row, check.mean_norm) == (1, 0.0)


def test_exploding_names_the_largest_layers_first() -> None:
    named = parameters([0.1], [0.2])
    check = GradientCheck(named, None, ALONE)
    step(check)
    for (_, parameter), value in zip(named, (300.0, 900.0), strict=True):
        parameter.grad = torch.tensor([value])
    assert step(check) == GradientHealth(
        pytest.approx(math.hypot(300, 900)), "exploding", ("layer1", "layer0")
    )


def test_bad_steps_are_counted_in_a_row_only() -> None:
    named = parameters([1.0])
    check = GradientCheck(named, None, ALONE)
    counts = []
    for value in (math.nan, math.nan, 1.0, math.nan):
        named[0][1].grad = torch.tensor([value])
        counts.append(step(check).num_bad_in_row)
    assert counts == [1, 2, 0, 1]


def test_no_gradient_at_all_is_vanishing() -> None:
    assert step(GradientCheck(parameters(None), 1.0, ALONE)).verdict == "vanishing"


def test_state_resumes() -> None:
    check = GradientCheck(parameters([2.0]), None, ALONE)
    step(check)
    other = GradientCheck(parameters([2.0]), None, ALONE)
    other.load_state_dict(check.state_dict())
    assert (other.mean_norm, other.num_bad_in_row) == (2.0, 0)


def test_the_error_names_step_layers_and_remedy() -> None:
    error = bad_gradients_error(GradientHealth(math.nan, "not_finite", ("a.lora_A", "b"), 3), 17)
    assert error.what == "NaN or infinite gradients in 3 steps in a row, up to step 17"
    assert error.why == "layers: a.lora_A, b"
    assert "train.learning_rate" in error.fix
    assert error.exit_code == 4
