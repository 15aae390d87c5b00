"""`raytrain check overfit`: can this recipe learn a handful of rows by heart?

A model that cannot has labels, a mask, a chat template or an optimizer that is wrong, however good its loss looks.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from raytrain.data.dataset import read_split, row_as_canonical
from raytrain.models.text_generation import generate_texts
from raytrain.storage.artifact import open_artifact
from raytrain.training.checks.scale import Smaller, cores_here, without_trackers
from raytrain.training.checks.scratch import Listener, scratch_assignment
from raytrain.training.checks.verdict import Finding, Tell, Verdict
from raytrain.training.job import Job
from raytrain.training.loop import run_loop
from raytrain.training.random_state import seed_everything
from raytrain.training.setup import Assignment, build_job
from raytrain.training.spec import RunSpec
from raytrain.training.strategies.single import SingleProcess

NUM_ROWS = 16
NEAR_ZERO = 0.05
"""Nats per target token: the right token then has 95 % on average."""
MOST_STEPS = 200
_ROWS_PER_STEP = 4
# Of LoRA, whose few numbers need larger steps than the whole model; a recipe's own larger one stands.
_LEAST_LORA_LEARNING_RATE = 2e-3
_MORE_TOKENS = 4

_FIX = (
    "look at the rows with `raytrain data show`, at model.chat_template and data.loss_on; raise train.learning_rate or "
    "--steps where the loss still falls"
)


@dataclass(frozen=True)
class Question:
    """What a row asks, and the answer that it teaches."""

    prompt: str | list[dict[str, str]]
    answer: str


def question_of(row: dict[str, Any]) -> Question | None:
    """None for a row without a question: plain text, or a conversation that the model does not end."""
    if "messages" in row:
        *before, last = row["messages"]
        return Question(before, last["content"]) if before and last["role"] == "assistant" else None
    if row.get("prompt") and row.get("completion"):
        return Question(row["prompt"], row["completion"])
    return None


def num_exact(answers: Sequence[str], questions: Sequence[Question]) -> int:
    """Answers that are the row's, but for space around them."""
    return sum(
        answer.strip() == question.answer.strip() for answer, question in zip(answers, questions, strict=True)
    )


def judge(
    losses: Sequence[float], exact: tuple[int, int, int] | None, *, num_rows: int, num_steps: int
) -> list[Finding]:
    """`losses` over all rows in evaluation mode, first to last; `exact` is before, after, of so many.

    The least loss counts: training ends once it is near zero, one step later, and that step may raise it again.
    """
    first, least = losses[0], min(losses)
    figures = {"first_loss": first, "least_loss": least, "num_rows": num_rows, "num_steps": num_steps}
    loss = Finding(
        "loss",
        "passed" if least <= NEAR_ZERO else "failed",
        f"{first:.3f} to {least:.4f} nats per target in {num_steps} steps over {num_rows} rows; "
        f"at most {NEAR_ZERO} is asked for",
        figures,
    )
    if exact is None:
        return [loss, Finding("exact match", "skipped", "the rows have no question that an answer follows")]
    before, after, of = exact
    is_up = after > before or (after == of > 0)
    answers = Finding(
        "exact match",
        "passed" if is_up else "failed",
        f"{before} of {of} before, {after} of {of} after",
        {"before": before, "after": after, "of": of},
    )
    return [loss, answers]


def check_overfit(
    spec: RunSpec, tell: Tell, *, num_rows: int = NUM_ROWS, most_steps: int = MOST_STEPS
) -> Verdict:
    """Train on `num_rows` rows in this process until they are known, and ask for them before and after."""
    started = time.perf_counter()
    smaller = make_smaller(spec, num_rows, most_steps)

    def is_known(step: int, metrics: dict[str, float]) -> bool:
        if "eval/loss" in metrics:
            tell(f"step {step}: loss {metrics['eval/loss']:.4f} over all rows")
        return metrics.get("eval/loss", math.inf) <= NEAR_ZERO

    listener = Listener(is_known)
    with _all_cores(), scratch_assignment(smaller.spec, "overfit") as assignment:
        job = build_job(assignment, SingleProcess(torch.device("cpu")), listener)
        # The rows that are learnt are the rows that are measured.
        job.validation = replace(job.validation, table=job.planner.table)
        questions = _questions(assignment, job)
        first = job.validation.evaluate(job.strategy)["eval/loss"]
        before = _ask(job, questions)
        tell(f"before: loss {first:.3f}, {before} of {len(questions)} exact")
        seed_everything(spec.train.seed, 0)
        run_loop(job)
        losses = [first, *(listener.evaluations[step] for step in sorted(listener.evaluations))]
        exact = (before, _ask(job, questions), len(questions)) if questions else None
        findings = judge(losses, exact, num_rows=len(job.planner.table), num_steps=job.state.global_step)
    return Verdict(
        "overfit", spec.name, tuple(findings), _FIX, smaller.note(), seconds=time.perf_counter() - started
    )


def make_smaller(spec: RunSpec, num_rows: int, most_steps: int) -> Smaller:
    """Few rows, nothing held out, nothing that hinders learning by heart."""
    smaller = Smaller(spec)
    without_trackers(smaller)
    alone = {"num_workers": 1, "strategy": "auto", "deepspeed": {}, "use_gpu": False}
    precision = "float32" if spec.train.precision == "float16" else spec.train.precision
    smaller.put_all({"scaling": alone, "train": {"precision": precision}}, silent=True)
    smaller.put("data", max_rows=num_rows, val_fraction=0.0, test_fraction=0.0)
    batch = min(spec.train.global_batch_size, _ROWS_PER_STEP)
    least = 0.0 if spec.adapter.method == "full" else _LEAST_LORA_LEARNING_RATE
    smaller.put(
        "train",
        max_steps=most_steps,
        global_batch_size=batch,
        micro_batch_size=min(spec.train.micro_batch_size, batch),
        learning_rate=max(spec.train.learning_rate, least),
        schedule="constant",
        weight_decay=0.0,
    )
    if spec.adapter.method != "full":
        smaller.put("adapter", lora_dropout=0.0)
    smaller.put(
        "train",
        silent=True,
        eval_every=max(1, math.ceil(num_rows / batch)),
        eval_max_rows=None,
        save_every=0,
        save_every_minutes=None,
        early_stopping_patience=None,
        result="last",
        hooks=[],
    )
    return smaller


def _questions(assignment: Assignment, job: Job) -> list[Question]:
    """Of the rows that the job trains on."""
    table = read_split(open_artifact(assignment.dataset, kind="dataset"), "train")
    trained = set(job.planner.table.row_ids)  # type: ignore[attr-defined]
    found = (question_of(row_as_canonical(row)) for row in table.to_pylist() if row["row_id"] in trained)
    return [question for question in found if question is not None]


def _ask(job: Job, questions: Sequence[Question]) -> int:
    """How many rows the model answers as they stand, greedily."""
    if not questions:
        return 0
    lengths = [len(job.tokenizer(one.answer)["input_ids"]) for one in questions]
    answers = generate_texts(
        job.model,
        job.tokenizer,
        [one.prompt for one in questions],  # type: ignore[arg-type]  # rows of one source are of one kind
        max_new_tokens=max(lengths) + _MORE_TOKENS,
        batch_size=len(questions),
    )
    return num_exact([answer.text for answer in answers], questions)


@contextmanager
def _all_cores() -> Iterator[None]:
    """Threads for every core, as no other worker wants one; where OMP_NUM_THREADS is set, somebody has decided."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if "OMP_NUM_THREADS" in os.environ else cores_here())
    try:
        yield
    finally:
        torch.set_num_threads(before)
