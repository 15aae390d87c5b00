"""The losses beside causal language modelling, against torch's own, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from raytrain.data.image_examples import ImageTable
from raytrain.data.text_examples import IGNORED_CLASS, ClassTable, TagTable
from raytrain.errors import ConfigError, TrainingError
from raytrain.training.losses.base import CountsHits, Loss, LossSetup, WeighsRows
from raytrain.training.losses.classification import ClassificationLoss, class_counts, class_weights
from raytrain.training.losses.masked_lm import MaskedLMLoss
from raytrain.training.losses.registry import build_loss, loss_names, register_loss
from raytrain.training.losses.section import LossSection
from raytrain.training.losses.seq2seq import Seq2SeqLoss
from raytrain.training.losses.trained_parts import check_gradients_reach_adapter, check_only_adapter_trains

LABELS = ("negative", "neutral", "positive")


class Answers(torch.nn.Module):
    """A model that answers with the rows of `table` that `row_numbers` names."""

    def __init__(self, table: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table.to(dtype))
        self.config = SimpleNamespace(pad_token_id=0, eos_token_id=2)

    def forward(self, row_numbers: torch.Tensor, **others: Any) -> dict[str, torch.Tensor]:
        return {"logits": self.table[row_numbers]}

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        return functional.pad(labels[:, :-1], (1, 0), value=0).clamp(min=0)


def setup(model: torch.nn.Module, task: str = "sequence_classification", **options: Any) -> LossSetup:
    counts = options.pop("class_counts", None)
    return LossSetup(task, LossSection(**options), model, labels=LABELS, class_counts=counts)  # type: ignore[arg-type]


def text_table(classes: list[int]) -> ClassTable:
    size = len(classes)
    return ClassTable(
        np.ones(size, np.int32),
        np.arange(size + 1),
        [str(i) for i in range(size)],
        np.asarray(classes, np.int32),
    )


def normalised(loss: Loss, model: torch.nn.Module, table: Any, batches: list[list[int]]) -> torch.Tensor:
    """As the loop does it: summed losses of micro-batches over the weight of the whole global batch."""
    classes = torch.from_numpy(table.class_ids).long()
    weights = loss.row_weights(table) if isinstance(loss, WeighsRows) else None
    rows = np.concatenate([np.asarray(one) for one in batches])
    weight = float((table.num_loss_tokens if weights is None else weights)[rows].sum())
    sums = [loss(model, {"row_numbers": torch.tensor(one)}, classes[one]) for one in batches]
    return torch.stack(sums).sum() / weight


@pytest.mark.parametrize("weights", [None, {"negative": 3.0, "positive": 0.25}, "balanced"], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "batches", [[[0, 1, 2, 3, 4, 5, 6]], [[0], [1, 2, 3], [4, 5], [6]]], ids=["1x7", "uneven"]
)
def test_equals_torch_over_the_whole_global_batch(
    weights: Any, smoothing: float, batches: list[list[int]]
) -> None:
    torch.manual_seed(0)
    table = text_table([0, 1, 1, 2, 1, 0, 1])
    model = Answers(torch.randn(7, 3))
    options = setup(
        model, class_weights=weights, label_smoothing=smoothing, class_counts=class_counts(table, 3)
    )
    loss = ClassificationLoss(options)
    found = normalised(loss, model, table, batches)
    expected = functional.cross_entropy(
        model.table,
        torch.from_numpy(table.class_ids).long(),
        weight=class_weights(options),
        label_smoothing=smoothing,
        reduction="mean",
    )
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, model.table, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, model.table)
    torch.testing.assert_close(gradient, wanted)


def test_token_weights_equal_torch_with_ignored_tokens() -> None:
    torch.manual_seed(0)
    tags = np.asarray([0, IGNORED_CLASS, 2, 1, IGNORED_CLASS, IGNORED_CLASS, 0], np.int32)
    table = TagTable(np.ones(7, np.int32), np.array([0, 3, 7]), ["a", "b"], tags)
    model = Answers(torch.randn(7, 3))
    loss = ClassificationLoss(setup(model, "token_classification", class_weights={"negative": 5.0}))
    weights = loss.row_weights(table)
    assert weights is not None
    np.testing.assert_allclose(weights, [6.0, 6.0])
    labels = torch.from_numpy(tags).long()
    total = sum(
        loss(model, {"row_numbers": torch.arange(start, end)[None]}, labels[None, start:end])
        for start, end in ((0, 3), (3, 7))
    )
    expected = functional.cross_entropy(model.table, labels, weight=torch.tensor([5.0, 1.0, 1.0]))
    torch.testing.assert_close(total / weights.sum(), expected)
    assert class_counts(table, 3).tolist() == [2, 1, 1]
    assert table.num_loss_tokens.tolist() == [2, 2]


def test_balanced_classes_weigh_the_same_in_sum() -> None:
    table = ImageTable(np.zeros((6, 2, 2, 3), np.uint8), np.asarray([0, 1, 1, 2, 1, 1], np.int32), [""] * 6)
    counts = class_counts(table, 3)
    loss = ClassificationLoss(
        setup(
            Answers(torch.zeros(6, 3)), "image_classification", class_weights="balanced", class_counts=counts
        )
    )
    weights = loss.row_weights(table)
    assert weights is not None
    np.testing.assert_allclose(
        [weights[table.class_ids == one].sum() for one in range(3)], [2, 2, 2], rtol=1e-6
    )


def test_a_class_without_rows_cannot_be_balanced() -> None:
    with pytest.raises(ConfigError, match="balanced cannot weigh") as caught:
        ClassificationLoss(
            setup(Answers(torch.zeros(1, 3)), class_weights="balanced", class_counts=np.array([2, 0, 1]))
        )
    assert "neutral" in caught.value.why


def test_a_weight_of_an_unknown_class_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no class `positiv`") as caught:
        ClassificationLoss(setup(Answers(torch.zeros(1, 3)), class_weights={"positiv": 2.0}))
    assert "did you mean `positive`" in caught.value.fix


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_reduced_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Answers(torch.randn(512, 3) * 4, dtype)
    labels = torch.arange(512) % 3
    found = ClassificationLoss(setup(model))(model, {"row_numbers": torch.arange(512)}, labels)
    assert found.dtype == torch.float32
    expected = functional.cross_entropy(model.table.double(), labels, reduction="sum")
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "task", "shape"),
    [
        (ClassificationLoss, "sequence_classification", (2,)),
        (ClassificationLoss, "token_classification", (2, 4)),
        (MaskedLMLoss, "masked_lm", (2, 4)),
        (Seq2SeqLoss, "seq2seq", (2, 4)),
    ],
)
def test_ignored_labels_alone_give_zero_with_a_graph(loss: Any, task: str, shape: tuple[int, ...]) -> None:
    model = Answers(torch.randn(8, 3))
    built = loss(setup(model, task))
    labels = torch.full(shape, -100)
    total = built(model, {"row_numbers": torch.zeros(shape, dtype=torch.long)}, labels)
    total.backward()
    assert total.item() == 0.0
    assert model.table.grad is not None
    assert not model.table.grad.any()


@pytest.mark.parametrize(("loss", "task"), [(MaskedLMLoss, "masked_lm"), (Seq2SeqLoss, "seq2seq")])
def test_token_losses_are_sums_over_targets(loss: Any, task: str) -> None:
    torch.manual_seed(0)
    model = Answers(torch.randn(8, 3))
    numbers = torch.arange(8).view(2, 4)
    labels = torch.tensor([[0, -100, 2, 1], [-100, -100, 1, 0]])
    found = loss(setup(model, task))(model, {"row_numbers": numbers}, labels)
    expected = functional.cross_entropy(model.table, labels.flatten(), reduction="sum")
    torch.testing.assert_close(found, expected)


def test_seq2seq_smoothing_equals_torch() -> None:
    torch.manual_seed(0)
    model = Answers(torch.randn(8, 3))
    labels = torch.tensor([[0, 1, 2, 1], [2, -100, -100, -100]])
    found = Seq2SeqLoss(setup(model, "seq2seq", label_smoothing=0.2))(
        model, {"row_numbers": torch.arange(8).view(2, 4)}, labels
    )
    expected = functional.cross_entropy(model.table, labels.flatten(), label_smoothing=0.2, reduction="mean")
    torch.testing.assert_close(found / 5, expected)


def test_seq2seq_needs_a_model_with_a_decoder() -> None:
    with pytest.raises(ConfigError, match="seq2seq cannot be used") as caught:
        Seq2SeqLoss(setup(torch.nn.Linear(2, 2), "seq2seq"))
    assert "T5" in caught.value.fix


def test_right_answers_are_counted_in_evaluation_alone() -> None:
    model = Answers(torch.eye(3))
    loss = ClassificationLoss(setup(model))
    assert isinstance(loss, CountsHits)
    batch = ({"row_numbers": torch.tensor([0, 1, 2, 0])}, torch.tensor([0, 1, 1, -100]))
    model.train()
    loss(model, *batch)
    assert loss.take_hits() == (0.0, 0.0)
    model.eval()
    loss(model, *batch)
    loss(model, *batch)
    assert loss.take_hits() == (4.0, 6.0)
    assert loss.take_hits() == (0.0, 0.0), "taken once"


class QuantizedBase(torch.nn.Module):
    """Weights held as bytes with a scale, and a low-rank update in float32 beside them, as QLoRA has it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(
            torch.randint(-127, 127, (3, 8), generator=generator).to(torch.int8), requires_grad=False
        )
        self.lora_A = torch.nn.Parameter(torch.randn(2, 8, generator=generator))
        self.lora_B = torch.nn.Parameter(torch.zeros(3, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        dense = (self.weight.to(torch.bfloat16) * 0.01).detach()
        return (features.to(torch.bfloat16) @ dense.T) + (features @ self.lora_A.T @ self.lora_B.T).bfloat16()


def test_quantized_weights_are_neither_touched_nor_asked_for_gradients() -> None:
    model = QuantizedBase()
    loss = ClassificationLoss(setup(model))
    before = model.weight.clone()
    features, labels = torch.randn(16, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3
    check_only_adapter_trains(model)
    check_gradients_reach_adapter(model, loss, {"features": features}, labels, note=pytest.fail)
    optimizer = torch.optim.AdamW([model.lora_A, model.lora_B], lr=0.05)
    values = []
    for _ in range(30):
        total = loss(model, {"features": features}, labels) / 16
        assert total.dtype == torch.float32
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.8 * values[0], values
    assert model.weight.dtype == torch.int8
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None


# Refusals


@pytest.mark.parametrize(
    ("loss", "task", "labels"),
    [
        (ClassificationLoss, "sequence_classification", torch.zeros(3, dtype=torch.long)),
        (ClassificationLoss, "token_classification", torch.zeros(2, 3, dtype=torch.long)),
        (MaskedLMLoss, "masked_lm", torch.zeros(2, dtype=torch.long)),
        (Seq2SeqLoss, "seq2seq", torch.zeros(2, 5, dtype=torch.long)),
    ],
)
def test_labels_that_do_not_fit_the_logits(loss: Any, task: str, labels: torch.Tensor) -> None:
    model = Answers(torch.randn(8, 3))
    with pytest.raises(TrainingError, match=r"labels of shape .* do not fit logits of shape") as caught:
        loss(setup(model, task))(model, {"row_numbers": torch.zeros(2, 4, dtype=torch.long)}, labels)
    assert "model.task" in caught.value.fix
    assert str([2, 4]) in caught.value.why, "it says which shape is needed"


@pytest.mark.parametrize("label", [3, -1, -7])
def test_a_label_out_of_range_is_named(label: int) -> None:
    model = Answers(torch.randn(8, 3))
    with pytest.raises(TrainingError, match=f"the label {label} is out of range") as caught:
        ClassificationLoss(setup(model))(
            model, {"row_numbers": torch.tensor([0, 1])}, torch.tensor([0, label])
        )
    assert "0 to 2" in caught.value.why
    assert "data.labels" in caught.value.fix


@pytest.mark.parametrize("task", ["sequence_classification", "token_classification", "masked_lm", "seq2seq"])
def test_padded_rows_without_a_mask_are_refused(task: str) -> None:
    model = Answers(torch.randn(8, 3))
    shape = (2,) if task == "sequence_classification" else (2, 4)
    loss = build_loss(setup(model, task))
    inputs = {
        "row_numbers": torch.zeros(shape, dtype=torch.long),
        "input_ids": torch.tensor([[5, 6, 7, 2], [5, 2, 0, 0]]),
    }
    labels = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(TrainingError, match="no attention_mask") as caught:
        loss(model, inputs, labels)
    assert "collator" in caught.value.fix
    loss(model, {**inputs, "attention_mask": torch.ones(2, 4)}, labels)
    loss(model, {**inputs, "input_ids": torch.tensor([[5, 6, 7, 2], [5, 6, 6, 2]])}, labels)


def test_a_model_whose_end_token_also_pads_may_end_a_row_with_it() -> None:
    model = Answers(torch.randn(8, 3))
    model.config = SimpleNamespace(pad_token_id=2, eos_token_id=2)
    loss = ClassificationLoss(setup(model))
    numbers, labels = torch.tensor([0, 1]), torch.tensor([0, 1])
    loss(model, {"row_numbers": numbers, "input_ids": torch.tensor([[5, 6, 2], [5, 7, 2]])}, labels)
    with pytest.raises(TrainingError, match="no attention_mask"):
        loss(model, {"row_numbers": numbers, "input_ids": torch.tensor([[5, 6, 2], [5, 2, 2]])}, labels)


def test_a_model_without_logits_is_a_training_error() -> None:
    class Silent(torch.nn.Module):
        def forward(self) -> dict[str, int]:
            return {"scores": 1}

    with pytest.raises(TrainingError, match="answer cannot be used") as caught:
        ClassificationLoss(setup(Silent()))(Silent(), {}, torch.tensor([0]))
    assert "scores" in caught.value.why


# The registry


def test_every_task_has_a_loss_of_its_own(tiny_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    kinds = {
        task: type(build_loss(setup(Answers(torch.zeros(1, 3)), task))).__name__
        for task in (
            "sequence_classification",
            "token_classification",
            "image_classification",
            "masked_lm",
            "seq2seq",
        )
    }
    assert kinds == {
        "sequence_classification": "ClassificationLoss",
        "token_classification": "ClassificationLoss",
        "image_classification": "ClassificationLoss",
        "masked_lm": "MaskedLMLoss",
        "seq2seq": "Seq2SeqLoss",
    }
    llama = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert type(build_loss(setup(llama, "causal_lm"))).__name__ == "CausalLMLoss"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no loss `clasification`") as caught:
        build_loss(setup(Answers(torch.zeros(1, 3)), name="clasification"))
    assert caught.value.fix == "did you mean `classification`?"
    assert "masked_lm" in caught.value.why


def test_a_name_is_registered_once() -> None:
    assert "classification" in loss_names()

    def other(setup: LossSetup) -> Loss:
        raise NotImplementedError

    with pytest.raises(ConfigError, match="registered twice") as caught:
        register_loss("classification")(other)
    assert "ClassificationLoss" in caught.value.why
    assert register_loss("classification")(ClassificationLoss) is ClassificationLoss, (
        "the same once more is no fault"
    )
    for wrong in ("", "module:Class"):
        with pytest.raises(ConfigError, match="cannot be registered"):
            register_loss(wrong)


@pytest.mark.parametrize("name", ["causal_lm", "masked_lm", "seq2seq"])
def test_a_loss_of_another_task_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"does not fit model\.task: sequence_classification"):
        build_loss(setup(Answers(torch.zeros(1, 3)), name=name))


@dataclass
class FocalLoss:
    """A user's own: answers that are right already count less."""

    setup: LossSetup
    gamma: float = field(default=2.0)

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        nll = functional.cross_entropy(model(**inputs)["logits"].float(), labels, reduction="none")
        return ((1 - torch.exp(-nll)) ** self.gamma * nll).sum()


def test_a_loss_of_ones_own_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(
        "class Mine:\n    def __init__(self, setup):\n        self.labels = setup.labels\n\nnothing = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = Answers(torch.zeros(1, 3))
    assert build_loss(setup(model, name="my_losses:Mine")).labels == LABELS  # type: ignore[attr-defined]
    for name, told in (
        ("my_losses:Other", "cannot be imported"),
        ("no_such_module:Mine", "cannot be imported"),
        ("my_losses:nothing", "makes nothing"),
    ):
        with pytest.raises(ConfigError, match=told):
            build_loss(setup(model, name=name))


def test_a_registered_loss_of_ones_own() -> None:
    name = "focal_of_this_test"
    register_loss(name)(FocalLoss)
    built = build_loss(setup(Answers(torch.zeros(1, 3)), name=name))
    assert isinstance(built, FocalLoss)
    assert name in loss_names()
