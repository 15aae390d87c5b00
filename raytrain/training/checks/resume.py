"""`raytrain check resume`: a run that goes straight through against one that is killed three times."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from raytrain.models.base import resolve_base_model
from raytrain.training.checks.holding import Place
from raytrain.training.checks.legs import Line
from raytrain.training.checks.scale import Smaller, cores_here, fit_workers, without_trackers
from raytrain.training.checks.trace import Trace, first_difference
from raytrain.training.checks.verdict import Figure, Finding, Tell, Verdict
from raytrain.training.spec import RunSpec

NUM_STEPS = 12
SAVE_EVERY = 3
MOST_ROWS = 64
_ROWS_PER_WORKER = 4
_HOOK = "raytrain.training.checks.holding:Hold"

_FIX = (
    "do not rely on resuming this recipe: put what the first difference names into the state that is saved (a hook's "
    "belongs into its state_dict), or report it"
)


@dataclass(frozen=True)
class Leg:
    """A kill, and the step of the checkpoint from which the next process has to go on."""

    place: Place
    resumes_at: int


@dataclass(frozen=True)
class Evidence:
    """Both runs after their ends."""

    straight: Line
    killed: Line
    legs: Sequence[Leg]


def plan_legs(steps_per_epoch: int) -> list[Leg]:
    """Three kills in NUM_STEPS steps with a checkpoint every SAVE_EVERY: each after the checkpoint that is gone on
    from, the first where no epoch ends."""
    inside = next((step for step in (5, 4) if step % steps_per_epoch != 0), 5)
    return [
        Leg(Place("mid-epoch", inside), 3),
        Leg(Place("mid-accumulation", 8), 6),
        Leg(Place("mid-save", 9), 6),
    ]


def check_resume(spec: RunSpec, tell: Tell) -> Verdict:
    """Train a small form of the recipe twice on a Ray of its own, and compare bit for bit."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="raytrain-check-") as folder:
        smaller = make_smaller(spec)
        evidence = run_legs(smaller.spec, Path(folder), tell)
        tell("comparing")
        findings = judge(evidence.straight.trace(), evidence.killed.trace(), evidence)
    return Verdict(
        "resume", spec.name, tuple(findings), _FIX, notes_of(smaller), seconds=time.perf_counter() - started
    )


def notes_of(smaller: Smaller) -> tuple[str, ...]:
    bits = (
        "on a GPU kernels may round differently from one call to the next; a difference there is no proof of a fault",
    )
    return (*smaller.note(), *(bits if smaller.spec.scaling.use_gpu else ()))


def make_smaller(spec: RunSpec) -> Smaller:
    """Some steps over some rows, with as many workers as there is room for, and dropout on, so that a generator that
    is forgotten shows."""
    smaller = Smaller(spec)
    without_trackers(smaller)
    fit_workers(smaller, num_cores=cores_here(), num_gpus=torch.cuda.device_count())
    workers = smaller.spec.scaling.max_workers
    smaller.put("data", max_rows=min(spec.data.max_rows or MOST_ROWS, MOST_ROWS))
    if spec.adapter.method != "full" and spec.adapter.lora_dropout == 0.0:
        smaller.put("adapter", lora_dropout=0.1)
    batch = min(spec.train.global_batch_size, _ROWS_PER_WORKER * workers)
    smaller.put(
        "train",
        max_steps=NUM_STEPS,
        global_batch_size=batch,
        micro_batch_size=max(1, min(spec.train.micro_batch_size, batch // workers // 2)),
    )
    smaller.put(
        "train",
        silent=True,
        save_every=SAVE_EVERY,
        save_every_minutes=None,
        keep_last_n=NUM_STEPS,
        keep_best_k=0,
        log_every=1,
        eval_every=0,
        early_stopping_patience=None,
        result="last",
        hooks=[*spec.train.hooks, _HOOK],
    )
    # Found once, so that a GGUF file is not converted again in every folder of the check.
    base_model = resolve_base_model(spec.model, spec.storage.location)
    smaller.put("model", silent=True, base_model=base_model.path, revision=None)
    return smaller


def run_legs(spec: RunSpec, folder: Path, tell: Tell) -> Evidence:
    """Both runs, one after the other, each in its own home below `folder`."""
    workers = spec.scaling.max_workers
    straight, killed = Line(folder / "straight", spec), Line(folder / "killed", spec)
    tell(f"straight through {NUM_STEPS} steps with {workers} worker{'s' if workers > 1 else ''}")
    straight.run_to_the_end()
    legs = plan_legs(_steps_per_epoch(straight))
    for i, leg in enumerate(legs, start=1):
        tell(f"leg {i}: kill -9 {leg.place.moment}, at step {leg.place.step}")
        killed.run_and_kill(leg.place, after_checkpoint=leg.resumes_at)
    tell(f"leg {len(legs) + 1}: to the end")
    killed.run_to_the_end()
    return Evidence(straight, killed, legs)


def _steps_per_epoch(line: Line) -> int:
    """Counted from what the straight run saw: the first step that shows a row again begins the second epoch."""
    seen: set[str] = set()
    for step, one in line.trace().steps.items():
        rows = {row for rank in one.rows for row in rank}
        if rows & seen:
            return step - 1
        seen |= rows
    return NUM_STEPS + 1


def judge(straight: Trace, killed: Trace, evidence: Evidence) -> list[Finding]:
    """Each leg must have gone on from its checkpoint, or nothing was resumed; then both runs must be one."""
    findings = [
        judge_leg(leg, resumed_at)
        for leg, resumed_at in zip(
            evidence.legs, _padded(evidence.killed.resumed_at(), len(evidence.legs)), strict=True
        )
    ]
    return [*findings, judge_runs(straight, killed)]


def _padded(steps: list[int], length: int) -> list[int | None]:
    return [steps[i] if i < len(steps) else None for i in range(length)]


def judge_leg(leg: Leg, resumed_at: int | None) -> Finding:
    name = f"killed {leg.place.moment}, step {leg.place.step}"
    figures = {"resumed_at": resumed_at, "expected": leg.resumes_at}
    if resumed_at == leg.resumes_at:
        return Finding(name, "passed", f"went on from the checkpoint of step {resumed_at}", figures)
    told = "began anew" if resumed_at is None else f"went on from step {resumed_at}"
    return Finding(name, "failed", f"{told}, the checkpoint of step {leg.resumes_at} stood", figures)


def judge_runs(straight: Trace, killed: Trace) -> Finding:
    name = "straight against killed"
    difference = first_difference(straight, killed)
    if difference is not None:
        figures: dict[str, Figure] = {
            "kind": difference.kind, "step": difference.step, "where": difference.where, "what": difference.what,
        }  # fmt: skip
        return Finding(name, "failed", f"the first difference is a {difference}", figures)
    digest = straight.result.digest if straight.result is not None else None
    return Finding(
        name,
        "passed",
        f"bit for bit the same: rows, generators and losses of {len(straight.steps)} steps, "
        f"{len(straight.checkpoints)} checkpoints, and the result",
        {"digest": digest, "num_steps": len(straight.steps), "num_checkpoints": len(straight.checkpoints)},
    )
