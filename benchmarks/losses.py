"""What each loss costs beside a bare `functional.cross_entropy` over the same logits, forward and backward.

    python -m benchmarks.losses [--quick] [--json FILE]

The model is a table of logits that are there already, so that nothing but the loss is timed. Both sides take turns in
this process, which has one thread; its processor time is taken, so that other processes do not count. A figure is the
median of the differences of a turn, its spread the interquartile range. A loss that looks only where there are labels
may take less than the bare one, which looks everywhere: such a figure is negative.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.figures import Figure, parser_of, picture, report
from raytrain.data.collators import IGNORED_LABEL
from raytrain.data.tasks import TaskName
from raytrain.training.losses.base import LossSetup
from raytrain.training.losses.batch_checks import ValueChecks
from raytrain.training.losses.causal_lm import CausalLMLoss, shifted
from raytrain.training.losses.registry import build_loss
from raytrain.training.losses.section import LossSection

TARGET_MS = 5.0
PAD_ID = 0


class Logits(torch.nn.Module):
    """Answers with logits that are there already."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        self.config = SimpleNamespace(pad_token_id=PAD_ID, eos_token_id=1)

    def forward(self, **inputs: Any) -> dict[str, torch.Tensor]:  # noqa: ARG002 - as every model takes them
        return {"logits": self.values}

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        return functional.pad(labels[:, :-1], (1, 0), value=PAD_ID).clamp(min=0)


PLAIN = LossSection()
WEIGHTED = LossSection(class_weights={"0": 2.0}, label_smoothing=0.1)


@dataclass(frozen=True)
class Case:
    """One loss at one size: `shape` of its logits, `share` of the labels that count."""

    task: TaskName
    shape: tuple[int, ...]
    share: float = 1.0
    loss: LossSection = PLAIN

    @property
    def name(self) -> str:
        options = [name for name, value in self.loss if value]
        sizes = " × ".join(f"{one:,}" for one in self.shape)
        return f"{self.task}{' with ' + ', '.join(options) if options else ''} ({sizes})"


CASES = [
    Case("causal_lm", (2, 128, 32_000)),
    Case("sequence_classification", (32, 1_000)),
    Case("sequence_classification", (32, 1_000), loss=WEIGHTED),
    Case("token_classification", (16, 128, 32), share=0.7),
    Case("token_classification", (16, 128, 32), share=0.7, loss=WEIGHTED),
    Case("masked_lm", (4, 128, 30_522), share=0.15),
    Case("seq2seq", (4, 32, 32_128), share=0.9),
    Case("seq2seq", (4, 32, 32_128), share=0.9, loss=LossSection(label_smoothing=0.1)),
    Case("image_classification", (64, 1_000)),
]


def both_sides(case: Case) -> tuple[Callable[[], float], Callable[[], float]]:
    """The bare loss and ours: each runs once forward and backward and returns its seconds."""
    generator = torch.Generator().manual_seed(1)
    model = Logits(case.shape)
    num_classes = case.shape[-1]
    labels = torch.randint(num_classes, case.shape[:-1], generator=generator)
    labels[torch.rand(labels.shape, generator=generator) >= case.share] = IGNORED_LABEL
    inputs = {
        "input_ids": torch.ones(case.shape[:2], dtype=torch.long),
        "attention_mask": torch.ones(case.shape[:2]),
    }
    names = tuple(str(number) for number in range(num_classes))
    loss: Any
    if case.task == "causal_lm":
        loss = CausalLMLoss("whole", ValueChecks(model))
    else:
        counts = np.ones(num_classes, np.int64)
        loss = build_loss(LossSetup(case.task, case.loss, model, labels=names, class_counts=counts))
    weights = torch.ones(num_classes) if case.loss.class_weights else None
    targets = shifted(labels) if case.task == "causal_lm" else labels

    def bare() -> torch.Tensor:
        return functional.cross_entropy(
            model.values.view(-1, num_classes),
            targets.reshape(-1),
            weight=weights,
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=case.loss.label_smoothing,
        )

    def timed(run: Callable[[], torch.Tensor]) -> float:
        model.values.grad = None
        started = time.process_time()
        run().backward()  # type: ignore[no-untyped-call]
        return time.process_time() - started

    return lambda: timed(bare), lambda: timed(lambda: loss(model, inputs, labels))


def measure(case: Case, num_turns: int) -> list[Figure]:
    bare, ours = both_sides(case)
    bare(), ours()  # memory is touched for the first time
    differences, bares = [], []
    for turn in range(num_turns):
        sides = (bare, ours) if turn % 2 == 0 else (ours, bare)
        first, second = (side() for side in sides)
        bare_s, ours_s = (first, second) if turn % 2 == 0 else (second, first)
        differences.append((ours_s - bare_s) * 1e3)
        bares.append(bare_s * 1e3)
    low, _, high = statistics.quantiles(differences, n=4)
    overhead = statistics.median(differences)
    return [
        Figure(case.name, overhead, "ms more", TARGET_MS, higher_is_better=False),
        Figure("… bare", statistics.median(bares), "ms"),
        Figure("… spread", high - low, "ms"),
    ]


def save_picture(figures: list[Figure], path: Path) -> None:
    told = [figure for figure in figures if figure.target is not None]
    with picture(path, figsize=(9, 4)) as axes:
        axes.barh([figure.name for figure in told], [figure.value for figure in told])
        axes.axvline(TARGET_MS, linestyle="--", color="grey")
        axes.set(xlabel="ms more than cross_entropy, forward and backward", title="What each loss costs")
        axes.invert_yaxis()


def main() -> None:
    parser = parser_of(__doc__, "losses", quick="15 turns instead of 60")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as a worker with one CPU
    figures: list[Figure] = []
    for case in CASES:
        figures += measure(case, 15 if arguments.quick else 60)
    save_picture(figures, arguments.json.with_suffix(".png"))
    report(figures, "What each loss costs beside cross_entropy", arguments.json)


if __name__ == "__main__":
    main()
