"""One contract over all strategies, and two real processes against one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_training import RecordingChannel, build_test_job

from raytrain.errors import DataError, PlatformError
from raytrain.models.adapter import trained_state
from raytrain.models.base import ResolvedModel
from raytrain.training.loop import run_loop
from raytrain.training.losses.base import Objective
from raytrain.training.setup import together
from raytrain.training.strategies.single import SingleProcess

WORLD_SIZE = 2


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class SumOfAnswers:
    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = model(**inputs).sum()
        return total


def check_contract(strategy: Any) -> None:
    """What every strategy promises, asked on every rank."""
    rank, world = strategy.world_rank, strategy.world_size
    assert strategy.sum_over_ranks([1.0, float(rank), 1e-17]) == [
        world, sum(range(world)), pytest.approx(world * 1e-17),
    ]  # fmt: skip
    gathered = strategy.gather_on_rank_zero({"rank": rank})
    assert gathered == ([{"rank": r} for r in range(world)] if rank == 0 else None)
    assert strategy.broadcast_from_rank_zero(f"from {rank}") == "from 0"

    # After accumulating, every rank's gradient is the mean over ranks of the sums over micro-batches.
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    optimizer = strategy.wrap(
        Objective(model, SumOfAnswers()), lambda one: torch.optim.AdamW(one.parameters(), lr=0.5)
    )
    for is_last in (False, True):
        with strategy.accumulating(is_last):
            loss = strategy.forward({"input": torch.tensor([[float(rank + 1)]])}, torch.zeros(1))
            strategy.backward(loss)
    expected = 2 * sum(range(1, world + 1)) / world
    parameters = list(model.parameters())
    assert strategy.gradient_norms(parameters).tolist() == [pytest.approx(expected)]
    strategy.scale_gradients(parameters, 0.5)
    assert strategy.gradient_norms(parameters).tolist() == [pytest.approx(expected / 2)]

    # A step, and everything out and back in as whole tensors.
    strategy.step(optimizer, torch.amp.GradScaler("cpu", enabled=False))
    named = dict(model.named_parameters())
    weights, entries = strategy.whole_tensors(named), strategy.optimizer_tensors(named, optimizer)
    assert bool(weights) == bool(entries) == (rank == 0)
    weights, entries = strategy.broadcast_from_rank_zero((weights, entries))
    assert weights["weight"].shape == (1, 1)
    assert float(weights["weight"]) == pytest.approx(
        1.0 - 0.5 - 0.5 * 0.01
    )  # Adam's first step is its learning rate
    assert set(entries) == {"weight/step", "weight/exp_avg", "weight/exp_avg_sq"}
    assert float(entries["weight/step"]) == 1.0
    strategy.load_tensors(named, {"weight": torch.tensor([[7.0]])})
    strategy.load_optimizer_tensors(named, optimizer, {**entries, "weight/exp_avg": torch.tensor([[3.0]])})
    again = strategy.broadcast_from_rank_zero(
        {**strategy.whole_tensors(named), **strategy.optimizer_tensors(named, optimizer)}
    )
    assert (float(again["weight"]), float(again["weight/exp_avg"])) == (7.0, 3.0)

    # A fault on the last rank alone is raised on all.
    def fail_on_last() -> str:
        if rank == world - 1:
            raise DataError("what", why="why", fix="fix")
        return "fine"

    with pytest.raises(DataError):
        together(strategy, fail_on_last)
    assert together(strategy, lambda: rank) == rank


def check_that_accumulating_exchanges_nothing(strategy: Any) -> None:
    """DDP hands every exchange to a hook; while accumulating there must be none, and the gradient stays this rank's."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    model = torch.nn.Linear(1, 1, bias=False)
    strategy.wrap(Objective(model, SumOfAnswers()), lambda one: torch.optim.SGD(one.parameters()))
    exchanged = []

    def counting(state, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are text
        exchanged.append(bucket.buffer().numel())
        return allreduce_hook(state, bucket)

    strategy._wrapped.register_comm_hook(None, counting)
    for i in range(3):
        with strategy.accumulating(is_last=i == 2):
            inputs = {"input": torch.tensor([[float(strategy.world_rank + 1)]])}
            strategy.backward(strategy.forward(inputs, torch.zeros(1)))
        if i < 2:
            assert exchanged == []
            assert float(model.weight.grad) == (i + 1) * (strategy.world_rank + 1)
    assert exchanged == [1]


def run_rank(rank: int, port: int, folder: str, base: ResolvedModel) -> None:
    import torch.distributed

    from raytrain.training.strategies.ddp import DistributedDataParallelStrategy

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD_SIZE
    )
    strategy = DistributedDataParallelStrategy(torch.device("cpu"))
    check_contract(strategy)
    check_that_accumulating_exchanges_nothing(strategy)

    # 23 rows in batches of 8: the last batch of each epoch deals 7 rows to 2 workers.
    channel = RecordingChannel()
    adapter = {"lora_rank": 4}
    job = build_test_job(
        base, Path(folder) / "two", strategy=DistributedDataParallelStrategy(torch.device("cpu")), channel=channel,
        adapter=adapter,
    )  # fmt: skip
    run_loop(job)
    if rank == 0:
        weights = {name: tensor.detach().clone() for name, tensor in trained_state(job.model).items()}
        torch.save({"losses": channel.losses(), "weights": weights}, Path(folder) / "two.pt")

    # A disk that fails on rank 0 ends both ranks with the same error.
    strategy = DistributedDataParallelStrategy(torch.device("cpu"))
    job = build_test_job(base, Path(folder) / "blocked", strategy=strategy, adapter=adapter)
    if rank == 0:
        shutil.rmtree(Path(folder) / "blocked")
        (Path(folder) / "blocked").write_text("a file where the checkpoints' folder should be")
    with pytest.raises(PlatformError) as caught:
        run_loop(job)
    (Path(folder) / f"error-{rank}.json").write_text(json.dumps(caught.value.as_dict()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # As Ray ends its workers: without the interpreter's teardown, in which gloo's threads now and then abort.
    os._exit(0)


def test_contract_of_single_process() -> None:
    check_contract(SingleProcess(torch.device("cpu")))


def test_two_workers_give_what_one_gives(base: ResolvedModel, tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    torch.multiprocessing.spawn(run_rank, (free_port(), str(tmp_path), base), nprocs=WORLD_SIZE)
    channel = RecordingChannel()
    one = build_test_job(base, tmp_path / "one", channel=channel, adapter={"lora_rank": 4})
    run_loop(one)
    two = torch.load(tmp_path / "two.pt")
    assert two["losses"] == {step: pytest.approx(loss, abs=1e-5) for step, loss in channel.losses().items()}
    for name, tensor in trained_state(one.model).items():
        torch.testing.assert_close(two["weights"][name], tensor, atol=1e-5, rtol=1e-4)
    errors = [json.loads((tmp_path / f"error-{rank}.json").read_text()) for rank in range(WORLD_SIZE)]
    assert errors[0] == errors[1]
    assert errors[0]["kind"] == "storage"
