"""A LightningModule in raytrain's loop, against raytrain's own loss and against Lightning's own Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from conftest_tasks import task_spec, train_task, write_jsonl
from conftest_training import JobMaker, RecordingChannel, build_test_job

from raytrain.errors import ConfigError, TrainingError
from raytrain.models.adapter import trained_state
from raytrain.models.base import ResolvedModel
from raytrain.training.batching import tensors_of
from raytrain.training.job import Job
from raytrain.training.loop import micro_batch, run_loop
from raytrain.training.spec import RunSpec, load_spec

pytestmark = pytest.mark.whole


def uses(name: str, **arguments: Any) -> dict[str, Any]:
    return {"module": f"lightning_modules:{name}", "arguments": arguments}


def weights(job: Job) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trained_state(job.model).items()}


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def metrics_named(job: Job, start: str) -> list[dict[str, float]]:
    recorded = [one["metrics"] for one in job.channel.of("metrics")]  # type: ignore[attr-defined]
    return [one for one in recorded if any(name.startswith(start) for name in one)]


@pytest.mark.parametrize("micro_batch_size", [1, 4])
@pytest.mark.parametrize("name", ["Chat", "Summed"])
def test_a_module_learns_what_the_own_loss_learns(
    make_job: JobMaker, name: str, micro_batch_size: int
) -> None:
    """Rows of unequal length: a mean of means would be off by far more than rounding."""
    options: dict[str, Any] = {"adapter": {"lora_rank": 4}, "packing": "off", "eval_every": 3}
    own = make_job("own", micro_batch_size=4, **options)
    theirs = make_job("theirs", micro_batch_size=micro_batch_size, lightning=uses(name), **options)
    run_loop(own), run_loop(theirs)
    assert difference(weights(own), weights(theirs)) < 1e-5
    for step, loss in own.channel.losses().items():  # type: ignore[attr-defined]
        assert theirs.channel.losses()[step] == pytest.approx(loss, abs=1e-5)  # type: ignore[attr-defined]
    assert theirs.state.last_eval["eval/loss"] == pytest.approx(own.state.last_eval["eval/loss"], abs=1e-5)


def test_a_mean_over_rows_stays_one_whatever_the_micro_batch(make_job: JobMaker) -> None:
    made = []
    for micro_batch_size in (1, 2, 8):
        job = make_job(str(micro_batch_size), lightning=uses("ByRow"), micro_batch_size=micro_batch_size,
                       adapter={"lora_rank": 4})  # fmt: skip
        assert job.validation.loss.training_step.reduction == "rows"  # type: ignore[union-attr]
        run_loop(job)
        made.append(weights(job))
    assert max(difference(made[0], other) for other in made[1:]) < 1e-5
    by_target = make_job("targets", lightning=uses("Chat"), adapter={"lora_rank": 4})
    run_loop(by_target)
    assert difference(made[0], weights(by_target)) > 1e-4, "the two means differ on these rows"


@pytest.mark.parametrize("accumulate", [1, 4, 8])
def test_steps_and_weights_are_those_of_lightnings_trainer(
    base: ResolvedModel, tmp_path: Path, accumulate: int
) -> None:
    """Rows of one length, so that Lightning's mean of means is exact; the same micro-batches in the same order."""
    options: dict[str, Any] = {
        "adapter": {"lora_rank": 4}, "row_length": 12, "micro_batch_size": 2, "max_steps": None,
        "lightning": uses("Chat", lr=1e-2), "max_grad_norm": None, "schedule": "constant",
        "global_batch_size": 2 * accumulate, "save_every": 0, "save_every_minutes": None,
    }  # fmt: skip
    for num_rows in (16, 20):  # 8 micro-batches, and 10: the last step of 4 and of 8 is a short one
        job = build_test_job(base, tmp_path / f"{num_rows}", num_rows=num_rows, **options)
        other = build_test_job(base, tmp_path / f"{num_rows}-theirs", num_rows=num_rows, **options)
        for one in (job, other):
            one.model.double()  # Adam makes much of rounding while its moments are small
        batches = micro_batches(other)
        assert len(batches) == num_rows // 2
        trainer = lightning.Trainer(
            accumulate_grad_batches=accumulate, max_epochs=1, accelerator="cpu", logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        module = other.validation.loss.module  # type: ignore[union-attr]
        module.fabric = None
        trainer.fit(module, train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))
        run_loop(job)
        assert job.state.global_step == trainer.global_step == -(-num_rows // (2 * accumulate))
        # Lightning divides a short last step by the whole of `accumulate_grad_batches`; raytrain by what is in it.
        is_whole = num_rows % (2 * accumulate) == 0
        assert (difference(weights(job), weights(other)) < 1e-12) == is_whole


def micro_batches(job: Job) -> list[dict[str, torch.Tensor]]:
    """All micro-batches of the first epoch, in raytrain's order, as a data loader of Lightning's would give them."""
    position, batches = job.state.position, []
    while position.epoch == 0:
        batch = job.planner.batch_at(position)
        for slots in batch.slots:
            inputs, labels = micro_batch(job, slots[0])
            batches.append({**inputs, "labels": labels})
        position = batch.after
    return batches


def test_what_a_module_logs_is_recorded(make_job: JobMaker) -> None:
    job = make_job(lightning=uses("Chat"), adapter={"lora_rank": 4}, eval_every=3, log_every=2)
    run_loop(job)
    train, evaluated = metrics_named(job, "module/train/"), metrics_named(job, "module/eval/")
    assert len(train) == 3
    assert all(0 < one["module/train/own_loss"] < 20 for one in train)
    assert len(evaluated) == 2
    assert all(one["module/eval/always_two"] == 2.0 for one in evaluated)
    assert not metrics_named(job, "module/train/always_two")


def test_it_resumes_bit_for_bit(base: ResolvedModel, tmp_path: Path) -> None:
    def leg(folder: str, stop_after: int | None = None) -> Job:
        job = build_test_job(
            base, tmp_path / folder, channel=RecordingChannel(stop_after=stop_after),
            adapter={"lora_rank": 4, "lora_dropout": 0.2}, lightning=uses("Chat"),
        )  # fmt: skip
        run_loop(job)
        return job

    straight = leg("straight")
    for stop_after in (1, 3, None):
        resumed = leg("legs", stop_after)
    assert resumed.state == straight.state
    assert difference(weights(straight), weights(resumed)) == 0.0


def test_a_rank_without_rows_adds_nothing(make_job: JobMaker) -> None:
    job = make_job(lightning=uses("Chat"), adapter={"lora_rank": 4})
    batch = job.collate(job.planner.table, np.array([], np.int64))
    job.model.train()
    total = job.strategy.forward(*tensors_of(batch, job.strategy.device))
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() == 0.0
    gradients = [parameter.grad for parameter in job.model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(not gradient.any() for gradient in gradients)


def test_what_is_not_called_is_told(make_job: JobMaker) -> None:
    job = make_job(lightning=uses("Chat"))
    (told,) = [one["text"] for one in job.channel.of("note")]  # type: ignore[attr-defined]
    assert told.startswith("Chat: configure_optimizers not called")


@pytest.mark.parametrize(
    ("name", "told", "fix"),
    [
        ("Manual", "automatic_optimization = False", "return the loss"),
        ("Accumulates", "accumulation is set twice: accumulate_grad_batches 4", "remove accumulate_grad_batches"),
        ("Schedules", "GradientAccumulationScheduler", "remove the callback"),
        ("Clips", "configure_gradient_clipping would not be called", "train.max_grad_norm"),
        ("OwnHead", "must train the model that it is given", "self.model = model"),
        ("Forgets", "must train the model that it is given", "self.model = model"),
        ("NoLightning", "is no LightningModule", "lightning.LightningModule"),
        ("Mixed", "measure by different means", "the same loss from both"),
        ("Worst", "no mean and no sum", "labels that are not -100"),
        ("AllPositions", "no mean and no sum", "padding counts for nothing"),
        ("Breaks", "Breaks.training_step failed on the first rows", "one dictionary"),
        ("NotANumber", "is nan before the first step", "weights of the base model"),
        ("Missing", "cannot be imported", "importable on every worker"),
    ],
)  # fmt: skip
def test_what_cannot_be_exact_is_refused(make_job: JobMaker, name: str, told: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        make_job(lightning=uses(name))
    assert fix in caught.value.fix


def test_arguments_that_do_not_fit_are_named(make_job: JobMaker) -> None:
    with pytest.raises(ConfigError, match="lightning_modules:Chat cannot be made") as caught:
        make_job(lightning=uses("Chat", depth=3))
    assert "depth" in caught.value.why
    make_job(lightning=uses("Accumulates", accumulate_grad_batches=1))


def test_a_fault_of_the_module_is_named(make_job: JobMaker) -> None:
    with pytest.raises(ConfigError) as caught:
        make_job(lightning=uses("Breaks"))
    assert caught.value.why == "KeyError: 'weights'"


def test_a_module_knows_where_the_run_is(base: ResolvedModel, tmp_path: Path) -> None:
    """23 rows, 8 a step: an epoch has 3 steps of 2, 2 and 2 micro-batches; stopped after step 2 and resumed."""
    places: list[tuple[str, int, int, int]] = []
    for stop_after in (2, None):
        channel = RecordingChannel(stop_after=stop_after)
        job = build_test_job(
            base, tmp_path / "run", channel=channel, lightning=uses("Follows"), eval_every=4, max_steps=5,
            adapter={"lora_rank": 4},
        )  # fmt: skip
        module = job.validation.loss.module  # type: ignore[union-attr]
        module.places.clear()  # those of the proof
        run_loop(job)
        places += module.places
    trained = [place[1:] for place in places if place[0] == "train"]
    assert trained == [
        (0, 0, 0), (0, 0, 1), (1, 0, 2), (1, 0, 3), (2, 0, 4), (2, 0, 5),
        (3, 1, 0), (3, 1, 1), (4, 1, 2), (4, 1, 3),
    ]  # fmt: skip
    evaluated = [place[3] for place in places if place[0] == "eval"]
    assert evaluated == [0, 1, 0, 1], "validation counts from 0 each time"
    assert {one["module/train/half"] for one in metrics_named(job, "module/train/half")} == {0.5}
    notes = [one["text"] for one in job.channel.of("note")]  # type: ignore[attr-defined]
    assert "Follows: seen: buffers of the module's own are in no checkpoint" in notes


def test_a_frozen_teacher_may_stand_beside_the_model(make_job: JobMaker) -> None:
    job = make_job(lightning=uses("Distils"), adapter={"lora_rank": 4}, max_steps=1)
    assert run_loop(job) == "finished"


def test_what_was_tried_before_the_first_step_is_no_figure(make_job: JobMaker) -> None:
    """As the proof of an adapter does it; a first record of two means would then be of three."""
    jobs = [make_job(name, lightning=uses("Chat"), adapter={"lora_rank": 4}, max_steps=1) for name in "ab"]
    inputs, labels = micro_batch(jobs[0], np.array([0]))
    jobs[0].strategy.forward(inputs, labels)
    told = []
    for job in jobs:
        run_loop(job)
        told.append(metrics_named(job, "module/train/own_loss")[0]["module/train/own_loss"])
    assert told[0] == told[1]


@pytest.mark.parametrize(("name", "reduction"), [("Chat", "targets"), ("ByRow", "rows"), ("Summed", "sum")])
@pytest.mark.parametrize("num_rows", [1, 2, 23])
def test_the_reduction_is_found_whatever_the_rows(
    make_job: JobMaker, name: str, reduction: str, num_rows: int
) -> None:
    job = make_job(lightning=uses(name), num_rows=num_rows, max_steps=1)
    assert job.validation.loss.training_step.reduction == reduction  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "reduction"), [("Chat", "targets"), ("ByRow", "rows"), ("Summed", "sum")])
def test_the_reduction_is_found_in_half_precision(make_job: JobMaker, name: str, reduction: str) -> None:
    """The losses of both means lie closer than bfloat16 rounds, as fresh weights give every token the same; the
    gradients do not."""
    options: dict[str, Any] = {"model_options": {"dtype": "bfloat16"}, "adapter": {"lora_rank": 4}}
    job = make_job(lightning=uses(name), **options)
    assert job.validation.loss.training_step.reduction == reduction  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "why"), [("Nothing", "NoneType"), ("Vector", "shape")])
