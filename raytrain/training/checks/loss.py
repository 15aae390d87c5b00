"""`raytrain check loss`: one batch of the recipe's rows through every way of computing a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException

from raytrain.data.batches import GlobalBatch, Position
from raytrain.data.collators import IGNORED_LABEL
from raytrain.errors import PlatformError
from raytrain.models.adapter import trained_state
from raytrain.models.inner import inner_model
from raytrain.training import loop
from raytrain.training.checks.agreement import TOLERANCES, Measurement, compare
from raytrain.training.checks.scale import Smaller, without_trackers
from raytrain.training.checks.scratch import Listener, on_ranks, scratch_assignment
from raytrain.training.checks.variants import Variant, deal_in_order, plan_variants, rows_that_fit, spec_of
from raytrain.training.checks.verdict import Finding, Tell, Verdict
from raytrain.training.job import Job
from raytrain.training.losses.causal_lm import CausalLMLoss, shifted
from raytrain.training.optimizer import set_learning_rate, trainable_parameters
from raytrain.training.setup import Assignment, build_job
from raytrain.training.spec import RunSpec
from raytrain.training.strategies.build import build_strategy
from raytrain.training.strategies.single import SingleProcess

MOST_ROWS = 16
"""Rows of the batch; more show nothing that these do not, and take longer."""

_FIX = (
    "do not trust losses or gradients of the ways that failed: train with one that passed (see train.packing, "
    "train.micro_batch_size and scaling.strategy), and report the table"
)


@dataclass(frozen=True)
class NoAnswer:
    """Why a variant gave nothing: it cannot be had with this recipe or on this machine, or it broke."""

    reason: str
    is_fault: bool = False


Outcome = Measurement | NoAnswer
Awake = Mapping[str, torch.Tensor]
"""Whole trained tensors by name, with the LoRA matrices that begin at zero filled."""


def check_loss(spec: RunSpec, tell: Tell, *, variants: list[Variant] | None = None) -> Verdict:
    """Compare every variant with the plain reference: rows padded, whole logits, one worker, no accumulation code.

    `variants` are by default all that this machine and this recipe can have.
    """
    started = time.perf_counter()
    smaller = Smaller(spec)
    without_trackers(smaller)
    num_rows = min(spec.train.global_batch_size, MOST_ROWS)
    planned = variants or plan_variants_of(spec)
    findings = []
    with scratch_assignment(smaller.spec, "loss") as assignment:
        tell(f"the plain reference over {num_rows} rows")
        reference, awake, num_rows = measure_reference(assignment, num_rows)
        order = list(reference.gradients)
        for _, group in groupby(planned, key=lambda one: (one.strategy, one.num_workers, one.zero_stage)):
            together = list(group)
            for variant, outcome in zip(
                together, _outcomes(assignment, together, num_rows, awake, tell), strict=True
            ):
                findings.append(_finding(variant, reference, outcome, order))
    notes = [
        f"{num_rows} rows in one step; dropout is off, as it would differ in every way of computing",
        f"the reference: rows padded, all logits, one worker; its loss is {reference.loss:.6f} nats per target",
    ]
    if awake:
        notes.append(
            "LoRA's matrices that begin at zero hold small random numbers, or half of the gradients would be zero"
        )
    if spec.train.precision != "float32" or spec.model.dtype != "float32":
        notes.append("in float32 but where the table says otherwise, so that differences mean something")
    return Verdict(
        "loss", spec.name, tuple(findings), _FIX, tuple(notes), seconds=time.perf_counter() - started
    )


def plan_variants_of(spec: RunSpec) -> list[Variant]:
    """Every variant of a recipe, whether this machine can have it or not."""
    return plan_variants(
        num_rows=min(spec.train.global_batch_size, MOST_ROWS),
        micro_batch_size=spec.train.micro_batch_size,
        precision="bfloat16" if spec.train.precision == "bfloat16" else "float32",
    )


def _finding(variant: Variant, reference: Measurement, outcome: Outcome, order: list[str]) -> Finding:
    if isinstance(outcome, NoAnswer):
        return Finding(variant.name, "failed" if outcome.is_fault else "skipped", outcome.reason)
    agreement = compare(reference, outcome, order, TOLERANCES[variant.precision])
    figures = {
        "loss": outcome.loss,
        "loss_difference": agreement.loss_difference,
        "cosine": agreement.cosine,
        "max_difference": agreement.max_difference,
        "diverging": agreement.diverging,
        "num_micro_batches": outcome.num_micro_batches,
    }
    return Finding(variant.name, "passed" if agreement.holds else "failed", agreement.reason, figures)


def _outcomes(
    assignment: Assignment, variants: list[Variant], num_rows: int, awake: Awake, tell: Tell
) -> list[Outcome]:
    """Variants of one strategy and number of workers: here, or in real processes of their own."""
    for variant in variants:
        tell(variant.name)
    world_size = variants[0].num_workers
    if world_size == 1:
        return measure_all(0, 1, assignment, variants, num_rows, awake)
    try:
        return on_ranks(measure_all, world_size, assignment, variants, num_rows, dict(awake))
    except ProcessException as error:
        broken = NoAnswer(f"a worker broke: {str(error).strip().splitlines()[-1]}", is_fault=True)
        return [broken] * len(variants)


def measure_all(
    rank: int,  # noqa: ARG001 - the strategy knows it
    world_size: int,  # noqa: ARG001
    assignment: Assignment,
    variants: list[Variant],
    num_rows: int,
    awake: Awake,
) -> list[Outcome]:
    """*Collective.* Measure each variant, or say why it cannot be had."""
    outcomes: list[Outcome] = []
    for variant in variants:
        try:
            spec = spec_of(variant, assignment.spec, num_rows)
            outcomes.append(measure(replace(assignment, spec=spec), variant, awake))
        except PlatformError as error:
            outcomes.append(NoAnswer(error.line))
        except ValueError as error:  # pydantic's: the combination is refused where the recipe is checked
            outcomes.append(NoAnswer(_reason(error)))
    return outcomes


def _reason(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if line.startswith("Value error, ")), lines[0] if lines else "refused"
    )
    return told.removeprefix("Value error, ").split(" [type=")[0]


def measure(assignment: Assignment, variant: Variant, awake: Awake) -> Measurement:
    """*Collective.* Loss and whole gradients of the first batch, through the loop's and the strategy's own code.

    The optimizer steps once with a learning rate of zero; with its first decay rate at zero, AdamW's first moment is
    then the gradient, which every strategy gives out whole. Gradients are on rank 0 only.
    """
    scaling, section = assignment.spec.scaling, assignment.spec.train
    strategy = build_strategy(scaling, section, world_size=variant.num_workers, device=torch.device("cpu"))
    job = build_job(assignment, strategy, Listener())
    _rouse(job, awake)
    batch = job.planner.batch_at(Position())
    if variant.layout == "padded":
        slots = deal_in_order(batch.rows, strategy.world_size, variant.micro_batch_size)
        batch = replace(batch, slots=slots)
    loss_sum = loop.forward_backward(job, batch)
    set_learning_rate(job.optimizer, 0.0)
    if job.scaler.is_enabled():
        job.scaler.unscale_(job.optimizer)
    strategy.step(job.optimizer, torch.zeros(()))
    (total,) = strategy.sum_over_ranks([float(loss_sum)])
    entries = strategy.optimizer_tensors(trainable_parameters(job.model), job.optimizer)
    gradients = {
        name.removesuffix("/exp_avg"): one for name, one in entries.items() if name.endswith("/exp_avg")
    }
    return Measurement(total / (batch.loss_weight or 1.0), gradients, len(batch.slots))


def _rouse(job: Job, awake: Awake) -> None:
    """Dropout off, and the matrices that begin at zero filled; equally in every variant."""
    job.model.eval()
    if awake:
        live = trained_state(job.model)
        job.strategy.load_tensors({name: live[name] for name in awake}, awake)


def measure_reference(assignment: Assignment, num_rows: int) -> tuple[Measurement, Awake, int]:
    """The plainest step there is, which shares with training its rows and its model alone: no strategy, no dealer and
    no accumulation; where one forward pass would be too large, as few as fit.

    Also returns the tensors to wake in the variants, and the rows that there were.
    """
    plain = Variant("padded", num_rows)
    is_written_out = _is_written_out(assignment.spec)
    job = build_job(
        replace(assignment, spec=spec_of(plain, assignment.spec, num_rows)),
        SingleProcess(torch.device("cpu")),
        Listener(),
    )
    awake = _filled(trained_state(job.model))
    _rouse(job, awake)
    batch = job.planner.batch_at(Position())
    losses = []
    num_targets = _num_targets(job, batch, is_written_out=is_written_out)
    for rows in deal_in_order(batch.rows, 1, _rows_in_one_pass(job, batch)):
        inputs, labels = loop.micro_batch(job, rows[0])
        loss = _plain_loss(job, inputs, labels, is_written_out=is_written_out)
        (loss / num_targets).backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
    gradients = {
        name: parameter.grad.detach().clone()
        for name, parameter in trainable_parameters(job.model).items()
        if parameter.grad is not None
    }
    return Measurement(sum(losses) / num_targets, gradients, len(losses)), awake, len(batch.rows)


def _is_written_out(spec: RunSpec) -> bool:
    """Whether the loss is the task's own of a causal language model, which stands here a second time."""
    own = spec.train.lightning is None and spec.train.loss.name in (None, "causal_lm")
    return own and spec.model.task == "causal_lm"


