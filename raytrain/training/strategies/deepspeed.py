"""DeepSpeed ZeRO: optimizer state (1), gradients (2) and weights (3) are cut over the ranks. Alone imports deepspeed.

raytrain keeps what all strategies do alike: the loss, its normalisation, accumulation, clipping, the schedule and
checkpoints. DeepSpeed keeps, exchanges and updates what it has cut.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed

from raytrain.errors import ConfigError, IntegrityError
from raytrain.training.section import DeepSpeedSection
from raytrain.training.strategies.base import OptimizerBuilder
from raytrain.training.strategies.copies import copy_to_cpu
from raytrain.training.strategies.deepspeed_config import build_config, zero_stage
from raytrain.training.strategies.process_group import ProcessGroup

_MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedStrategy(ProcessGroup):
    """DeepSpeed's engine around torch's own AdamW.

    ZeRO-2 and ZeRO-3 exchange the gradients of every micro-batch, as each rank keeps only its part of their sum;
    ZeRO-1 exchanges in the last one only. What a rank keeps is float32.
    """

    def __init__(self, device: torch.device, section: DeepSpeedSection, *, micro_batch_size: int) -> None:
        self._deepspeed = _import_deepspeed(device)
        super().__init__(device)
        self._stage = zero_stage(section)
        self.holds_whole_model = self._stage < 3
        self._config = build_config(section, micro_batch_size=micro_batch_size, is_cpu=device.type == "cpu")
        self._engine: Any = None
        self._inner: Any = None  # AdamW over this rank's parts
        self._has_unused_gradients = False

    def wrap(self, objective: torch.nn.Module, build_optimizer: OptimizerBuilder) -> torch.optim.Optimizer:
        self._inner = build_optimizer(objective)
        self._inner.zero_grad = _leave_gradients
        with _no_first_step(self._inner):
            try:
                self._engine, *_ = self._deepspeed.initialize(
                    model=_UnderAutocast(objective),
                    optimizer=self._inner,
                    config=self._config,
                    dist_init_required=False,
                )
            except (ValueError, AssertionError, NotImplementedError) as error:
                raise ConfigError(
                    "DeepSpeed refuses its configuration",
                    why=str(error).strip().replace("\n", "; ") or type(error).__name__,
                    fix="mend scaling.deepspeed, above all the file that scaling.deepspeed.config names",
                ) from error
        self._make_state()
        optimizer: torch.optim.Optimizer = self._inner
        return optimizer

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        kind = self.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # The engine switches autocast off, so it is switched on again inside, as under every strategy.
        with torch.autocast(kind, enabled=False):
            loss: torch.Tensor = self._engine(inputs, labels, dtype)
        return loss

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        if self._has_unused_gradients:
            # The loop made no step of gradients that are not finite. DeepSpeed's own step drops such ones, and
            # changes nothing else.
            self._engine.step()
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._has_unused_gradients = is_last
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self._engine.backward(loss)

    def gradient_norms(self, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        squares = torch.zeros(len(parameters), dtype=torch.float64, device=self.device)
        for i, gradient in self._held_gradients(parameters):
            squares[i] = gradient.norm().double().square()
        torch.distributed.all_reduce(squares)
        return squares.sqrt().float()

    def scale_gradients(self, parameters: Sequence[torch.nn.Parameter], factor: torch.Tensor) -> None:
        for i, gradient in self._held_gradients(parameters):
            if self._stage == 3:
                self._deepspeed.utils.safe_set_local_grad(
                    parameters[i], gradient * factor.to(gradient.device)
                )
            else:
                gradient.mul_(factor.to(gradient.device))  # offloaded ones lie on the CPU

    def _held_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> Iterator[tuple[int, torch.Tensor]]:
        """This rank's parts of the averaged gradients, by the parameter's place; available before the step only."""
        for i, parameter in enumerate(parameters):
            one: Any = parameter
            if self._stage == 3:
                yield i, self._deepspeed.utils.safe_get_local_grad(one)
            elif one._hp_mapping is not None:  # else the whole parameter is another rank's
                yield i, one._hp_mapping.get_lp_grad_fragment(one._index_in_param_group)

    def step(self, optimizer: torch.optim.Optimizer, is_bad: torch.Tensor) -> None:  # noqa: ARG002
        if not bool(is_bad):  # DeepSpeed's own step reads the device too
            self._engine.step()
            self._has_unused_gradients = False

    def whole_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        copied: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            with self._gathered(tensor):
                if self.world_rank == 0:
                    copied |= copy_to_cpu({name: tensor})
        return copied

    def load_tensors(self, live: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in live.items():
                with self._gathered(tensor, changed_by_rank=0):
                    if self.holds_whole_model or self.world_rank == 0:
                        tensor.copy_(saved[name])
                if _is_spread(tensor) and tensor.requires_grad:
                    part = self._own_part(tensor, saved[name])
                    self._deepspeed.utils.safe_set_local_fp32_param(tensor, part)
        if self.holds_whole_model:
            self._engine.optimizer.refresh_fp32_params()  # its own copies, which it steps

    def optimizer_tensors(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> dict[str, torch.Tensor]:
        step = next(iter(optimizer.state.values()))["step"]
        copied: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            for entry in _MOMENTS:
                whole = self._deepspeed.utils.safe_get_full_optimizer_state(parameter, entry)
                if self.world_rank == 0:
                    copied |= copy_to_cpu({f"{name}/{entry}": whole})
            if self.world_rank == 0:
                copied |= copy_to_cpu({f"{name}/step": step})
        return copied

    def load_optimizer_tensors(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        saved: Mapping[str, torch.Tensor],
    ) -> None:
        if not saved:
            return
        steps = set()
        for name, tensor in saved.items():
            parameter_name, _, entry = name.rpartition("/")
            parameter = parameters[parameter_name]
            if entry == "step":
                steps.add(float(tensor))
            elif self._stage == 3:
                part = self._own_part(parameter, tensor)
                self._deepspeed.utils.safe_set_local_optimizer_state(parameter, part, entry)
            else:
                whole = tensor.to(self.device)
                self._deepspeed.utils.safe_set_full_optimizer_state(parameter, whole, entry)
        if len(steps) > 1:
            raise IntegrityError(
                "DeepSpeed cannot take over this checkpoint's optimizer",
                why=f"it counts one number of steps for all parameters, the checkpoint has {sorted(steps)}",
                fix="resume with the scaling.strategy that wrote it",
            )
        for state in optimizer.state.values():
            state["step"].fill_(steps.copy().pop())

    def _make_state(self) -> None:
        """Left to AdamW's first step, the state is not there for a checkpoint to be put into; and ZeRO-1 and -2 link it
        once, when the first group has stepped and the second has none yet."""
        zero = self._engine.optimizer
        parts = (
            zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        )
        for part in parts:
            self._inner.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=part.device),
                **{entry: torch.zeros_like(part) for entry in _MOMENTS},
            }
        if self._stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def _gathered(
        self, tensor: torch.Tensor, changed_by_rank: int | None = None
    ) -> AbstractContextManager[None]:
        """*Collective.* Inside, a parameter that is spread is whole; `changed_by_rank` tells it to the others after."""
        if not _is_spread(tensor):
            return nullcontext()
        gathered: AbstractContextManager[None] = self._deepspeed.zero.GatheredParameters(
            [tensor], modifier_rank=changed_by_rank
        )
        return gathered

    def _own_part(self, parameter: Any, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of `whole` as ZeRO-3 cuts it: equal parts of the flat tensor, the last one padded."""
        size = parameter.ds_tensor.numel()
        padded = torch.zeros(size * self.world_size, dtype=whole.dtype)
        padded[: whole.numel()] = whole.flatten()
        return padded[self.world_rank * size : (self.world_rank + 1) * size].to(self.device)


