"""One contract over all strategies, and two real processes against one. DeepSpeed's are in tests/integration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_training import build_test_job
from strategy_contract import OneBlock, SumOfAnswers, check_contract, new_strategy, spawn
from strategy_runs import (
    VARIANTS,
    assert_bit_equal,
    assert_like_one_process,
    resume_twice,
    run_suite,
    train_in_one_process,
)

from raytrain.data.collators import IGNORED_LABEL
from raytrain.errors import ConfigError, PlatformError
from raytrain.models.base import ResolvedModel, load_base_model
from raytrain.models.section import ModelSection
from raytrain.training.loop import run_loop
from raytrain.training.losses.base import Objective
from raytrain.training.losses.causal_lm import CausalLMLoss
from raytrain.training.section import ScalingSection
from raytrain.training.strategies.base import Strategy
from raytrain.training.strategies.build import choose_strategy
from raytrain.training.strategies.ddp import DistributedDataParallelStrategy
from raytrain.training.strategies.fsdp import find_blocks

NAMES = ["ddp", "fsdp"]


def test_contract_of_single_process() -> None:
    check_contract(new_strategy("single"))


def check_that_ddp_exchanges_nothing_while_accumulating() -> None:
    """DDP hands every exchange to a hook; while accumulating there must be none, and the gradient stays this rank's."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    strategy = DistributedDataParallelStrategy(torch.device("cpu"))
    model = torch.nn.Linear(1, 1, bias=False)
    strategy.wrap(Objective(model, SumOfAnswers()), lambda one: torch.optim.SGD(one.parameters()))
    exchanged = []

    def counting(state, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are text
        exchanged.append(bucket.buffer().numel())
        return allreduce_hook(state, bucket)

    strategy._wrapped.register_comm_hook(None, counting)
    for i in range(3):
        accumulate_one(strategy, is_last=i == 2)
        if i < 2:
            assert exchanged == []
            assert float(model.weight.grad) == (i + 1) * (strategy.world_rank + 1)
    assert exchanged == [1]


def check_that_fsdp_exchanges_nothing_while_accumulating() -> None:
    """FSDP2 sends gradients through a reduce-scatter that can be replaced by one that counts."""
    from torch.distributed.fsdp import FSDPModule

    strategy = new_strategy("fsdp")
    model = OneBlock()
    strategy.wrap(Objective(model, SumOfAnswers()), lambda one: torch.optim.SGD(one.parameters()))
    exchanged = []
    block: Any = model.layers[0]
    assert isinstance(block, FSDPModule)
    (group,) = block._get_fsdp_state()._fsdp_param_groups
    block.set_custom_reduce_scatter(Counting(group._reduce_scatter_comm, exchanged))
    for i in range(3):
        accumulate_one(strategy, is_last=i == 2)
        assert len(exchanged) == (i == 2)


class Counting:
    """A reduce-scatter that is told of."""

    def __init__(self, inner: Any, calls: list[int]) -> None:
        self._inner, self._calls = inner, calls

    def allocate(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return self._inner.allocate(*arguments, **options)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._calls.append(1)
        return self._inner(*arguments, **options)


def accumulate_one(strategy: Strategy, is_last: bool) -> None:
    with strategy.accumulating(is_last=is_last):
        inputs = {"input": torch.tensor([[float(strategy.world_rank + 1)]])}
        strategy.backward(strategy.forward(inputs, torch.zeros(1)))


def run_rank(rank: int, folder: str, base: ResolvedModel) -> None:
    check_that_ddp_exchanges_nothing_while_accumulating()
    check_that_fsdp_exchanges_nothing_while_accumulating()
    run_suite(rank, NAMES, folder, base)

    # A disk that fails on rank 0 ends both ranks with the same error.
    place = Path(folder) / "blocked"
    job = build_test_job(base, place, strategy=new_strategy("ddp"), adapter={"lora_rank": 4})
    if rank == 0:
        shutil.rmtree(place)
        place.write_text("a file where the checkpoints' folder should be")
    with pytest.raises(PlatformError) as caught:
        run_loop(job)
    (Path(folder) / f"error-{rank}.json").write_text(json.dumps(caught.value.as_dict()))


@pytest.fixture(scope="module")
def two(base: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers have trained everything, under each strategy."""
    folder = tmp_path_factory.mktemp("two")
    spawn(run_rank, str(folder), base)
    return folder


@pytest.fixture(scope="module")
def one(base: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process makes of every variant."""
    return train_in_one_process(base, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_two_workers_give_what_one_gives(
    two: Path, one: dict[str, dict[str, Any]], name: str, variant: str
) -> None:
    assert_like_one_process(torch.load(two / f"{name}.pt")[variant], one[variant], variant)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_resumed_means_identical_on_two_workers(two: Path, name: str) -> None:
    found = torch.load(two / f"{name}.pt")
    assert_bit_equal(found["legs"], found["straight"])


@pytest.mark.slow
def test_a_failing_disk_ends_both_workers_alike(two: Path) -> None:
    errors = [json.loads((two / f"error-{rank}.json").read_text()) for rank in range(2)]
    assert errors[0] == errors[1]
    assert errors[0]["kind"] == "storage"


@pytest.mark.parametrize(
    ("strategy", "world_size", "chosen"),
    [
        ("auto", 1, "single"),
        ("auto", 2, "ddp"),
        ("ddp", 1, "ddp"),
        ("fsdp", 2, "fsdp"),
        ("deepspeed", 1, "deepspeed"),
    ],
)
def test_what_auto_means(strategy: Any, world_size: int, chosen: str) -> None:
    assert choose_strategy(ScalingSection(strategy=strategy), world_size) == chosen


def test_single_cannot_hold_two_workers() -> None:
    with pytest.raises(ConfigError, match="single cannot hold 2 workers"):
        choose_strategy(ScalingSection(strategy="single"), 2)


class Stacks(torch.nn.Module):
    """A small list of experts inside each layer, and a second list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.ModuleList([Layer() for _ in range(2)])
        self.decoder = torch.nn.ModuleList([Layer() for _ in range(3)])
        self.heads = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(9)])


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(16)])


def test_the_layers_that_fsdp_cuts_are_found() -> None:
    model = Stacks()
    assert find_blocks(model) == [*model.encoder, *model.decoder]


def test_a_model_without_layers_cannot_be_cut() -> None:
    with pytest.raises(ConfigError, match="wrappable layer") as caught:
        find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ModuleList([])))
    assert "scaling.strategy" in caught.value.fix


def resume_three(rank: int, folder: str, base: ResolvedModel) -> None:
    for name in NAMES:
        legs, straight = resume_twice(base, Path(folder) / name, name)
        if rank == 0:
            torch.save((legs, straight), Path(folder) / f"{name}.pt")


@pytest.mark.thorough
@pytest.mark.slow
def test_resumed_means_identical_on_three_workers(base: ResolvedModel, tmp_path: Path) -> None:
    """From three on, the order in which ranks are added up shows in the last bit."""
    spawn(resume_three, str(tmp_path), base, world_size=3)
    for name in NAMES:
        assert_bit_equal(*torch.load(tmp_path / f"{name}.pt"))


@pytest.mark.parametrize("has_targets", [True, False])
def test_logits_at_kept_positions_give_the_loss_of_all(base: ResolvedModel, has_targets: bool) -> None:
    model = load_base_model(base, ModelSection(base_model=base.reference))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (3, 11), generator=generator)
    labels = ids.clone()
    labels[:, : 5 if has_targets else 11] = IGNORED_LABEL
    found = {}
    for path in ("kept", "whole"):
        model.zero_grad()
        loss = CausalLMLoss(path)(model, {"input_ids": ids}, labels)  # type: ignore[arg-type]
        loss.backward()
        found[path] = [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]
    assert (float(found["whole"][0]) > 0) == has_targets
    for one, other in zip(found["kept"], found["whole"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