def _plain_loss(
    job: Job, inputs: dict[str, Any], labels: torch.Tensor, *, is_written_out: bool
) -> torch.Tensor:
    """What is not written out here has one way only, its own: here in one forward pass."""
    if is_written_out:
        return CausalLMLoss("whole")(job.model, inputs, labels)
    return job.strategy.forward(inputs, labels)


def _num_targets(job: Job, batch: GlobalBatch, *, is_written_out: bool) -> float:
    """Counted from the labels themselves, not taken from the plan."""
    if not is_written_out:
        return batch.loss_weight
    _, labels = loop.micro_batch(job, batch.rows)
    return float((shifted(labels) != IGNORED_LABEL).sum())


def _rows_in_one_pass(job: Job, batch: GlobalBatch) -> int:
    inside = inner_model(job.model)
    vocabulary = int(getattr(inside.get_input_embeddings(), "num_embeddings", inside.config.num_labels))
    longest = int(job.planner.table.lengths[batch.rows].max())
    return rows_that_fit(len(batch.rows), longest, vocabulary)


def _filled(trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All-zero matrices with small random numbers in them, the same at every call."""
    filled: dict[str, torch.Tensor] = {}
    for name, tensor in trained.items():
        if tensor.ndim >= 2 and not bool(tensor.any()):
            generator = torch.Generator().manual_seed(len(filled))
            filled[name] = 0.02 * torch.randn(tensor.shape, generator=generator)
    return filled