class _UnderAutocast(torch.nn.Module):
    """The objective, in the arithmetic that the caller had."""

    def __init__(self, objective: torch.nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(
        self, inputs: dict[str, Any], labels: torch.Tensor, dtype: torch.dtype | None
    ) -> torch.Tensor:
        with torch.autocast(labels.device.type, dtype=dtype, enabled=dtype is not None):
            loss: torch.Tensor = self.objective(inputs, labels)
        return loss


def _is_spread(tensor: Any) -> bool:
    """Whether ZeRO-3 has cut this parameter."""
    return hasattr(tensor, "ds_id")


def _leave_gradients(set_to_none: bool = True) -> None:
    """DeepSpeed clears its gradients in its own step, and keeps their buffers, which AdamW would throw away."""


@contextmanager
def _no_first_step(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Some releases step once with gradients of zero while they start; it must neither decay a weight nor count."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    yield
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():
        state["step"].zero_()


def _import_deepspeed(device: torch.device) -> Any:
    """The package, set up for `device`. Raises ConfigError where it is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "strategy deepspeed is not installed",
            why="scaling.strategy is deepspeed, and the package deepspeed is missing",
            fix="pip install 'raytrain[deepspeed]'",
        )
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", "0")
    import deepspeed
    import deepspeed.ops
    import deepspeed.utils

    # Built with a compiler at the first start (over a minute), and used by DeepSpeed's inference alone.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # It uses collectives by names that torch has deprecated, and says so at each call.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    return deepspeed
