"""The loop that a user would write by hand, interleaved step by step with raytrain's own.

As a hook it takes its turn after each of raytrain's steps, on the same batch, in the same process, with the same
threads: what slows the machine down slows both. As a program it runs alone, for its peak memory.

    python -m benchmarks.bare_loop RECIPE STEPS [key=value …]
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from raytrain.data.batches import BatchPlanner, Position, deal_padded
from raytrain.data.collators import PaddedCollator
from raytrain.data.prepare import prepare_dataset
from raytrain.data.tokens import load_tokens, prepare_tokens
from raytrain.models.adapter import attach_adapter
from raytrain.models.base import load_base_model, load_tokenizer, resolve_base_model
from raytrain.training.gradients import GradientCheck
from raytrain.training.hooks import Hook
from raytrain.training.spec import RunSpec, load_spec
from raytrain.training.strategies.single import SingleProcess

ENVIRONMENT = "RAYTRAIN_BENCHMARK"
"""Names a JSON file with `recipe`, `overrides` and `output`, for the hook."""


@dataclass(frozen=True)
class BareStep:
    """What a step came to; `seconds` are without those of planning and collating its batch."""

    loss: float
    seconds: float
    batching_seconds: float
    num_tokens: int


class BareLoop:
    """Forward, backward, clip, step; no logs, no checks, no checkpoints."""

    def __init__(self, spec: RunSpec, rank: int, world_size: int) -> None:
        storage = spec.storage.location
        base = resolve_base_model(spec.model, storage)
        tokenizer = load_tokenizer(base, spec.model)
        tokens = prepare_tokens(prepare_dataset(spec.data, storage), tokenizer, spec.data, storage)
        model = load_base_model(base, spec.model, device="cpu", adapter=spec.adapter)
        adapted = attach_adapter(model, spec.adapter, base=base, seed=spec.train.seed)
        self.rank = rank
        self.world_size = world_size
        self.model: Any = DistributedDataParallel(adapted) if world_size > 1 else adapted
        self.parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=spec.train.learning_rate, fused=True)
        self.bfloat16 = spec.train.precision == "bfloat16"
        self.collate = PaddedCollator(tokenizer.pad_token_id)
        self.table = load_tokens(tokens, "train")
        self.planner = BatchPlanner(
            self.table,
            seed=spec.train.seed,
            global_batch_size=spec.train.global_batch_size,
            world_size=world_size,
            deal=partial(deal_padded, micro_batch_size=spec.train.micro_batch_size),
        )
        self.position = Position()

    def step(self) -> BareStep:
        """One optimizer step. The batch is raytrain's, so that its making is timed apart."""
        began = time.perf_counter()
        batch = self.planner.batch_at(self.position)
        self.position = batch.after
        micros = [self.collate(self.table, slots[self.rank]) for slots in batch.slots]
        started = time.perf_counter()
        total = 0.0
        for i, micro in enumerate(micros):
            if self.world_size > 1:
                self.model.require_backward_grad_sync = i == len(micros) - 1
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                inputs = {name: torch.from_numpy(value) for name, value in micro.inputs.items()}
                logits = self.model(**inputs).logits
            labels = torch.from_numpy(micro.labels)
            loss = functional.cross_entropy(
                logits[:, :-1].reshape(-1, logits.size(-1)).float(),
                labels[:, 1:].reshape(-1),
                reduction="sum",
            )
            (loss * self.world_size / batch.loss_weight).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return BareStep(
            loss=total / batch.loss_weight,
            seconds=time.perf_counter() - started,
            batching_seconds=started - began,
            num_tokens=batch.num_tokens,
        )

    def check_seconds(self) -> float:
        """Median time of raytrain's gradient check, clipping included, over gradients of these shapes."""
        check = GradientCheck(
            [(str(i), parameter) for i, parameter in enumerate(self.parameters)],
            1.0,
            SingleProcess(torch.device("cpu")),
        )
        for parameter in self.parameters:
            parameter.grad = torch.randn_like(parameter)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            norms = check.measure_and_clip()
            check.judge(float(norms.total), norms.of_each.tolist())
            times.append(time.perf_counter() - started)
        self.optimizer.zero_grad(set_to_none=True)
        return statistics.median(times)


class InterleavedHook(Hook):
    """Times raytrain's step since its own last turn, then takes a bare step on the same batch."""

    def __init__(self) -> None:
        self.settings = json.loads(Path(os.environ[ENVIRONMENT]).read_text())
        spec = load_spec(Path(self.settings["recipe"]), self.settings["overrides"])
        distributed = torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if distributed else 0
        self.bare = BareLoop(spec, self.rank, torch.distributed.get_world_size() if distributed else 1)
        self.rows: list[dict[str, float]] = []
        self.turn_ended = 0.0
        self.check_s = 0.0

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        ours = time.perf_counter() - self.turn_ended
        bare = self.bare.step()
        if global_step > 1:
            self.rows.append(
                {
                    "ours_s": ours,
                    "bare_s": bare.seconds,
                    "batching_s": bare.batching_seconds,
                    "tokens": bare.num_tokens,
                    "loss": metrics["train/loss"],
                    "bare_loss": bare.loss,
                }
            )
        if self.rank == 0:
            if global_step == 2:
                self.check_s = self.bare.check_seconds()
            measured = {"steps": self.rows, "check_s": self.check_s}
            Path(self.settings["output"]).write_text(json.dumps(measured))
        self.turn_ended = time.perf_counter()


def main(recipe: str, num_steps: str, *overrides: str) -> None:
    """Run the bare loop alone and print its peak memory in bytes."""
    spec = load_spec(Path(recipe), list(overrides))
    torch.set_num_threads(spec.scaling.threads)
    bare = BareLoop(spec, 0, 1)
    for _ in range(int(num_steps)):
        bare.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
