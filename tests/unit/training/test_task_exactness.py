"""Tasks beside causal language modelling: the same losses for one and two workers, the same bits after a resume, heads
that start equal everywhere, and adapters that alone are trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest_tasks import assign, prepare_job, task_spec, train_task, write_jsonl
from conftest_training import RecordingChannel
from strategy_contract import new_strategy, spawn
from test_task_runs import reviews, save_pictures, tagged, translations
from tiny_task_models import save_tiny_bert, save_tiny_t5, save_tiny_vit

from raytrain.errors import ConfigError, IntegrityError, TrainingError
from raytrain.models.adapter import trained_state
from raytrain.models.heads import head_modules
from raytrain.training.hooks import Hook
from raytrain.training.loop import micro_batch, run_loop
from raytrain.training.losses.base import LossSetup
from raytrain.training.losses.trained_parts import check_only_adapter_trains
from raytrain.training.setup import build_job
from raytrain.training.spec import RunSpec
from raytrain.training.strategies.single import SingleProcess

pytestmark = pytest.mark.slow

TASKS: dict[str, dict[str, Any]] = {
    "sequence_classification": {"loss": {"class_weights": {"positive": 3.0}, "label_smoothing": 0.1}},
    "token_classification": {"loss": {"class_weights": "balanced"}},
    "masked_lm": {},
    "seq2seq": {"loss": {"label_smoothing": 0.1}},
    "image_classification": {},
}


def without_dropout(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout_rate")
    (folder / "config.json").write_text(json.dumps({**config, **dict.fromkeys(names, 0.0)}))
    return folder


def exact_spec(task: str, folder: Path) -> RunSpec:
    """Six steps of three micro-batches, the last of an epoch shorter than the others; nothing is dropped out."""
    data: dict[str, Any] = {}
    if task == "image_classification":
        model, rows = folder / "vit", folder / "pictures.jsonl"
        data = {
            "sources": {"path": str(rows), "layout": "image_classification"},
            "images": {"random_flip": True, "random_crop": 1},
        }
    else:
        model, rows = folder / ("t5" if task == "seq2seq" else "bert"), folder / f"{task}.jsonl"
    return task_spec(
        task, model, rows, folder / "storage", data=data,
        train={
            "max_steps": 6, "global_batch_size": 9, "micro_batch_size": 2, "learning_rate": 1e-3, "eval_every": 3,
            **TASKS[task],
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows of all tasks."""
    folder = tmp_path_factory.mktemp("exact")
    without_dropout(save_tiny_bert(folder / "bert"))
    without_dropout(save_tiny_t5(folder / "t5"))
    without_dropout(save_tiny_vit(folder / "vit"))
    write_jsonl(folder / "sequence_classification.jsonl", list(reviews(40)))
    write_jsonl(folder / "token_classification.jsonl", list(tagged(40)))
    write_jsonl(folder / "masked_lm.jsonl", [{"text": row["text"]} for row in reviews(40)])
    write_jsonl(folder / "seq2seq.jsonl", list(translations(40)))
    save_pictures(folder, 40).rename(folder / "pictures.jsonl")
    return folder


def train_all(rank: int, folder: str, strategy: str, tasks: list[str]) -> None:
    """On every rank: each task under one strategy; rank 0 writes what it saw."""
    for task in tasks:
        channel = RecordingChannel()
        job, _ = prepare_job(exact_spec(task, Path(folder)), new_strategy(strategy), channel)
        run_loop(job)
        trained = job.strategy.whole_tensors(trained_state(job.model))
        if rank == 0:
            evaluations = [one["metrics"] for one in channel.of("metrics") if "eval/loss" in one["metrics"]]
            for one in evaluations:
                one.pop("eval/duration_s")
            seen = {"losses": channel.losses(), "evaluations": evaluations, "weights": trained}
            torch.save(seen, Path(folder) / f"{strategy}-{task}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_give_what_one_gives(workplace: Path, strategy: str) -> None:
    train_all(0, str(workplace), "single", list(TASKS))
    spawn(train_all, str(workplace), strategy, list(TASKS))
    for task in TASKS:
        one, two = (torch.load(workplace / f"{name}-{task}.pt") for name in ("single", strategy))
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5), task
        for ours, theirs in zip(two["evaluations"], one["evaluations"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), task
        for name, tensor in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], tensor, atol=2e-4, rtol=0, msg=f"{task} {name}")


