"""What a run left behind, step by step, and the first place at which two runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raytrain.runs.folder import read_json_lines
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.training.checkpoint import read_random

_CHECKPOINT_PREFIX = "step-"


@dataclass(frozen=True)
class StepTrace:
    """One optimizer step over all ranks: the rows that each saw, the loss, the generators afterwards."""

    rows: tuple[tuple[str, ...], ...]
    loss: float
    random: tuple[Mapping[str, str], ...]
    """Digest by generator (python, numpy, torch, cuda) of each rank."""


@dataclass(frozen=True)
class Trace:
    """A run: its steps, its checkpoints by step, its result."""

    steps: Mapping[int, StepTrace]
    checkpoints: Mapping[int, Artifact] = field(default_factory=dict)
    result: Artifact | None = None


@dataclass(frozen=True)
class Difference:
    """The first thing that is not the same. `where` is a tensor, a row id or a generator."""

    kind: str
    step: int
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}: {self.where}: {self.what}"


def read_steps(path: Path) -> dict[int, StepTrace]:
    """The file that the hook wrote. A step that was made again, after a kill, counts as it was made last."""
    by_step: dict[int, dict[int, Mapping[str, Any]]] = {}
    for line in read_json_lines(path):
        by_step.setdefault(int(line["step"]), {})[int(line["rank"])] = line
    return {
        step: StepTrace(
            rows=tuple(tuple(ranks[rank]["rows"]) for rank in sorted(ranks)),
            loss=float(ranks[min(ranks)]["loss"]),
            random=tuple(ranks[rank]["random"] for rank in sorted(ranks)),
        )
        for step, ranks in sorted(by_step.items())
    }


def read_checkpoints(folder: Path) -> dict[int, Artifact]:
    """Every checkpoint of a run, verified by digest. Raises IntegrityError for one that is damaged."""
    found = {}
    for place in sorted(folder.glob(f"{_CHECKPOINT_PREFIX}*")):
        found[int(place.name.removeprefix(_CHECKPOINT_PREFIX))] = open_artifact(
            Location(str(place)), kind="checkpoint"
        )
    return found


def first_difference(straight: Trace, resumed: Trace) -> Difference | None:
    """The first place, in the order of the steps, at which `resumed` is not `straight`; None where there is none.

    Within a step: the rows come first, as other rows give other losses; then the generators, the loss, and the tensors
    of the checkpoint.
    """
    for step in sorted(straight.steps.keys() | resumed.steps.keys()):
        ours, theirs = straight.steps.get(step), resumed.steps.get(step)
        if ours is None or theirs is None:
            missing = "the straight run" if ours is None else "the resumed run"
            return Difference("step", step, "the whole step", f"{missing} has not made it")
        found = _step_difference(step, ours, theirs)
        if found is None and step in straight.checkpoints and step in resumed.checkpoints:
            found = _checkpoint_difference(step, straight.checkpoints[step], resumed.checkpoints[step])
        if found is not None:
            return found
    last = max(straight.steps, default=0)
    if straight.result is None and resumed.result is None:
        return None
    if straight.result is None or resumed.result is None:
        which = "the straight run" if straight.result is None else "the resumed run"
        return Difference("result", last, "the artifact", f"{which} has none")
    if straight.result.digest == resumed.result.digest:
        return None
    return _tensor_difference(last, straight.result.path, resumed.result.path) or _file_difference(
        last, straight.result, resumed.result
    )


def _step_difference(step: int, ours: StepTrace, theirs: StepTrace) -> Difference | None:
    for rank, (here, there) in enumerate(_pairs(ours.rows, theirs.rows)):
        if here != there:
            position = next(
                (i for i, pair in enumerate(_pairs(here or (), there or ())) if pair[0] != pair[1]), 0
            )
            expected, found = _at(here, position), _at(there, position)
            return Difference("row", step, f"row {expected}", f"rank {rank} saw row {found} in its place")
    for rank, (here, there) in enumerate(_pairs(ours.random, theirs.random)):
        for name in sorted((here or {}).keys() | (there or {}).keys()):
            if (here or {}).get(name) != (there or {}).get(name):
                return Difference(
                    "RNG",
                    step,
                    f"the {name} generator of rank {rank}",
                    "stands somewhere else after the step",
                )
    if ours.loss != theirs.loss and not (ours.loss != ours.loss and theirs.loss != theirs.loss):
        return Difference("loss", step, "train/loss", f"{ours.loss!r} straight, {theirs.loss!r} resumed")
    return None


def _pairs(ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
    longest = max(len(ours), len(theirs))
    return [(_at(ours, i), _at(theirs, i)) for i in range(longest)]


def _at(values: Sequence[Any] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def _checkpoint_difference(step: int, ours: Artifact, theirs: Artifact) -> Difference | None:
    """Weights and optimizer first, then the generators that the checkpoint holds. Not its whole digest: it also names
    what the run looked like."""
    found = _tensor_difference(step, ours.path, theirs.path)
    if found is not None:
        return found
    for rank, (here, there) in enumerate(_pairs(read_random(ours), read_random(theirs))):
        for name in sorted((here or {}).keys() | (there or {}).keys()):
            if (here or {}).get(name) != (there or {}).get(name):
                return Difference(
                    "RNG", step, f"the {name} generator of rank {rank}", "differs in the checkpoint"
                )
    return None


def _tensor_difference(step: int, ours: Path, theirs: Path) -> Difference | None:
    from safetensors import safe_open

    names = {file.relative_to(ours).as_posix() for file in ours.rglob("*.safetensors")}
    others = {file.relative_to(theirs).as_posix() for file in theirs.rglob("*.safetensors")}
    for name in sorted(names ^ others):
        return Difference("tensor", step, name, "is in one of the two only")
    # The trained weights before the optimizer's state.
    for name in sorted(names, key=lambda one: ("optimizer" in one, one)):
        with safe_open(ours / name, "pt") as here, safe_open(theirs / name, "pt") as there:
            for key in sorted(set(here.keys()) | set(there.keys())):
                if key not in here.keys() or key not in there.keys():  # noqa: SIM118 - no mapping
                    return Difference("tensor", step, key, "is in one of the two only")
                left, right = here.get_tensor(key), there.get_tensor(key)
                if not _same_bits(left, right):
                    return Difference("tensor", step, key, _told_distance(left, right))
    return None


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return (
        left.numpy(force=True).tobytes() == right.numpy(force=True).tobytes()
        if left.dtype != torch.bfloat16
        else (torch.equal(left.view(torch.int16), right.view(torch.int16)))
    )


def _told_distance(left: torch.Tensor, right: torch.Tensor) -> str:
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype} {tuple(left.shape)} straight, {right.dtype} {tuple(right.shape)} resumed"
    return f"differs by up to {float((left.double() - right.double()).abs().max()):.3g}"


def _file_difference(step: int, ours: Artifact, theirs: Artifact) -> Difference:
    here, there = ours.manifest.files, theirs.manifest.files
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            return Difference("file", step, name, _told_files(ours.path / name, theirs.path / name))
    told = f"{ours.manifest.parents} straight, {theirs.manifest.parents} resumed"
    return Difference("parents", step, "what the result was made from", told)


def _told_files(ours: Path, theirs: Path) -> str:
    """Of JSON the first key that differs."""
    if not ours.is_file() or not theirs.is_file():
        return "is in one of the two only"
    try:
        here, there = json.loads(ours.read_bytes()), json.loads(theirs.read_bytes())
    except ValueError:
        return "differs"
    if isinstance(here, dict) and isinstance(there, dict):
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                return f"{key} is {here.get(key)!r} straight, {there.get(key)!r} resumed"
    return "differs"