def test_a_step_without_a_loss_is_an_error(make_job: JobMaker, name: str, why: str) -> None:
    with pytest.raises(TrainingError, match=f"{name}.training_step returned no loss") as caught:
        make_job(lightning=uses(name))
    assert why in caught.value.why


@pytest.mark.slow
def test_a_module_classifies_through_the_whole_way(tmp_path: Path, tiny_llama: Path) -> None:
    """From rows to a result that is loaded again: the module leaves an ordinary adapter."""
    words = {"good": "positive", "bad": "negative"}
    rows = [
        {"text": f"it is {list(words)[i % 2]} {i}", "label": list(words.values())[i % 2]} for i in range(80)
    ]
    spec = task_spec(
        "sequence_classification", tiny_llama, write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "storage",
        adapter={"method": "lora", "lora_rank": 8},
        train={"lightning": uses("Chat"), "learning_rate": 1e-2},
    )  # fmt: skip
    run = train_task(spec)
    assert np.mean(run.losses[:3]) > 0.5
    assert np.mean(run.losses[-5:]) < 0.2
    assert run.last_eval["eval/loss"] < 0.2
    assert run.result().manifest.kind == "adapter"


BASE: dict[str, Any] = {
    "name": "mine", "model": {"base_model": "some/model"}, "data": {"sources": ["rows.jsonl"]},
}  # fmt: skip