@pytest.mark.parametrize("task", ["masked_lm", "image_classification", "sequence_classification"])
def test_resumed_means_identical(tmp_path: Path, task: str) -> None:
    """With dropout, masking and image variation drawn anew in each epoch; the stop lies in the second epoch."""
    save_tiny_bert(tmp_path / "bert")
    save_tiny_vit(tmp_path / "vit")
    rows: list[Any] = list(reviews(24))
    write_jsonl(tmp_path / "sequence_classification.jsonl", rows)
    write_jsonl(tmp_path / "masked_lm.jsonl", [{"text": row["text"]} for row in rows])
    save_pictures(tmp_path, 24).rename(tmp_path / "pictures.jsonl")

    def trained(name: str, stops: tuple[int | None, ...]) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
        losses: dict[int, float] = {}
        for stop_after in stops:
            channel = RecordingChannel(stop_after=stop_after)
            spec = exact_spec(task, tmp_path)
            spec = spec.model_copy(
                update={"storage": spec.storage.model_copy(update={"path": str(tmp_path / name)})}
            )
            job, _ = prepare_job(spec, SingleProcess(torch.device("cpu")), channel)
            run_loop(job)
            losses |= channel.losses()
        return losses, {key: value.clone() for key, value in trained_state(job.model).items()}

    straight, weights = trained("straight", (None,))
    resumed, weights_resumed = trained("resumed", (1, 3, None))
    assert resumed == straight
    for key, value in weights.items():
        assert torch.equal(value, weights_resumed[key]), key


def test_masks_change_with_the_epoch(workplace: Path) -> None:
    """What the loop collates in the second epoch is not what it collated in the first."""
    spec = exact_spec("masked_lm", workplace)
    job, _ = prepare_job(spec)
    first = job.collate(job.planner.table, np.array([0, 1]), 0)
    job.state.position = type(job.state.position)(epoch=1, row=0)
    _, labels = micro_batch(job, np.array([0, 1]))
    again = job.collate(job.planner.table, np.array([0, 1]), 1)
    assert (labels.numpy() == again.labels).all()
    assert (labels.numpy() != first.labels).any()


# Heads


def head_of(job: Any) -> torch.Tensor:
    inside = job.model.get_base_model() if hasattr(job.model, "get_base_model") else job.model
    head = inside.classifier
    head = head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head
    return head.weight.detach().clone()


def test_a_new_head_is_drawn_from_the_seed(workplace: Path) -> None:
    spec = exact_spec("sequence_classification", workplace)
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(int(torch.randint(1000, ())))  # whatever was drawn before
        own = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})})
        heads.append(head_of(prepare_job(own)[0]))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert 0.01 < float(heads[0].std()) < 0.03


def test_a_head_of_the_same_classes_goes_on_and_one_of_others_starts_anew(
    workplace: Path, tmp_path: Path
) -> None:
    spec = exact_spec("sequence_classification", workplace)
    run = train_task(spec)
    trained = run.result().path

    def begun(**data: Any) -> torch.Tensor:
        again = task_spec(
            "sequence_classification", trained, workplace / "sequence_classification.jsonl", tmp_path / "storage",
            data=data,
        )  # fmt: skip
        return head_of(prepare_job(again)[0])

    assert torch.equal(begun(), head_of(run.job)), "training goes on with the head that was trained"
    turned = begun(labels=["positive", "negative"])
    assert turned.shape == (2, 32)
    assert not torch.equal(turned, head_of(run.job)), "these classes in another order are other classes"
    assert begun(labels=["negative", "positive", "other"]).shape == (3, 32)


