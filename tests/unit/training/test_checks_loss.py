"""`check loss`: every way of computing a step agrees, and planted faults are found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_checks import tiny_spec

from raytrain.models import attention, packing_proof
from raytrain.training import loop
from raytrain.training.checks.agreement import BFLOAT16, FLOAT32, Measurement, Tolerance, compare
from raytrain.training.checks.loss import check_loss
from raytrain.training.checks.variants import Variant, deal_in_order, plan_variants, rows_that_fit
from raytrain.training.checks.verdict import Verdict
from raytrain.training.job import Job

pytestmark = pytest.mark.whole


def told(verdict: Verdict) -> str:
    return "\n".join(f"{one.status} {one.name}: {one.what} {dict(one.figures)}" for one in verdict.findings)


def silent(_: str) -> None:
    """Nobody reads along."""


def gradients(**tensors: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values) for name, values in tensors.items()}


REFERENCE = Measurement(2.0, gradients(first=[1.0, 2.0], second=[0.5, 0.0], third=[1e-9, 0.0]), 1)


@pytest.mark.parametrize(
    ("found", "tolerance", "diverging", "holds", "reason"),
    [
        (REFERENCE, FLOAT32, None, True, "same loss and gradients"),
        (
            Measurement(2.0 + 2e-5, REFERENCE.gradients, 1), FLOAT32, None, False,
            "the loss is 2.000020 instead of 2.000000",
        ),
        (Measurement(2.0 + 2e-5, REFERENCE.gradients, 1), BFLOAT16, None, True, "same"),
        (Measurement(float("nan"), REFERENCE.gradients, 1), FLOAT32, None, False, "the loss is nan"),
        # The first in the model's order is named, not the one that is farthest off.
        (
            Measurement(2.0, gradients(first=[1.0, 2.1], second=[9.0, 0.0], third=[1e-9, 0.0]), 1),
            FLOAT32, "first", False, "first is the first tensor",
        ),
        # What rounding leaves of a gradient that is almost zero is not held against it.
        (
            Measurement(2.0, gradients(first=[1.0, 2.0], second=[0.5, 0.0], third=[0.0, 2e-9]), 1),
            FLOAT32, None, True, "same",
        ),
        # A tensor that got no gradient at all, and one that should have none.
        (
            Measurement(2.0, gradients(first=[1.0, 2.0], third=[1e-9, 0.0]), 1), FLOAT32, "second", False,
            "second is the first tensor",
        ),
        (
            Measurement(2.0, gradients(first=[1.0, 2.0], second=[float("nan"), 0.0], third=[1e-9, 0.0]), 1),
            FLOAT32, "second", False, "cosine nan",
        ),
        (
            Measurement(2.0, gradients(first=[-1.0, -2.0], second=[-0.5, 0.0], third=[-1e-9, 0.0]), 1),
            BFLOAT16, "first", False, "cosine -1.000000",
        ),
    ],
)  # fmt: skip
def test_agreement(
    found: Measurement, tolerance: Tolerance, diverging: str | None, holds: bool, reason: str
) -> None:
    agreement = compare(REFERENCE, found, ["first", "second", "third"], tolerance)
    assert (agreement.diverging, agreement.holds) == (diverging, holds), agreement
    assert reason in agreement.reason


def test_the_plan_holds_every_way() -> None:
    planned = plan_variants(num_rows=8, micro_batch_size=4, precision="bfloat16")
    assert len(set(planned)) == len(planned), "none twice"
    alone = [one for one in planned if one.num_workers == 1]
    assert {one.layout for one in alone} == {"padded", "bucketed", "packed"}
    assert [one.micro_batch_size for one in alone if one.layout == "padded"] == [8, 4, 1]
    assert [one.precision for one in alone].count("bfloat16") == 1
    together = {(one.strategy, one.zero_stage, one.layout) for one in planned if one.num_workers == 2}
    assert together == {
        ("ddp", None, "bucketed"), ("ddp", None, "packed"),
        ("fsdp", None, "bucketed"), ("fsdp", None, "packed"),
        *(("deepspeed", stage, "bucketed") for stage in (1, 2, 3)),
    }  # fmt: skip
    assert [
        one.micro_batch_size for one in plan_variants(num_rows=1, micro_batch_size=4, precision="float32")
    ][:3] == [1, 1, 1]


def test_rows_are_dealt_in_order() -> None:
    dealt = deal_in_order(torch.arange(7).numpy(), 2, 2)
    assert [[part.tolist() for part in step] for step in dealt] == [[[0, 1], [2, 3]], [[4, 5], [6]]]


@pytest.mark.parametrize(
    ("num_rows", "longest", "vocabulary", "fits"),
    [(16, 100, 384, 16), (16, 384, 49152, 14), (16, 8192, 128_000, 1), (4, 384, 49152, 4)],
)
def test_rows_in_one_reference_pass(num_rows: int, longest: int, vocabulary: int, fits: int) -> None:
    assert rows_that_fit(num_rows, longest, vocabulary) == fits


@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_way_of_one_worker_agrees(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path, method: str
) -> None:
    spec = tiny_spec(tiny_llama, rows, tmp_path, adapter={"method": method}, train={"precision": "bfloat16"})
    alone = [
        one
        for one in plan_variants(num_rows=6, micro_batch_size=2, precision="bfloat16")
        if one.num_workers == 1
    ]
    verdict = check_loss(spec, silent, variants=alone)
    assert verdict.passed, told(verdict)
    assert [one.status for one in verdict.findings] == ["passed"] * len(alone), told(verdict)
    by_name = {one.name: one.figures for one in verdict.findings}
    assert by_name["single, 1 worker, padded, micro-batch 1"]["num_micro_batches"] == 6
    assert by_name["single, 1 worker, packed, micro-batch 6"]["num_micro_batches"] == 1
    for name, figures in by_name.items():
        limit = BFLOAT16 if "bfloat16" in name else FLOAT32
        assert float(figures["loss_difference"] or 0) <= limit.loss
        assert float(figures["cosine"] or 0) >= limit.cosine
    runs = spec.storage.location.path / "runs"
    assert list(runs.iterdir()) == [], "a check leaves no run behind"


@pytest.mark.thorough
@pytest.mark.slow
def test_two_workers_agree(tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    spec = tiny_spec(tiny_llama, rows, tmp_path)
    two = [Variant("bucketed", 2, "ddp", num_workers=2), Variant("packed", 2, "ddp", num_workers=2)]
    verdict = check_loss(spec, silent, variants=two)
    assert [one.status for one in verdict.findings] == ["passed", "passed"], told(verdict)


def test_a_mean_of_means_is_found(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The known accumulation fault: each micro-batch is averaged by itself, then the averages."""

    def mean_of_means(job: Job, batch: Any) -> float:
        total = 0.0
        for slots in batch.slots:
            inputs, labels = loop.micro_batch(job, slots[0])
            loss = job.strategy.forward(inputs, labels)
            mean = loss / max(1, int((labels[:, 1:] != -100).sum()))
            job.strategy.backward(mean / len(batch.slots))
            total += float(mean.detach()) / len(batch.slots)
        return total * batch.loss_weight

    monkeypatch.setattr(loop, "forward_backward", mean_of_means)
    # Answers of unequal length, without which the fault changes nothing.
    uneven = [{**row, "answer": row["answer"] * (1 + i % 4)} for i, row in enumerate(rows)]
    spec = tiny_spec(tiny_llama, uneven, tmp_path)
    verdict = check_loss(spec, silent, variants=[Variant("padded", 6), Variant("padded", 1)])
    whole, parts = verdict.findings
    assert whole.status == "passed", "one micro-batch has nothing to average"
    assert parts.status == "failed", told(verdict)
    assert "the loss is" in parts.what
    assert str(parts.figures["diverging"]).endswith("layers.0.self_attn.q_proj.lora_A.default.weight")
    error = verdict.error()
    assert error is not None
    assert error.exit_code == 5
    assert parts.name in error.why


