"""What every strategy promises, asked of real processes that talk over gloo."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed

from raytrain.errors import DataError
from raytrain.training.losses.base import Objective
from raytrain.training.section import ScalingSection, TrainSection
from raytrain.training.setup import together
from raytrain.training.strategies.base import Strategy
from raytrain.training.strategies.build import build_strategy

# Every parameter is spread, as large ones are by default; without it ZeRO-3 keeps small ones whole.
_SPREAD_ALL = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}

SCALINGS: dict[str, dict[str, Any]] = {
    "single": {"strategy": "single"},
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero1": {"strategy": "deepspeed", "deepspeed": {"zero_stage": 1}},
    "zero2": {"strategy": "deepspeed", "deepspeed": {"zero_stage": 2}},
    "zero3": {"strategy": "deepspeed", "deepspeed": {"config": _SPREAD_ALL}},
    "zero2-offload": {"strategy": "deepspeed", "deepspeed": {"zero_stage": 2, "offload_optimizer": True}},
    "zero3-offload": {
        "strategy": "deepspeed", "deepspeed": {"config": _SPREAD_ALL, "offload_optimizer": True},
    },
}  # fmt: skip
"""Every strategy by a short name, as a recipe's `scaling:` says it."""


def new_strategy(name: str) -> Strategy:
    """*Collective*, but for `single`. A strategy of the process group that stands; each may wrap one model."""
    is_alone = name == "single" or not torch.distributed.is_initialized()
    world_size = 1 if is_alone else torch.distributed.get_world_size()
    scaling = ScalingSection(num_workers=world_size, **SCALINGS[name])
    return build_strategy(scaling, TrainSection(), world_size=world_size, device=torch.device("cpu"))


def spawn(function: Callable[..., None], *arguments: Any, world_size: int = 2) -> None:
    """Run `function(rank, *arguments)` in so many processes that are joined over gloo."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    torch.multiprocessing.spawn(_joined, (world_size, port, function, arguments), nprocs=world_size)


def _joined(
    rank: int, world_size: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    # As Ray Train sets them; DeepSpeed reads them.
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    function(rank, *arguments)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # As Ray ends its workers: without the interpreter's teardown, in which gloo's threads now and then abort.
    os._exit(0)


class SumOfAnswers:
    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = model(**inputs).sum()
        return total


class OneBlock(torch.nn.Module):
    """One weight, 1.0, in a list of layers, and a frozen one beside it that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(1, 1, bias=False)])
        self.frozen = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
        for parameter in self.parameters():
            torch.nn.init.constant_(parameter, 1.0)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.frozen(self.layers[0](input))
        return answer


WEIGHT = "layers.0.weight"


def check_contract(strategy: Strategy) -> None:
    """What every strategy promises, asked on every rank."""
    rank, world = strategy.world_rank, strategy.world_size
    assert strategy.sum_over_ranks([1.0, float(rank), 1e-17]) == [
        world, sum(range(world)), pytest.approx(world * 1e-17),
    ]  # fmt: skip
    gathered = strategy.gather_on_rank_zero({"rank": rank})
    assert gathered == ([{"rank": r} for r in range(world)] if rank == 0 else None)
    assert strategy.broadcast_from_rank_zero(f"from {rank}") == "from 0"
    model = OneBlock()
    optimizer = strategy.wrap(
        Objective(model, SumOfAnswers()),
        lambda one: torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=0.5, fused=True),
    )
    _check_gradients(strategy, model)
    _check_step_and_state(strategy, model, optimizer)
    _check_that_bad_gradients_leave_nothing(strategy, model, optimizer)

    # A fault on the last rank alone is raised on all.
    def fail_on_last() -> str:
        if rank == world - 1:
            raise DataError("what", why="why", fix="fix")
        return "fine"

    with pytest.raises(DataError):
        together(strategy, fail_on_last)
    assert together(strategy, lambda: rank) == rank


