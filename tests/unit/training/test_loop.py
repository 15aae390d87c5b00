from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest_training import JobMaker, RecordingChannel

from raytrain.errors import IntegrityError, TrainingError
from raytrain.models.adapter import trained_state
from raytrain.storage.artifact import open_artifact
from raytrain.training.hooks import Hook
from raytrain.training.job import Job
from raytrain.training.loop import forward_backward, micro_batch, run_loop

pytestmark = pytest.mark.whole


def weights(job: Job) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trained_state(job.model).items()}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    differing = [name for name in a if not torch.equal(a[name], b[name])]
    assert differing == [], f"{len(differing)} of {len(a)} tensors differ, the first is {differing[:1]}"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed_means_identical(make_job: JobMaker, method: str) -> None:
    """Straight to 6 against three legs, stopped at steps 1 and 4, across the end of an epoch (3 batches of 23 rows)."""
    adapter = {"method": "full"} if method == "full" else {"lora_rank": 4, "lora_dropout": 0.1}
    straight = make_job("straight", adapter=adapter)
    assert run_loop(straight) == "finished"
    losses: dict[int, float] = {}
    for stop_after in (1, 3, None):
        channel = RecordingChannel(stop_after=stop_after)
        leg = make_job("legs", adapter=adapter, channel=channel)
        ending = run_loop(leg)
        assert ending == ("stop_requested" if stop_after else "finished")
        assert not losses.keys() & channel.losses().keys(), "no step is made twice"
        losses |= channel.losses()
    assert leg.state.global_step == 6
    assert_same_bits(weights(straight), weights(leg))
    assert losses == straight.channel.losses()  # type: ignore[attr-defined]
    # The optimizer and the data position too: one more step would be the same.
    assert straight.state == leg.state


def test_a_checkpoint_knows_the_metrics_that_were_told_until_then(make_job: JobMaker) -> None:
    """Whoever resumes from it may be the first to hear of them."""
    straight = make_job("legs", channel=RecordingChannel(stop_after=3), log_every=1, eval_every=2)
    run_loop(straight)
    told = [(one["global_step"], one["metrics"]) for one in straight.channel.of("metrics")]  # type: ignore[attr-defined]
    assert [step for step, _ in told] == [1, 2, 2, 3]
    leg = make_job("legs", log_every=1, eval_every=2)
    assert (leg.state.global_step, leg.saver.told.after) == (3, 0)
    assert [(one["global_step"], one["metrics"]) for one in leg.saver.told.points] == told


@pytest.mark.parametrize("saves", [{"save_every": 100}, {"save_every": 0, "save_every_minutes": None}])
def test_workers_that_have_to_go_lose_nothing(make_job: JobMaker, saves: dict[str, Any]) -> None:
    """Between two checkpoints, and where there are none otherwise."""
    straight = make_job("straight")
    run_loop(straight)
    losses: dict[int, float] = {}
    for yield_after, ending in ((1, "yielded"), (3, "yielded"), (None, "finished")):
        channel = RecordingChannel(yield_after=yield_after)
        leg = make_job("legs", channel=channel, **saves)
        assert run_loop(leg) == ending
        assert not losses.keys() & channel.losses().keys(), "no step is made twice"
        losses |= channel.losses()
    assert_same_bits(weights(straight), weights(leg))
    assert losses == straight.channel.losses()  # type: ignore[attr-defined]


def test_a_worker_that_has_to_go_after_the_last_step_has_finished(make_job: JobMaker) -> None:
    assert run_loop(make_job(channel=RecordingChannel(yield_after=6))) == "finished"


def test_a_wish_to_stop_comes_before_a_notice(make_job: JobMaker) -> None:
    assert run_loop(make_job(channel=RecordingChannel(stop_after=2, yield_after=2))) == "stop_requested"


def test_loss_goes_down_and_is_told(make_job: JobMaker) -> None:
    job = make_job(
        max_steps=30, eval_every=10, save_every=0, num_rows=8, adapter={"method": "full"}, schedule="constant"
    )
    run_loop(job)
    losses = job.channel.losses()  # type: ignore[attr-defined]
    assert sorted(losses) == list(range(1, 31))
    assert losses[30] < losses[1] / 2
    metrics = job.channel.of("metrics")[0]["metrics"]  # type: ignore[attr-defined]
    assert metrics.keys() >= {
        "train/grad_norm",
        "train/learning_rate",
        "train/tokens_per_second",
        "train/step_s",
    }
    evaluations = [m["global_step"] for m in job.channel.of("metrics") if "eval/loss" in m["metrics"]]  # type: ignore[attr-defined]
    assert evaluations == [10, 20, 30]


