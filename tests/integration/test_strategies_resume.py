"""DeepSpeed under the contract of all strategies, and checkpoints that outlive strategy and number of workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import Bench, assert_every_row_once_per_epoch, run_id_of
from conftest import Straight
from conftest_training import base
from strategy_contract import check_contract, new_strategy, spawn
from strategy_runs import (
    VARIANTS,
    WALKED,
    assert_bit_equal,
    assert_like_one_process,
    every_pair,
    run_suite,
    train,
    train_in_one_process,
    walk,
)

from raytrain.errors import ConfigError
from raytrain.models.base import ResolvedModel
from raytrain.training.section import ScalingSection, TrainSection
from raytrain.training.strategies.build import build_strategy
from raytrain.training.strategies.deepspeed_config import ZERO_KEYS

__all__ = ["base"]  # a fixture

pytestmark = pytest.mark.timeout(1200)

STAGES = ["zero1", "zero2", "zero3"]
OFFLOADED = ["zero2-offload", "zero3-offload"]


def run_deepspeed(rank: int, folder: str, base: ResolvedModel) -> None:
    run_suite(rank, STAGES, folder, base)
    for name in OFFLOADED:
        check_contract(new_strategy(name))
        result = train(base, Path(folder) / name, new_strategy(name), **VARIANTS["lora"])
        if rank == 0:
            torch.save({"lora": result}, Path(folder) / f"{name}.pt")


@pytest.fixture(scope="module")
def two(base: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers have trained everything, under each stage."""
    folder = tmp_path_factory.mktemp("two")
    spawn(run_deepspeed, str(folder), base)
    return folder


@pytest.fixture(scope="module")
def one(base: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What torch's AdamW in one process makes of every variant."""
    return train_in_one_process(base, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize(
    ("name", "variant"),
    [*((name, variant) for name in STAGES for variant in VARIANTS), *((name, "lora") for name in OFFLOADED)],
)
def test_deepspeed_gives_what_one_process_gives(
    two: Path, one: dict[str, dict[str, Any]], name: str, variant: str
) -> None:
    assert_like_one_process(torch.load(two / f"{name}.pt")[variant], one[variant], variant)


@pytest.mark.parametrize("name", STAGES)
def test_resumed_means_identical_under_deepspeed(two: Path, name: str) -> None:
    found = torch.load(two / f"{name}.pt")
    assert_bit_equal(found["legs"], found["straight"])


def legs_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "walk.jsonl").read_text().splitlines()]


def assert_goes_on(legs: list[dict[str, Any]], names: list[str], straight: dict[str, Any]) -> None:
    """Each leg is the next step of the straight run, and every row of an epoch is seen once."""
    assert [leg["name"] for leg in legs] == names
    assert [leg["step"] for leg in legs] == list(range(1, len(names) + 1))
    away = {
        f"step {leg['step']}, {legs[i - 1]['name']} to {leg['name']}": leg["loss"] - straight["losses"][leg["step"]]
        for i, leg in enumerate(legs)
    }  # fmt: skip
    assert {place: value for place, value in away.items() if not abs(value) <= 1e-4} == {}
    for start in range(0, len(legs) - 4, 5):
        rows = sorted(row for leg in legs[start : start + 5] for row in leg["rows"])
        assert rows == list(range(40)), f"the epoch of step {start + 1}"


def test_a_run_goes_on_under_every_other_strategy(base: ResolvedModel, tmp_path: Path) -> None:
    """All ordered pairs of strategies, `single` on one worker and the others on two, in one run."""
    names = every_pair(["single", "ddp", "fsdp", *STAGES])
    assert len(set(pairwise(names))) == 30
    straight = train(
        base, tmp_path / "straight", new_strategy("single"), max_steps=len(names), **WALKED["lora"]
    )
    spawn(walk, names, str(tmp_path), base, len(names), "lora")
    assert_goes_on(legs_of(tmp_path), names, straight)


@pytest.mark.thorough
def test_a_full_run_goes_on_on_one_worker_and_back(base: ResolvedModel, tmp_path: Path) -> None:
    """Every weight trained: sharded on two workers, on one, and on two again, offloaded and not."""
    parts = [
        (2, ["zero3", "fsdp", "zero1", "ddp", "zero2-offload"]),
        (1, ["zero3-offload", "fsdp", "zero2", "zero3", "ddp"]),
        (2, ["zero1", "zero3-offload", "zero2", "fsdp", "ddp"]),
    ]
    names = [name for _, part in parts for name in part]
    straight = train(
        base, tmp_path / "straight", new_strategy("single"), max_steps=len(names), **WALKED["full"]
    )
    for world_size, part in parts:
        spawn(walk, part, str(tmp_path), base, len(names), "full", world_size=world_size)
    assert_goes_on(legs_of(tmp_path), names, straight)


def test_what_deepspeed_itself_refuses_is_told(tmp_path: Path) -> None:
    spawn(refuse, world_size=1)


def refuse(rank: int) -> None:
    scaling = ScalingSection(
        strategy="deepspeed",
        deepspeed={"config": {"zero_optimization": {"stage": 2, "reduce_bucket_size": "large"}}},
    )
    strategy = build_strategy(scaling, TrainSection(), world_size=1, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="DeepSpeed refuses its configuration") as caught:
        strategy.wrap(torch.nn.Linear(2, 2), lambda one: torch.optim.AdamW(one.parameters()))
    assert "reduce_bucket_size" in caught.value.why


def test_a_missing_deepspeed_names_its_extra() -> None:
    """In a Python of its own whose path does not lead to the package."""
    code = """
import importlib.util, sys
from raytrain.training.section import ScalingSection, TrainSection
from raytrain.training.strategies.build import build_strategy
import torch
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "deepspeed" else found(name, *rest)
try:
    build_strategy(ScalingSection(strategy="deepspeed"), TrainSection(), world_size=1, device=torch.device("cpu"))
except ValueError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "strategy deepspeed is not installed" in told
    assert "fix: pip install 'raytrain[deepspeed]'" in told


def test_a_run_on_ray_changes_its_strategy_midway(local: Bench, straight: Straight, recipe: Path) -> None:
    """Begun with FSDP and stopped, ended with ZeRO-3 and the shared recipe's dropout: DDP's straight run, to 1e-4."""
    run_id = run_id_of(recipe)
    local.hold_at(7)
    running = local.begin(recipe, "scaling.strategy=fsdp")
    local.wait_for_step(running, run_id, 7)
    running.send(signal.SIGTERM)
    local.wait_for_event(run_id, "asked to stop")
    local.hold_at(None)
    assert running.ended().code == 143
    outcome = local.train(recipe, "scaling.strategy=deepspeed", "scaling.deepspeed.zero_stage=3")
    assert outcome.code == 0, outcome.told()
    assert outcome.stdout.strip().startswith("{"), "DeepSpeed must print nothing before the answer"

    found, expected = (
        {
            line["global_step"]: line["metrics"]["train/loss"]
            for line in lines
            if "train/loss" in line["metrics"]
        }
        for lines in (local.metric_lines(run_id), straight.bench.metric_lines(run_id))
    )
    assert found == {step: pytest.approx(loss, abs=1e-4) for step, loss in expected.items()}
    assert_every_row_once_per_epoch(local.seen(), num_epochs=3, world_size=2)


def test_the_keys_of_zero_are_those_of_the_installed_deepspeed() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    assert {*fields, *(one.alias for one in fields.values() if one.alias)} == ZERO_KEYS