def _run_two_micro_batches(strategy: Strategy, value: float) -> None:
    for is_last in (False, True):
        with strategy.accumulating(is_last):
            loss = strategy.forward({"input": torch.tensor([[value]])}, torch.zeros(1))
            strategy.backward(loss)


def _check_gradients(strategy: Strategy, model: torch.nn.Module) -> None:
    """After accumulating, every rank's gradient is the mean over ranks of the sums over micro-batches."""
    _run_two_micro_batches(strategy, strategy.world_rank + 1.0)
    expected = 2 * sum(range(1, strategy.world_size + 1)) / strategy.world_size
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert strategy.gradient_norms(parameters).tolist() == [pytest.approx(expected)]
    strategy.scale_gradients(parameters, torch.tensor(0.5))
    assert strategy.gradient_norms(parameters).tolist() == [pytest.approx(expected / 2)]


def _check_step_and_state(
    strategy: Strategy, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """A step, and everything out and back in as whole tensors."""
    strategy.step(optimizer, torch.tensor(0.0))
    optimizer.zero_grad(set_to_none=True)
    named = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    weights, entries = strategy.whole_tensors(named), strategy.optimizer_tensors(trained, optimizer)
    assert bool(weights) == bool(entries) == (strategy.world_rank == 0)
    weights, entries = strategy.broadcast_from_rank_zero((weights, entries))
    assert weights[WEIGHT].shape == (1, 1)
    assert float(weights["frozen.weight"]) == 1.0
    # Adam's first step is its learning rate, and AdamW takes a share of the weight besides.
    assert float(weights[WEIGHT]) == pytest.approx(1.0 - 0.5 - 0.5 * 0.01)
    assert set(entries) == {f"{WEIGHT}/{entry}" for entry in ("step", "exp_avg", "exp_avg_sq")}
    assert float(entries[f"{WEIGHT}/step"]) == 1.0
    strategy.load_tensors({WEIGHT: named[WEIGHT]}, {WEIGHT: torch.tensor([[7.0]])})
    changed = {f"{WEIGHT}/exp_avg": torch.tensor([[3.0]]), f"{WEIGHT}/step": torch.tensor(41.0)}
    strategy.load_optimizer_tensors(trained, optimizer, {**entries, **changed})
    again = strategy.broadcast_from_rank_zero(
        {**strategy.whole_tensors(named), **strategy.optimizer_tensors(trained, optimizer)}
    )
    assert [float(again[key]) for key in (WEIGHT, f"{WEIGHT}/exp_avg", f"{WEIGHT}/step")] == [7.0, 3.0, 41.0]
    # What was put back is what the next forward pass uses.
    with torch.no_grad():
        assert float(strategy.forward({"input": torch.tensor([[2.0]])}, torch.zeros(1))) == 14.0


def _check_that_bad_gradients_leave_nothing(
    strategy: Strategy, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """A step of gradients that are not finite changes neither weights nor optimizer; the next begins from nothing."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _run_two_micro_batches(strategy, float("nan"))
    assert not strategy.gradient_norms(parameters).isfinite().any()
    trained = {WEIGHT: dict(model.named_parameters())[WEIGHT]}
    before = {**strategy.whole_tensors(trained), **strategy.optimizer_tensors(trained, optimizer)}
    strategy.step(optimizer, torch.tensor(1.0))
    after = {**strategy.whole_tensors(trained), **strategy.optimizer_tensors(trained, optimizer)}
    assert {name: tensor.tolist() for name, tensor in after.items()} == {
        name: tensor.tolist() for name, tensor in before.items()
    }
    optimizer.zero_grad(set_to_none=True)
    _run_two_micro_batches(strategy, 3.0)
    assert strategy.gradient_norms(parameters).tolist() == [pytest.approx(6.0)]
    entries = strategy.broadcast_from_rank_zero(
        strategy.optimizer_tensors({WEIGHT: dict(model.named_parameters())[WEIGHT]}, optimizer)
    )
    assert float(entries[f"{WEIGHT}/step"]) == 41.0
