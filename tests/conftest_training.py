"""A Job without Ray: tiny Llama, rows straight to tokens, a channel that keeps what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raytrain.data.batches import BatchPlanner
from raytrain.data.tokens import TokenTable
from raytrain.models.adapter import attach_adapter
from raytrain.models.base import ResolvedModel, load_base_model, load_tokenizer, resolve_base_model
from raytrain.models.packing_proof import try_packing
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.storage.location import Location
from raytrain.training.batching import build_batching
from raytrain.training.checkpoint import Belonging
from raytrain.training.checkpoint_store import CheckpointStore
from raytrain.training.compiling import compile_feed_forward
from raytrain.training.gradients import GradientCheck
from raytrain.training.hooks import Hook
from raytrain.training.job import Job
from raytrain.training.losses.base import Loss, Objective, row_weights
from raytrain.training.losses.causal_lm import CausalLMLoss, choose_path
from raytrain.training.losses.lightning_proof import build_lightning_loss
from raytrain.training.optimizer import build_optimizer
from raytrain.training.precision import build_scaler
from raytrain.training.random_state import seed_everything
from raytrain.training.saving import Saver
from raytrain.training.section import TrainSection
from raytrain.training.setup import resume
from raytrain.training.state import TrainingState
from raytrain.training.strategies.base import Strategy
from raytrain.training.strategies.single import SingleProcess
from raytrain.training.validation import Evaluator


@dataclass
class RecordingChannel:
    """Keeps messages; asks to stop after `stop_after` questions, to yield after `yield_after`."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stop_after: int | None = None
    yield_after: int | None = None
    num_asked: int = 0
    num_asked_to_yield: int = 0
    stands: list[str] = field(default_factory=list)

    def send(self, kind: str, **content: Any) -> None:
        self.messages.append((kind, content))

    def stop_requested(self) -> bool:
        self.num_asked += 1
        return self.stop_after is not None and self.num_asked >= self.stop_after

    def should_yield(self) -> bool:
        self.num_asked_to_yield += 1
        return self.yield_after is not None and self.num_asked_to_yield >= self.yield_after

    def checkpoint_stands(self, uri: str, metrics: dict[str, float]) -> None:
        self.stands.append(uri)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [content for one, content in self.messages if one == kind]

    def losses(self) -> dict[int, float]:
        """`train/loss` by step."""
        return {
            content["global_step"]: content["metrics"]["train/loss"]
            for content in self.of("metrics")
            if "train/loss" in content["metrics"]
        }


def make_table(
    num_rows: int, *, seed: int = 3, vocab: int = 300, prompt: bool = True, row_length: int | None = None
) -> TokenTable:
    """Rows of 4 to 20 random tokens, or of `row_length`; the first third of each is prompt and carries no loss."""
    generator = np.random.default_rng(seed)
    ids, masks = [], []
    for _ in range(num_rows):
        length = row_length or int(generator.integers(4, 21))
        ids.append(generator.integers(3, vocab, length).astype(np.int32))
        mask = np.ones(length, np.uint8)
        if prompt:
            mask[: length // 3] = 0
        masks.append(mask)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return TokenTable(
        np.concatenate(ids), offsets, [f"row{i}" for i in range(num_rows)], np.concatenate(masks)
    )


JobMaker = Callable[..., Job]


@pytest.fixture(scope="session")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    section = ModelSection(base_model=str(tiny_llama))
    return resolve_base_model(section, Location(str(tmp_path_factory.mktemp("models-cache"))))


def build_test_job(
    base: ResolvedModel,
    folder: Path,
    *,
    strategy: Strategy | None = None,
    channel: RecordingChannel | None = None,
    adapter: dict[str, Any] | None = None,
    model_options: dict[str, Any] | None = None,
    num_rows: int = 23,
    row_length: int | None = None,
    num_val_rows: int = 7,
    hooks: dict[str, Hook] | None = None,
    dataset_digest: str = "sha256:rows",
    mirror: Path | None = None,
    **train: Any,
) -> Job:
    """Ready to run, resumed from what lies in `folder`."""
    values = {
        "max_steps": 6,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "save_every": 2,
        "learning_rate": 1e-2,
    }
    section = TrainSection(**{**values, **train})
    strategy = strategy or SingleProcess(torch.device("cpu"))
    channel = channel or RecordingChannel()
    adapter_section = AdapterSection(**(adapter or {"lora_rank": 4, "lora_dropout": 0.1}))
    seed_everything(section.seed, strategy.world_rank)
    model_section = ModelSection(base_model=base.reference, **(model_options or {}))
    model = attach_adapter(
        load_base_model(base, model_section, device="cpu", adapter=adapter_section),
        adapter_section, base=base, seed=section.seed,
    )  # fmt: skip
    tokenizer = load_tokenizer(base, model_section)
    is_packed = section.packing != "off" and section.lightning is None and try_packing(model) is None
    batching = build_batching(section, max_seq_len=20, pad_id=tokenizer.pad_token_id, is_packed=is_packed)
    table = make_table(num_rows, row_length=row_length)
    if section.compile:
        compile_feed_forward(model)
    loss: Loss
    if section.lightning is None:
        loss = CausalLMLoss(choose_path(model, holds_whole_model=strategy.holds_whole_model)[0])
    else:
        note = partial(channel.send, "note")
        loss = build_lightning_loss(
            section.lightning, "causal_lm", model, table, batching.collate, note=lambda text: note(text=text)
        )
    optimizer = strategy.wrap(Objective(model, loss), lambda _: build_optimizer(model, section))
    belonging = Belonging(
        "run", base.digest, dataset_digest, "sha256:tokens", adapter_section.model_dump(mode="json")
    )
    store = CheckpointStore(
        Location(str(folder / "checkpoints")),
        Location(str(mirror / "checkpoints")) if mirror else None,
        monitor=section.monitor,
    )
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    job = Job(
        section=section,
        max_steps=section.num_steps(num_rows),
        strategy=strategy,
        channel=channel,
        model=model,
        optimizer=optimizer,
        scaler=build_scaler(strategy.device, section.precision),
        gradients=GradientCheck(trainable, section.max_grad_norm, strategy),
        planner=BatchPlanner(
            table,
            seed=section.seed,
            global_batch_size=section.global_batch_size,
            world_size=strategy.world_size,
            deal=batching.deal,
            row_weights=row_weights(loss, table),
        ),
        collate=batching.collate,
        validation=Evaluator(
            make_table(num_val_rows, seed=9),
            batching.deal,
            batching.collate,
            section.precision,
            section.eval_max_rows,
            loss,
        ),
        tokenizer=tokenizer,
        state=TrainingState(),
        saver=Saver(
            section=section,
            strategy=strategy,
            channel=channel,
            store=store,
            belonging=belonging,
            provenance={},
            run_id=folder.name,
        ),
        hooks=hooks or {},
    )
    resume(job)
    return job


@pytest.fixture
def make_job(base: ResolvedModel, tmp_path: Path) -> JobMaker:
    def make(folder: str = "run", **options: Any) -> Job:
        return build_test_job(base, tmp_path / folder, **options)

    return make