def test_only_the_head_may_be_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = save_tiny_bert(tmp_path / "bert")
    tensors = load_file(model / "model.safetensors")
    tensors.pop("bert.encoder.layer.1.output.dense.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    rows = write_jsonl(tmp_path / "rows.jsonl", list(reviews(12)))
    for task in ("sequence_classification", "token_classification"):
        spec = task_spec(task, model, rows, tmp_path / "storage", data={"labels": ["negative", "positive"]})
        if task == "token_classification":
            spec = task_spec(
                task, model, write_jsonl(tmp_path / "tags.jsonl", list(tagged(12))), tmp_path / "storage"
            )
        with pytest.raises(IntegrityError, match="not whole") as caught:
            prepare_job(spec)
        assert "layer.1.output.dense.weight" in caught.value.why


def test_a_masked_model_must_have_its_own_head(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    model = save_tiny_bert(tmp_path / "bert")
    BertModel(BertConfig.from_pretrained(model)).save_pretrained(model)
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": row["text"]} for row in reviews(12)])
    with pytest.raises(IntegrityError, match="not whole") as caught:
        prepare_job(task_spec("masked_lm", model, rows, tmp_path / "storage"))
    assert "cls.predictions" in caught.value.why
    assert "a masked language model" in caught.value.fix


def test_a_model_without_the_task_is_a_config_error(
    tiny_llama: Path, workplace: Path, tmp_path: Path
) -> None:
    rows = workplace / "masked_lm.jsonl"
    for task, told in (("masked_lm", "a masked language model"), ("seq2seq", "an encoder-decoder model")):
        if task == "seq2seq":
            rows = workplace / "seq2seq.jsonl"
        with pytest.raises(ConfigError) as caught:
            prepare_job(task_spec(task, tiny_llama, rows, tmp_path / "storage"))
        assert told in caught.value.fix


def test_masking_needs_a_mask_token(tmp_path: Path, workplace: Path) -> None:
    from transformers import AutoTokenizer

    model = save_tiny_bert(tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(model)
    with pytest.raises(ConfigError, match="masked_lm cannot be used") as caught:
        prepare_job(task_spec("masked_lm", model, workplace / "masked_lm.jsonl", tmp_path / "storage"))
    assert "mask token" in caught.value.why


# Adapters


def test_an_adapter_trains_and_saves_the_head_and_nothing_of_the_base(workplace: Path) -> None:
    spec = exact_spec("sequence_classification", workplace)
    spec = spec.model_copy(
        update={
            "adapter": spec.adapter.model_copy(update={"method": "lora", "lora_rank": 4}),
            "model": spec.model.model_copy(update={"dtype": "bfloat16"}),
        }
    )
    job, _ = prepare_job(spec)
    frozen = {n: p.detach().clone() for n, p in job.model.named_parameters() if not p.requires_grad}
    head = head_of(job)
    run_loop(job)
    for name, parameter in job.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), f"{name} is frozen"
    assert not torch.equal(head_of(job), head)
    names = trained_state(job.model).keys()
    assert {name for name in names if "lora_" not in name} == {
        "base_model.model.classifier.weight", "base_model.model.classifier.bias",
        "base_model.model.bert.pooler.dense.weight", "base_model.model.bert.pooler.dense.bias",
    }  # fmt: skip
    assert all(tensor.dtype == torch.float32 for tensor in trained_state(job.model).values())


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "ViTForImageClassification"])
def test_which_modules_are_the_head(name: str, workplace: Path) -> None:
    import transformers

    folder = workplace / ("vit" if name.startswith("ViT") else "bert")
    model = getattr(transformers, name)(transformers.AutoConfig.from_pretrained(folder))
    expected = ["bert.pooler", "classifier"] if name.startswith("Bert") else ["classifier"]
    assert head_modules(model) == expected


def test_a_body_of_another_name_is_still_no_head() -> None:
    """transformers names the body of CLIP's image classifier after the whole of CLIP; only its classifier is new."""
    from transformers import CLIPConfig, CLIPForImageClassification

    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    model = CLIPForImageClassification(CLIPConfig(vision_config=vision, text_config={"hidden_size": 16}))
    assert head_modules(model) == ["classifier"]


def lora_spec(workplace: Path, **train: Any) -> RunSpec:
    spec = exact_spec("sequence_classification", workplace)
    return RunSpec.model_validate(
        {
            **spec.to_dict(),
            "adapter": {"method": "lora", "lora_rank": 4},
            "train": {**spec.train.model_dump(mode="json"), **train},
        }
    )


class Detached:
    """A loss that cuts the graph."""

    def __init__(self, setup: LossSetup) -> None:
        pass

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        return model(**inputs).logits.detach().float().sum()


class Meddling:
    """A loss that switches a parameter of the base on."""

    def __init__(self, setup: LossSetup) -> None:
        pass

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        for name, parameter in model.named_parameters():
            if name.endswith("word_embeddings.weight"):
                parameter.requires_grad_(True)
        return model(**inputs).logits.float().sum()


def test_a_loss_that_does_not_reach_the_adapter_is_refused(workplace: Path) -> None:
    with pytest.raises(TrainingError, match="no parameter of the adapter gets a gradient") as caught:
        prepare_job(lora_spec(workplace, loss={"name": f"{__name__}:Detached"}))
    assert "detach()" in caught.value.fix


def test_a_gradient_of_the_base_is_refused_by_name(workplace: Path) -> None:
    with pytest.raises(TrainingError, match=r"word_embeddings\.weight gets a gradient"):
        prepare_job(lora_spec(workplace, loss={"name": f"{__name__}:Meddling"}))


