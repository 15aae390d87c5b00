"""`raytrain check reproducibility`: the same seed several times, each time in new processes."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from raytrain.models.adapter import trained_state
from raytrain.runs.charts import save_chart
from raytrain.storage.home import raytrain_home
from raytrain.storage.manifest import digest_of
from raytrain.training.checks.scale import Smaller, cores_here, fit_workers, without_trackers
from raytrain.training.checks.scratch import Listener, on_ranks, scratch_assignment
from raytrain.training.checks.verdict import Finding, Status, Tell, Verdict
from raytrain.training.loop import run_loop
from raytrain.training.setup import Assignment, build_job
from raytrain.training.spec import RunSpec
from raytrain.training.strategies.build import build_strategy

NUM_RUNS = 5
NUM_STEPS = 10
TOLERANCE = 0.01
"""Nats per target, between any two runs at any step."""
_MOST_ROWS = 64
_MOST_ROWS_PER_STEP = 8

_FIX = (
    "see which step the curves part at: before it, something draws from a generator that train.seed does not seed (a "
    "hook, say), or a kernel is not deterministic; train with train.precision=float32 to tell the two apart"
)


@dataclass(frozen=True)
class Curve:
    """One run: `train/loss` by step, and a digest of the weights at its end."""

    losses: dict[int, float]
    weights: str


def judge(curves: Sequence[Curve], *, is_exact: bool) -> list[Finding]:
    """Against the first run; with `is_exact` (a CPU in float32) nothing but the same bits will do."""
    steps = sorted(curves[0].losses)
    spreads = {step: _spread([one.losses.get(step, math.nan) for one in curves]) for step in steps}
    worst = max(spreads, key=lambda step: spreads[step])
    within = spreads[worst] <= TOLERANCE
    parted = next((step for step in steps if spreads[step] != 0.0), None)
    figures = {
        "num_runs": len(curves),
        "num_steps": len(steps),
        "largest_spread": spreads[worst],
        "parted_at": parted,
    }
    curve = Finding(
        "loss curves",
        "passed" if within else "failed",
        f"{len(curves)} runs of {len(steps)} steps differ by at most {spreads[worst]:.3g} nats per target "
        f"(at step {worst}); {TOLERANCE} is allowed",
        figures,
    )
    same = parted is None and len({one.weights for one in curves}) == 1
    if same:
        told = "losses and final weights are the same, bit for bit"
    elif parted is None:
        told = "the losses are the same, the final weights are not"
    else:
        told = f"the losses part at step {parted}"
    if is_exact:
        return [
            curve,
            Finding(
                "identical", "passed" if same else "failed", f"{told}; a CPU in float32 gives the same bits"
            ),
        ]
    status: Status = "passed" if same else "skipped"
    return [curve, Finding("identical", status, f"{told}; asked for on a CPU in float32 alone")]


def _spread(losses: Sequence[float]) -> float:
    """Infinite where a run has no loss there, or none that is a number: that is no agreement."""
    return max(losses) - min(losses) if all(map(math.isfinite, losses)) else math.inf


def check_reproducibility(
    spec: RunSpec, tell: Tell, *, num_runs: int = NUM_RUNS, plot: Path | None = None
) -> Verdict:
    """Run a short form of the recipe `num_runs` times, and draw the curves over each other."""
    started = time.perf_counter()
    smaller = make_smaller(spec)
    curves = []
    for run in range(1, num_runs + 1):
        with scratch_assignment(smaller.spec, "reproducibility") as assignment:
            tell(f"run {run} of {num_runs}")
            curves.append(on_ranks(train_once, smaller.spec.scaling.max_workers, assignment))
    place = plot or raytrain_home() / "checks" / spec.run_id / "reproducibility.png"
    series = {f"run {i}": sorted(one.losses.items()) for i, one in enumerate(curves, start=1)}
    save_chart({"train/loss": series}, place)
    is_exact = smaller.spec.train.precision == "float32" and smaller.spec.model.dtype == "float32"
    return Verdict(
        "reproducibility",
        spec.name,
        tuple(judge(curves, is_exact=is_exact)),
        _FIX,
        smaller.note(),
        {"plot": str(place)},
        time.perf_counter() - started,
    )


def make_smaller(spec: RunSpec) -> Smaller:
    """Some steps on the CPU, with as many workers as there is room for; dropout as the recipe has it."""
    smaller = Smaller(spec)
    without_trackers(smaller)
    fit_workers(smaller, num_cores=cores_here(), num_gpus=0)
    batch = min(spec.train.global_batch_size, _MOST_ROWS_PER_STEP)
    smaller.put("data", max_rows=min(spec.data.max_rows or _MOST_ROWS, _MOST_ROWS))
    smaller.put(
        "train",
        max_steps=NUM_STEPS,
        global_batch_size=batch,
        micro_batch_size=min(spec.train.micro_batch_size, batch),
    )
    smaller.put(
        "train",
        silent=True,
        log_every=1,
        eval_every=0,
        eval_max_rows=8,
        save_every=0,
        save_every_minutes=None,
        early_stopping_patience=None,
        result="last",
    )
    return smaller


def train_once(rank: int, world_size: int, assignment: Assignment) -> Curve:  # noqa: ARG001 - the strategy knows it
    """*Collective.* One run from its first to its last step."""
    spec = assignment.spec
    strategy = build_strategy(spec.scaling, spec.train, world_size=world_size, device=torch.device("cpu"))
    listener = Listener()
    job = build_job(assignment, strategy, listener)
    run_loop(job)
    trained = strategy.whole_tensors(trained_state(job.model))
    return Curve(listener.losses, _digest_of_tensors(trained))


def _digest_of_tensors(tensors: dict[str, torch.Tensor]) -> str:
    bits = {
        name: hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in sorted(tensors.items())
        if tensor.ndim > 0
    }
    return digest_of(bits)
