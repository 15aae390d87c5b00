"""Fully sharded data parallel (FSDP2): weights, gradients and optimizer state are cut over the ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from raytrain.errors import ConfigError
from raytrain.training.strategies.base import OptimizerBuilder
from raytrain.training.strategies.copies import copy_to_cpu
from raytrain.training.strategies.process_group import ProcessGroup
from raytrain.training.strategies.torch_steps import TorchSteps, norms_of, scale


class FullyShardedStrategy(ProcessGroup, TorchSteps):
    """torch's `fully_shard`: every parameter is a DTensor, cut along its first dimension.

    The weights of a block are whole on a rank only while that block is computed.
    """

    holds_whole_model = False

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._mesh = init_device_mesh(device.type, (self.world_size,))
        self._root: FSDPModule | None = None

    def wrap(self, objective: torch.nn.Module, build_optimizer: OptimizerBuilder) -> torch.optim.Optimizer:
        for block in find_blocks(objective.get_submodule("model")):
            fully_shard(block, mesh=self._mesh)
        self._root = fully_shard(objective, mesh=self._mesh)
        for module in objective.modules():
            if isinstance(module, FSDPModule) and self.device.type == "cpu":
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no mean
        return build_optimizer(objective)

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        root: Any = self._root
        assert root is not None, "wrap comes before forward"
        loss: torch.Tensor = root(inputs, labels)
        if not torch.is_grad_enabled():
            # The root keeps its weights whole for a backward pass; after an evaluation none comes to cut them again.
            root.reshard()
        return loss

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        assert self._root is not None, "wrap comes before accumulating"
        self._root.set_requires_gradient_sync(is_last)
        return nullcontext()

    def gradient_norms(self, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        gradients = [None if one.grad is None else _local(one.grad) for one in parameters]
        squares = norms_of(gradients, self.device).double().square()
        torch.distributed.all_reduce(squares)
        return squares.sqrt().float()

    def scale_gradients(self, parameters: Sequence[torch.nn.Parameter], factor: torch.Tensor) -> None:
        scale([None if one.grad is None else _local(one.grad) for one in parameters], factor)

    def whole_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        copied: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            whole: Any = tensor.detach()
            if isinstance(whole, DTensor):
                whole = whole.full_tensor()
            if self.world_rank == 0:
                copied |= copy_to_cpu({name: whole})
        return copied

    def load_tensors(self, live: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in live.items():
                _local(tensor).copy_(_local(self._cut_like(tensor, saved[name])))

    def load_optimizer_tensors(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        saved: Mapping[str, torch.Tensor],
    ) -> None:
        for name, tensor in saved.items():
            parameter_name, _, entry = name.rpartition("/")
            parameter = parameters[parameter_name]
            # The step count is whole on every rank, beside the parameter as fused AdamW wants it.
            value = tensor.to(parameter.device) if tensor.ndim == 0 else self._cut_like(parameter, tensor)
            optimizer.state[parameter][entry] = value

    def _cut_like(self, live: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of `whole`, which all ranks hold, so that nothing is sent."""
        if not isinstance(live, DTensor):
            return whole
        return distribute_tensor(whole.to(live.device), live.device_mesh, live.placements, src_data_rank=None)


def _local(tensor: Any) -> torch.Tensor:
    """The part of a tensor that lies on this rank; writing to it writes to the tensor."""
    part: torch.Tensor = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
    return part


def find_blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated layers of a model: the largest list of modules of one class, and those of the same class elsewhere.

    Raises ConfigError where there is none.
    """
    lists = list(_outermost_lists(model))
    if not lists:
        raise ConfigError(
            "FSDP needs a wrappable layer, and this model has none",
            why=f"no torch.nn.ModuleList in {type(model).__name__} holds layers of one class",
            fix="set scaling.strategy to ddp, or to deepspeed, which needs no such list",
        )
    largest = max(lists, key=lambda one: sum(parameter.numel() for parameter in one.parameters()))
    return [block for one in lists if type(one[0]) is type(largest[0]) for block in one]


def _outermost_lists(module: torch.nn.Module) -> Iterator[torch.nn.ModuleList]:
    """Lists whose modules are of one class and have parameters, not inside another such list."""
    for child in module.children():
        is_list = isinstance(child, torch.nn.ModuleList) and len({type(one) for one in child}) == 1
        if is_list and next(child.parameters(), None) is not None:
            yield child  # type: ignore[misc]
        else:
            yield from _outermost_lists(child)
