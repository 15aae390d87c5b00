"""Do two ways of computing the same step give the same loss and the same gradients?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """How far a variant may lie from the plain reference."""

    loss: float
    """Nats per target, of a loss of some nats."""
    cosine: float
    """Least cosine between the two gradients, all parameters taken as one vector."""
    tensor: float
    """Largest difference inside one tensor, as a part of the reference's largest entry in that tensor or, where that is
    larger, of a hundredth of the largest entry of all: below it there is only what rounding left."""


# Sums over some thousand float32 terms in another order differ by some 1e-7 of their size; a wrong weight on one
# micro-batch, or one row that sees another, moves the loss by 1e-3 and more.
FLOAT32 = Tolerance(loss=1e-5, cosine=0.99999, tensor=1e-3)
# bfloat16 keeps 8 bits: every product is off by up to 0.4 %, and the errors of a step add up.
BFLOAT16 = Tolerance(loss=3e-2, cosine=0.99, tensor=0.25)
# float16 keeps 11 bits.
FLOAT16 = Tolerance(loss=5e-3, cosine=0.999, tensor=0.05)
TOLERANCES: Mapping[str, Tolerance] = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float16": FLOAT16}

_FLOOR_SHARE = 1e-2


@dataclass(frozen=True)
class Measurement:
    """One step's answer: the mean loss per target, and the whole gradient of every trained tensor, on the CPU."""

    loss: float
    gradients: Mapping[str, torch.Tensor]
    num_micro_batches: int
    """Forward passes of one worker."""


@dataclass(frozen=True)
class Agreement:
    """How far a measurement lies from the reference. `diverging` names the first tensor that is too far off, in the
    model's order; None where there is none."""

    loss_difference: float
    cosine: float
    max_difference: float
    diverging: str | None
    holds: bool
    reason: str


def compare(
    reference: Measurement, found: Measurement, order: Sequence[str], tolerance: Tolerance
) -> Agreement:
    """Judge `found` against `reference`; `order` are the trained tensors' names from the input to the output."""
    loss_difference = abs(found.loss - reference.loss)
    cosine = _cosine(reference.gradients, found.gradients)
    worst, diverging = 0.0, None
    largest = max((float(one.abs().max()) for one in reference.gradients.values()), default=0.0)
    for name in order:
        difference, limit = _difference(name, reference.gradients, found.gradients, largest, tolerance)
        worst = max(worst, difference)
        if diverging is None and not difference <= limit:
            diverging = name
    faults = []
    if not loss_difference <= tolerance.loss:
        faults.append(f"the loss is {found.loss:.6f} instead of {reference.loss:.6f}")
    if not cosine >= tolerance.cosine:
        faults.append(f"the gradient points elsewhere, cosine {cosine:.6f}")
    if diverging is not None:
        faults.append(f"{diverging} is the first tensor whose gradient differs")
    return Agreement(
        loss_difference, cosine, worst, diverging, not faults, ", ".join(faults) or "same loss and gradients"
    )


def _difference(
    name: str,
    reference: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    largest: float,
    tolerance: Tolerance,
) -> tuple[float, float]:
    """Largest difference inside a tensor, and the limit; infinite where only one side has a gradient for it."""
    ours, theirs = reference.get(name), found.get(name)
    if ours is None or theirs is None:
        return (0.0 if ours is theirs else float("inf")), 0.0
    if ours.shape != theirs.shape:
        return float("inf"), 0.0
    scale = max(float(ours.abs().max()), _FLOOR_SHARE * largest)
    difference = float((ours.float() - theirs.float()).abs().max())
    return difference, tolerance.tensor * scale


def _cosine(reference: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> float:
    """In float64, as the last digits are what is asked for."""
    names = sorted(reference.keys() & found.keys())
    product = squared_ours = squared_theirs = 0.0
    for name in names:
        ours, theirs = reference[name].double().flatten(), found[name].double().flatten()
        if ours.shape != theirs.shape:
            continue
        product += float(ours @ theirs)
        squared_ours += float(ours @ ours)
        squared_theirs += float(theirs @ theirs)
    if squared_ours == 0.0 or squared_theirs == 0.0:
        return 1.0 if squared_ours == squared_theirs else 0.0
    return product / math.sqrt(squared_ours * squared_theirs)
