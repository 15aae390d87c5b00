"""Compiled feed-forward layers: the same training, resumable bit for bit, and clear where they cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_training import RecordingChannel, build_test_job
from strategy_contract import new_strategy, spawn
from strategy_runs import train
from tiny_task_models import save_tiny_bert
from transformers import AutoModelForMaskedLM

from raytrain.errors import ConfigError
from raytrain.models.adapter import trained_state
from raytrain.models.base import ResolvedModel
from raytrain.training.compiling import compile_feed_forward
from raytrain.training.loop import run_loop
from raytrain.training.strategies.single import SingleProcess

pytestmark = pytest.mark.slow
OPTIONS: dict[str, Any] = {"adapter": {"lora_rank": 4, "lora_dropout": 0.2}, "eval_every": 3}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty at first; a later test finds what an earlier one compiled, as a later run on the same machine does."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def compiled_anew(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kernels))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.thorough
def test_it_trains_as_without(base: ResolvedModel, tmp_path: Path, precision: str) -> None:
    options = {**OPTIONS, "adapter": {"lora_rank": 4}}  # compiled dropout draws other numbers
    found = [
        train(
            base,
            tmp_path / str(on),
            SingleProcess(torch.device("cpu")),
            compile=on,
            precision=precision,
            **options,
        )
        for on in (False, True)
    ]
    tolerance = 1e-5 if precision == "float32" else 2e-2
    for step, loss in found[0]["losses"].items():
        assert found[1]["losses"][step] == pytest.approx(loss, abs=tolerance)
    assert found[1]["evaluations"] == pytest.approx(found[0]["evaluations"], abs=tolerance)


def run_rank(rank: int, folder: str, base: ResolvedModel) -> None:
    options = {**OPTIONS, "adapter": {"lora_rank": 4}}
    result = train(base, Path(folder), new_strategy("ddp"), compile=True, **options)
    if rank == 0:
        torch.save(result["losses"], Path(folder) / "losses.pt")


@pytest.mark.thorough
def test_two_workers_train_as_one_without(base: ResolvedModel, tmp_path: Path) -> None:
    options = {**OPTIONS, "adapter": {"lora_rank": 4}}
    one = train(base, tmp_path / "one", SingleProcess(torch.device("cpu")), **options)
    (tmp_path / "two").mkdir()
    spawn(run_rank, str(tmp_path / "two"), base)
    assert torch.load(tmp_path / "two" / "losses.pt") == pytest.approx(one["losses"], abs=1e-5)


@pytest.mark.thorough
def test_it_resumes_bit_for_bit(base: ResolvedModel, tmp_path: Path) -> None:
    """Each leg compiles anew, and begins with micro-batches of another length than the straight run did."""

    def leg(folder: str, stop_after: int | None) -> dict[str, torch.Tensor]:
        torch._dynamo.reset()
        channel = RecordingChannel(stop_after=stop_after)
        job = build_test_job(base, tmp_path / folder, channel=channel, compile=True, **OPTIONS)
        run_loop(job)
        return {name: tensor.detach().clone() for name, tensor in trained_state(job.model).items()}

    straight = leg("straight", None)
    for stop_after in (1, 3, None):
        resumed = leg("legs", stop_after)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []


def test_a_model_without_such_layers_is_refused(tmp_path: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(save_tiny_bert(tmp_path / "bert"))
    with pytest.raises(ConfigError, match="nothing to compile") as caught:
        compile_feed_forward(model)
    assert "BertForMaskedLM" in caught.value.why


def test_a_machine_without_a_compiler_is_told(
    base: ResolvedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "new machine"))
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match="cannot be had here") as caught:
        build_test_job(base, tmp_path / "run", compile=True)
    assert "g++" in caught.value.fix