def test_attention_across_packed_rows_is_found(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def leaking(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        """Every row sees all rows before it in the pack."""
        options.pop("document_ends", None)
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    monkeypatch.setattr(attention, "document_attention", leaking)
    # The proof at set-up would refuse to pack; a model whose fault it cannot see is what the check is for.
    monkeypatch.setattr(packing_proof, "packed_difference", lambda *_: 0.0)
    monkeypatch.setattr(packing_proof, "leak_between_rows", lambda *_: 0.0)
    spec = tiny_spec(tiny_llama, rows, tmp_path)
    verdict = check_loss(spec, silent, variants=[Variant("bucketed", 2), Variant("packed", 6)])
    bucketed, packed = verdict.findings
    assert bucketed.status == "passed", told(verdict)
    assert packed.status == "failed", told(verdict)
    assert str(packed.figures["diverging"]).startswith("base_model.model.model.layers.0")


def test_a_loss_of_ones_own_is_its_own_reference(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A module that is trained by the mean over rows, which is not what raytrain's own loss gives."""
    own = tiny_spec(tiny_llama, rows, tmp_path / "own")
    module = {"lightning": {"module": "lightning_modules:ByRow"}}
    by_row = tiny_spec(tiny_llama, rows, tmp_path / "by_row", train=module)
    variants = [Variant("padded", 6), Variant("padded", 1), Variant("packed", 6)]
    verdicts = [check_loss(spec, silent, variants=variants) for spec in (own, by_row)]
    assert [verdict.passed for verdict in verdicts] == [True, True], told(verdicts[1])
    assert [one.status for one in verdicts[1].findings] == ["passed", "passed", "skipped"]
    assert verdicts[0].notes[1] != verdicts[1].notes[1], "the two losses differ"


def test_a_way_that_cannot_be_had_is_skipped_with_its_reason(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_llama, rows, tmp_path, model={"attention": "eager"})
    verdict = check_loss(spec, silent, variants=[Variant("bucketed", 2), Variant("packed", 2)])
    assert [one.status for one in verdict.findings] == ["passed", "skipped"], told(verdict)
    assert "eager" in verdict.findings[1].what
    assert verdict.passed
    nothing = check_loss(spec, silent, variants=[Variant("packed", 2)])
    assert not nothing.passed, "a check that compared nothing has shown nothing"
    assert "everything was skipped" in str(nothing.error())
