"""`check overfit` and `check reproducibility`: their decisions as tables, and both over the tiny Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_checks import tiny_spec

from raytrain.training import loop, setup
from raytrain.training.checks import overfit, reproducibility
from raytrain.training.checks.overfit import NEAR_ZERO, Question, check_overfit, num_exact, question_of
from raytrain.training.checks.reproducibility import Curve, check_reproducibility, train_once
from raytrain.training.checks.scratch import scratch_assignment
from raytrain.training.losses.causal_lm import CausalLMLoss

pytestmark = pytest.mark.slow


def silent(_: str) -> None:
    """Nobody reads along."""


USER = {"role": "user", "content": "Two and three?"}
ASSISTANT = {"role": "assistant", "content": "Five."}


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"messages": [USER, ASSISTANT]}, Question([USER], "Five.")),
        ({"messages": [USER, ASSISTANT, USER]}, None),
        ({"messages": [ASSISTANT]}, None),
        ({"prompt": "2 + 3 =", "completion": " 5"}, Question("2 + 3 =", " 5")),
        ({"prompt": "", "completion": "5"}, None),
        ({"text": "Once upon a time."}, None),
    ],
)
def test_what_a_row_asks(row: dict[str, Any], question: Question | None) -> None:
    assert question_of(row) == question


def test_an_exact_answer_differs_in_space_alone() -> None:
    questions = [Question("a", "Five."), Question("b", " 5"), Question("c", "Five.")]
    assert num_exact(["Five.\n", "5", "five."], questions) == 2


@pytest.mark.parametrize(
    ("losses", "exact", "statuses"),
    [
        ([4.0, 1.0, NEAR_ZERO], (0, 15, 16), ["passed", "passed"]),
        ([4.0, 0.051], (0, 15, 16), ["failed", "passed"]),
        ([4.0, 0.049, 0.06], (0, 15, 16), ["passed", "passed"]),
        ([4.0, float("nan")], (0, 0, 16), ["failed", "failed"]),
        ([4.0, 0.01], (3, 3, 16), ["passed", "failed"]),
        ([4.0, 0.01], (16, 16, 16), ["passed", "passed"]),
        ([4.0, 0.01], (5, 4, 16), ["passed", "failed"]),
        ([4.0, 0.01], None, ["passed", "skipped"]),
    ],
)
def test_near_zero_and_exact_match(
    losses: list[float], exact: tuple[int, int, int] | None, statuses: list[str]
) -> None:
    findings = overfit.judge(losses, exact, num_rows=16, num_steps=40)
    assert [finding.status for finding in findings] == statuses


def test_a_few_rows_are_learnt_by_heart(tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    spec = tiny_spec(tiny_llama, rows, tmp_path, adapter={"method": "full"}, train={"learning_rate": 1e-2})
    verdict = check_overfit(spec, silent, num_rows=3, most_steps=120)
    assert verdict.passed, [finding.what for finding in verdict.findings]
    loss, exact = verdict.findings
    assert float(loss.figures["least_loss"] or 9) <= NEAR_ZERO < float(loss.figures["first_loss"] or 0)
    assert (exact.figures["before"], exact.figures["of"]) == (0, 3)
    assert int(loss.figures["num_steps"] or 120) < 120, "it stops when the rows are known"
    assert list((spec.storage.location.path / "runs").iterdir()) == []


def test_labels_of_other_rows_are_never_learnt(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: every target is moved on by one position too many."""
    whole = CausalLMLoss.__call__

    def askew(self: CausalLMLoss, model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        return whole(self, model, inputs, torch.roll(labels, 1, dims=1))

    monkeypatch.setattr(CausalLMLoss, "__call__", askew)
    spec = tiny_spec(
        tiny_llama, rows, tmp_path, adapter={"method": "full"},
        train={"learning_rate": 1e-2, "packing": "off", "global_batch_size": 4, "micro_batch_size": 4},
    )  # fmt: skip
    verdict = check_overfit(spec, silent, num_rows=3, most_steps=60)
    assert not verdict.passed
    assert verdict.findings[1].status == "failed", verdict.findings


CURVE = Curve({1: 3.0, 2: 2.0, 3: 1.0}, "weights")


@pytest.mark.parametrize(
    ("other", "is_exact", "statuses", "what"),
    [
        (CURVE, True, ["passed", "passed"], "bit for bit"),
        (Curve({1: 3.0, 2: 2.005, 3: 1.0}, "weights"), False, ["passed", "skipped"], "part at step 2"),
        (Curve({1: 3.0, 2: 2.005, 3: 1.0}, "weights"), True, ["passed", "failed"], "part at step 2"),
        (Curve({1: 3.0, 2: 2.02, 3: 1.0}, "weights"), False, ["failed", "skipped"], "part at step 2"),
        (Curve({1: 3.0, 2: 2.0, 3: 1.0}, "others"), True, ["passed", "failed"], "the final weights are not"),
        (Curve({1: 3.0, 2: float("nan"), 3: 1.0}, "weights"), False, ["failed", "skipped"], "part at step 2"),
        (Curve({1: 3.0, 2: 2.0}, "weights"), False, ["failed", "skipped"], "part at step 3"),
    ],
)
def test_curves_within_tolerance(other: Curve, is_exact: bool, statuses: list[str], what: str) -> None:
    findings = reproducibility.judge([CURVE, CURVE, other], is_exact=is_exact)
    assert [finding.status for finding in findings] == statuses, findings
    assert what in findings[1].what


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_curve(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Two runs, each in a new process."""
    spec = tiny_spec(tiny_llama, rows, tmp_path)
    plot = tmp_path / "plots" / "curves.png"
    verdict = check_reproducibility(spec, silent, num_runs=2, plot=plot)
    assert [finding.status for finding in verdict.findings] == ["passed", "passed"], verdict.findings
    assert verdict.findings[0].figures["num_steps"] == reproducibility.NUM_STEPS
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert verdict.files["plot"] == str(plot)


def test_a_generator_without_a_seed_is_found(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: nothing seeds dropout."""
    monkeypatch.setattr(setup, "seed_everything", lambda seed, rank: None)
    spec = reproducibility.make_smaller(tiny_spec(tiny_llama, rows, tmp_path)).spec
    curves = []
    for _ in range(2):
        with scratch_assignment(spec, "reproducibility") as assignment:
            curves.append(train_once(0, 1, assignment))
    findings = reproducibility.judge(curves, is_exact=True)
    assert findings[1].status == "failed", findings
    assert "part at step" in findings[1].what


def test_the_loop_is_the_one_that_trains() -> None:
    """The checks would prove little about a loop of their own."""
    assert overfit.run_loop is loop.run_loop
    assert reproducibility.run_loop is loop.run_loop