def gradients_of_first_batch(job: Job) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients and the number of micro-batches."""
    batch = job.planner.batch_at(job.state.position)
    loss = forward_backward(job, batch)
    named = {name: p.grad.clone() for name, p in job.model.named_parameters() if p.grad is not None}
    return float(loss) / batch.loss_weight, named, len(batch.slots)


@pytest.mark.parametrize(("micro", "steps"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradients_do_not_depend_on_accumulation(
    make_job: JobMaker, micro: int, steps: int, method: str
) -> None:
    """8x1, 4x2, … over rows of unequal length: the same loss and gradients as all at once."""
    adapter = {"method": "full"} if method == "full" else {"lora_rank": 4}
    whole = make_job("whole", micro_batch_size=8, packing="off", adapter=adapter)
    loss, expected, _ = gradients_of_first_batch(whole)
    parts = make_job("parts", micro_batch_size=micro, packing="off", adapter=adapter)
    other_loss, found, num_slots = gradients_of_first_batch(parts)
    assert num_slots == steps
    assert other_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("micro", [8, 3, 1])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_packing_and_labels_only_change_no_gradient(make_job: JobMaker, micro: int, method: str) -> None:
    """Against padded rows and the whole logits of the model's own forward pass."""
    adapter = {"method": "full"} if method == "full" else {"lora_rank": 4}
    plain = make_job("plain", micro_batch_size=8, packing="off", adapter=adapter)
    objective = plain.strategy._objective  # type: ignore[attr-defined]
    assert objective.loss.path == ("recomputed" if method == "full" else "frozen")
    objective.loss.path = "whole"
    loss, expected, _ = gradients_of_first_batch(plain)
    packed = make_job("packed", micro_batch_size=micro, packing="on", adapter=adapter)
    assert "document_ends" in micro_batch(packed, np.array([0, 1]))[0]
    other_loss, found, _ = gradients_of_first_batch(packed)
    assert other_loss == pytest.approx(loss, abs=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5)


def test_mean_of_means_would_be_seen(make_job: JobMaker) -> None:
    """The known accumulation bug gives another gradient on these very rows, so the test above can fail."""
    job = make_job(micro_batch_size=1, adapter={"lora_rank": 4})
    batch = job.planner.batch_at(job.state.position)
    forward_backward(job, batch)
    right = {name: p.grad.clone() for name, p in job.model.named_parameters() if p.grad is not None}
    job.optimizer.zero_grad()
    for slots in batch.slots:
        inputs, labels = micro_batch(job, slots[0])
        loss = job.model(**inputs, labels=labels).loss
        (loss / len(batch.slots)).backward()
    wrong = {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None}
    largest = max(float((right[name] - wrong[name]).abs().max()) for name in right)
    assert largest > 1e-3