def test_a_base_parameter_that_would_be_trained_is_refused_by_name(workplace: Path) -> None:
    job, _ = prepare_job(lora_spec(workplace))
    check_only_adapter_trains(job.model)
    job.model.get_base_model().bert.embeddings.word_embeddings.weight.requires_grad_(True)
    with pytest.raises(TrainingError, match=r"word_embeddings\.weight would be trained") as caught:
        check_only_adapter_trains(job.model)
    assert "adapter.modules_to_save" in caught.value.fix


def test_the_proof_leaves_no_trace(workplace: Path) -> None:
    """Neither gradients nor random numbers, and the model trains on."""
    job, _ = prepare_job(lora_spec(workplace))
    assert job.model.training
    assert all(parameter.grad is None for parameter in job.model.parameters())


class Plain:
    """A user's own loss, a mean over targets by its sum."""

    def __init__(self, setup: LossSetup) -> None:
        self.num_classes = len(setup.labels)

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        logits = model(**inputs).logits
        assert logits.shape[-1] == self.num_classes
        return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")


def test_a_loss_of_ones_own_trains_as_the_built_in_one(workplace: Path) -> None:
    own = train_task(lora_spec(workplace, loss={"name": f"{__name__}:Plain"}))
    built_in = train_task(lora_spec(workplace, loss={}))
    assert own.losses == built_in.losses


def test_hooks_see_the_accuracy(workplace: Path) -> None:
    seen: list[dict[str, float]] = []

    class Watch(Hook):
        def on_evaluate(self, global_step: int, metrics: dict[str, float]) -> None:
            seen.append(metrics)

    spec = exact_spec("sequence_classification", workplace)
    train_task(spec, on_built=lambda job: job.hooks.update(watch=Watch()))
    assert len(seen) == 2
    assert all(metrics.keys() == {"eval/loss", "eval/accuracy"} for metrics in seen)


def test_evaluation_is_weighted_and_unvaried(workplace: Path) -> None:
    """The loss of all validation rows at once, with class weights and smoothing, is what evaluation tells."""
    spec = exact_spec("sequence_classification", workplace)
    job, _ = prepare_job(spec)
    table = job.validation.table
    job.model.eval()
    found = job.validation.evaluate(job.strategy)
    batch = job.validation.collate(table, np.arange(len(table)))
    inputs = {name: torch.from_numpy(value) for name, value in batch.inputs.items()}
    with torch.no_grad():
        logits = job.model(**inputs).logits
    labels = torch.from_numpy(batch.labels)
    expected = torch.nn.functional.cross_entropy(
        logits, labels, weight=torch.tensor([1.0, 3.0]), label_smoothing=0.1
    )
    assert found["eval/loss"] == pytest.approx(float(expected), abs=1e-6)
    assert found["eval/accuracy"] == pytest.approx(float((logits.argmax(-1) == labels).float().mean()))
    images, _ = prepare_job(exact_spec("image_classification", workplace))
    once, later = (
        images.validation.collate(images.validation.table, np.arange(4), epoch).inputs["pixel_values"]
        for epoch in (0, 1)
    )
    assert (once == later).all()


@pytest.mark.parametrize(
    ("task", "train", "told"),
    [
        ("causal_lm", {"loss": {"class_weights": {"a": 1.0}}}, "class_weights needs a classification"),
        (
            "masked_lm",
            {"loss": {"label_smoothing": 0.1}},
            "label_smoothing needs a classification or seq2seq",
        ),
        ("seq2seq", {"monitor": "eval/accuracy", "mode": "max"}, "eval/accuracy needs a classification"),
        ("sequence_classification", {"monitor": "eval/perplexity"}, "eval/perplexity needs a language model"),
        ("sequence_classification", {"monitor": "eval/accuracy"}, "set mode: max"),
        ("causal_lm", {"mode": "max"}, "set mode: min"),
        ("token_classification", {"packing": "on"}, "packing on is for model.task causal_lm"),
        ("sequence_classification", {"loss": {"name": "a:b:c"}}, "module:Class"),
        ("sequence_classification", {"loss": {"label_smoothing": 1.0}}, "less than 1"),
        ("sequence_classification", {"loss": {"class_weights": {"a": 0.0}}}, "greater than 0"),
    ],
)
def test_the_recipe_refuses_what_a_task_cannot_use(task: str, train: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        task_spec(task, Path("model"), Path("rows.jsonl"), Path("storage"), train=train)


def test_a_job_is_built_from_an_assignment_alone(workplace: Path) -> None:
    """Labels come with the tokens artifact, so that a worker needs nothing but what the driver hands it."""
    assignment = assign(exact_spec("token_classification", workplace))
    job = build_job(assignment, SingleProcess(torch.device("cpu")), RecordingChannel())
    assert job.model.config.id2label == {0: "LOC", 1: "O", 2: "PER"}