def spec_of(train: dict[str, Any], **sections: Any) -> RunSpec:
    return RunSpec.model_validate({**BASE, "train": train, **sections})


@pytest.mark.parametrize("accumulate", [1, 4, 8])
def test_accumulation_as_lightning_counts_it_becomes_the_global_batch(
    accumulate: int, tmp_path: Path
) -> None:
    lightning_keys = {**uses("Chat"), "accumulate_grad_batches": accumulate}
    spec = spec_of({"micro_batch_size": 2, "lightning": lightning_keys}, scaling={"num_workers": 2})
    assert spec.train.global_batch_size == 2 * 2 * accumulate
    place = tmp_path / "resolved.yaml"
    place.write_text(spec.to_yaml())
    assert load_spec(place) == spec, "the resolved recipe says it once"
    assert load_spec(place).run_id == spec.run_id


@pytest.mark.parametrize(
    ("train", "sections", "told"),
    [
        (
            {"global_batch_size": 8, "lightning": {**uses("Chat"), "accumulate_grad_batches": 4}}, {},
            "accumulation is set twice: train.global_batch_size 8 and train.lightning.accumulate_grad_batches 4",
        ),
        (
            {"lightning": {**uses("Chat"), "accumulate_grad_batches": 4}}, {"scaling": {"num_workers": [1, 2]}},
            "needs a fixed scaling.num_workers",
        ),
        ({"lightning": uses("Chat"), "loss": {"name": "causal_lm"}}, {}, "the loss is set twice"),
        ({"lightning": uses("Chat"), "packing": "on"}, {}, "sees padded rows"),
        ({"lightning": {"module": "Chat"}}, {}, "must read module:Class"),
        ({"lightning": {"module": "a b:c d"}}, {}, "must read module:Class"),
        (
            {"lightning": uses("Chat", accumulate_grad_batches=4)}, {},
            "train.lightning.arguments.accumulate_grad_batches 4",
        ),
        (
            {"lightning": {**uses("Chat"), "accumulate_grad_batches": 2**20}, "micro_batch_size": 2**20}, {},
            "less than or equal to 1048576",
        ),
        ({"lightning": {**uses("Chat"), "accumulate_grad_batches": 0}}, {}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_recipe_that_says_it_twice_is_refused(train: dict[str, Any], sections: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        spec_of(train, **sections)


def test_deepspeeds_own_accumulation_is_held_against_it() -> None:
    config = {"gradient_accumulation_steps": 2}
    with pytest.raises((ConfigError, ValueError), match="gradient_accumulation_steps"):
        spec_of(
            {"micro_batch_size": 2, "lightning": {**uses("Chat"), "accumulate_grad_batches": 4}},
            scaling={"strategy": "deepspeed", "num_workers": 2, "deepspeed": {"config": config}},
        )