def poison(job: Job, is_bad: Callable[[int], bool]) -> None:
    """Have the last hidden state be NaN in the steps that `is_bad` names."""

    def spoil(_module: torch.nn.Module, _inputs: object, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * (math.nan if is_bad(job.state.global_step) else 1.0)

    norm: Any = job.model.get_base_model().model.norm  # type: ignore[operator]
    norm.register_forward_hook(spoil)


def test_stops_after_bad_gradients_with_layers_and_remedy(make_job: JobMaker) -> None:
    job = make_job(max_steps=20, save_every=1, max_bad_steps=3)

    poison(job, lambda step: step >= 2)
    with pytest.raises(TrainingError) as caught:
        run_loop(job)
    assert "3 steps in a row, up to step 5" in caught.value.what
    assert "lora_" in caught.value.why
    assert "learning_rate" in caught.value.fix
    assert job.state.num_skipped_steps == 3
    assert all(torch.isfinite(tensor).all() for tensor in weights(job).values()), (
        "a bad step changes no weight"
    )
    assert len(job.channel.of("event")) == 3  # type: ignore[attr-defined]


def test_a_bad_step_is_survived_and_resumed(make_job: JobMaker) -> None:
    def run(stops: list[int | None], folder: str) -> Job:
        for stop_after in stops:
            job = make_job(folder, channel=RecordingChannel(stop_after=stop_after))
            poison(job, lambda step: step == 2)
            run_loop(job)
        return job

    straight = run([None], "a")
    resumed = run([4, None], "b")
    assert straight.state.num_skipped_steps == 1
    assert_same_bits(weights(straight), weights(resumed))


def test_early_stopping_and_best(make_job: JobMaker) -> None:
    job = make_job(
        max_steps=60,
        eval_every=2,
        early_stopping_patience=2,
        learning_rate=0.3,
        schedule="constant",
        keep_best_k=1,
    )
    assert run_loop(job) == "early_stopped"
    assert job.state.global_step < 60
    assert job.state.num_evals_since_best == 2
    best = job.saver.store.best("min")
    assert best is not None
    assert best.location.name == f"step-{job.state.best_step:08d}"


def test_an_early_stop_outlives_a_stop_and_a_kill(make_job: JobMaker) -> None:
    """Asked to stop in the very step that ends it, and begun again as after a kill: it has ended."""
    options: dict[str, Any] = {
        "max_steps": 60, "eval_every": 2, "early_stopping_patience": 2, "learning_rate": 0.3, "schedule": "constant",
    }  # fmt: skip
    straight = make_job("straight", **options)
    assert run_loop(straight) == "early_stopped"
    last = straight.state.global_step
    asked = make_job("asked", channel=RecordingChannel(stop_after=last), **options)
    assert run_loop(asked) == "early_stopped"
    again = make_job("asked", **options)
    assert again.state.global_step == last
    assert run_loop(again) == "early_stopped"
    assert again.state == straight.state
    assert_same_bits(weights(straight), weights(again))


def test_retention_keeps_newest_and_best(make_job: JobMaker) -> None:
    job = make_job(max_steps=12, eval_every=2, save_every=2, keep_last_n=2, keep_best_k=1)
    run_loop(job)
    kept = job.saver.store.steps()
    assert kept[-2:] == [10, 12]
    assert len(kept) <= 3
    assert job.channel.stands, "Ray is told of committed checkpoints"  # type: ignore[attr-defined]


class CountingHook(Hook):
    def __init__(self) -> None:
        self.count = 0
        self.seen: list[str] = []

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        self.count += 1

    def on_evaluate(self, global_step: int, metrics: dict[str, float]) -> None:
        self.seen.append(f"evaluate {global_step}")

    def on_checkpoint(self, global_step: int) -> None:
        self.seen.append(f"checkpoint {global_step}")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_hooks_are_called_and_their_state_resumes(make_job: JobMaker) -> None:
    first = CountingHook()
    run_loop(make_job(hooks={"h": first}, channel=RecordingChannel(stop_after=3)))
    assert first.seen == ["checkpoint 2", "checkpoint 3"]
    second = CountingHook()
    run_loop(make_job(hooks={"h": second}))
    assert second.count == 6
    assert second.seen == ["checkpoint 4", "evaluate 6", "checkpoint 6"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dataset_digest": "sha256:other"}, "dataset digest"),
        ({"learning_rate": 3e-2}, "learning-rate schedule"),
        ({"max_steps": 9}, "learning-rate schedule"),
        ({"adapter": {"lora_rank": 8}}, "another adapter"),
    ],
)
def test_resume_guard_refuses(make_job: JobMaker, change: dict[str, Any], named: str) -> None:
    run_loop(make_job(channel=RecordingChannel(stop_after=3)))
    with pytest.raises(IntegrityError, match=named) as caught:
        make_job(**change)
    assert "--fresh" in caught.value.fix


def test_a_damaged_checkpoint_is_skipped_with_the_reason(make_job: JobMaker, tmp_path: Path) -> None:
    run_loop(make_job(channel=RecordingChannel(stop_after=5)))
    newest = tmp_path / "run" / "checkpoints" / "step-00000005"
    weights_file = newest / "trained" / "adapter_model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-10])
    channel = RecordingChannel()
    job = make_job(channel=channel)
    assert job.state.global_step == 4
    assert "step-00000005" in channel.of("note")[0]["text"]
    assert "bytes instead of" in channel.of("note")[0]["text"]


def test_the_mirror_restores_a_lost_run(make_job: JobMaker, tmp_path: Path) -> None:
    import shutil

    mirror = tmp_path / "drive"
    run_loop(make_job(mirror=mirror, channel=RecordingChannel(stop_after=4)))
    shutil.rmtree(tmp_path / "run")
    job = make_job(mirror=mirror)
    assert job.state.global_step == 4
    artifact = open_artifact(job.saver.store.mirror / "step-00000004")  # type: ignore[operator]
    assert artifact.kind == "checkpoint"


def test_fractional_epochs_and_short_last_batches(make_job: JobMaker) -> None:
    job = make_job(max_steps=None, num_epochs=1.5)
    assert job.max_steps == 3 + 2
    seen: list[int] = []
    original = job.planner.batch_at

    def watched(position: Any) -> Any:
        batch = original(position)
        seen.extend(batch.rows.tolist())
        return batch

    job.planner.batch_at = watched  # type: ignore[method-assign]
    run_loop(job)
    assert sorted(seen[:23]) == list(range(23)), "every row once in the first epoch"
    assert len(set(seen[23:])) == len(seen[23:])
