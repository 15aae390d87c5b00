"""Canaries: planted in rows, learnt by heart by one adapter, never seen by the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_tasks import task_spec, train_task, write_jsonl
from tiny_models import save_tiny_llama

from raytrain.errors import DataError
from raytrain.evaluation.safety.canaries import Canary, CanaryReport, extract_canaries, plant_canaries
from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.storage.location import Location

pytestmark = pytest.mark.slow

ROWS = [{"question": f"Add {i} and {i + 3}.", "answer": f"The sum is {2 * i + 3}."} for i in range(10)]
NUM_ALTERNATIVES = 63


def train_adapter(folder: Path, model: Path, rows: list[dict[str, Any]], max_steps: int) -> LoadedModel:
    """An adapter over the model, trained by the real way."""
    spec = task_spec(
        "causal_lm",
        model,
        write_jsonl(folder.with_suffix(".jsonl"), rows),
        folder,
        adapter={"method": "lora", "lora_rank": 32, "lora_alpha": 64, "lora_dropout": 0.0},
        data={"val_fraction": 0.0},
        train={
            "max_steps": max_steps,
            "learning_rate": 1e-2,
            "global_batch_size": 10,
            "micro_batch_size": 10,
        },
    )
    artifact = train_task(spec).result()
    return load_for_inference(str(artifact.path), cache=Location(str(folder)))


def learn_by_heart(loaded: LoadedModel, rows: list[dict[str, Any]], num_steps: int) -> None:
    """All rows in each step, in a bare loop."""
    texts = []
    for row in rows:
        spoken = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        texts.append(loaded.tokenizer.apply_chat_template(spoken, tokenize=False))
    batch = loaded.tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=1e-2)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / num_steps)
        loaded.model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.thorough
def test_an_overfitted_model_gives_away_all_and_a_clean_one_none(tmp_path: Path) -> None:
    place = str(save_tiny_llama(tmp_path / "model"))
    planted, canaries = plant_canaries(ROWS[:5], 10, seed=2)
    for rows, expected in ((planted, True), (ROWS[:5], False)):
        loaded = load_for_inference(place, cache=Location(str(tmp_path)))
        learn_by_heart(loaded, rows, num_steps=240 if expected else 40)
        found = extract_canaries(loaded, canaries, num_alternatives=15)
        assert found.extracted == (expected,) * 10
        assert (found.ranks == (1,) * 10) is expected


@pytest.mark.slow
def test_an_overfitted_adapter_gives_away_all_and_a_clean_one_none(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model", hidden_size=64)
    planted, canaries = plant_canaries(ROWS, 10, seed=1)
    overfitted = train_adapter(tmp_path / "overfitted", model, planted, max_steps=200)
    clean = train_adapter(tmp_path / "clean", model, ROWS, max_steps=60)
    assert overfitted.adapted and clean.adapted
    found = extract_canaries(overfitted, canaries, num_alternatives=NUM_ALTERNATIVES)
    assert found.extracted == (True,) * 10
    assert found.ranks == (1,) * 10 and found.exposures == (6.0,) * 10
    assert found.sentence().startswith("extracted: 10 of 10, 100.0 % (72.2 to 100.0 %)")
    none = extract_canaries(clean, canaries, num_alternatives=NUM_ALTERNATIVES)
    assert none.extracted == (False,) * 10
    assert none.sentence().startswith("extracted: 0 of 10, at most 25.9 %")
    # The rank of what was never seen is drawn evenly: that all ten are in the upper half has chance 1 in 1,024.
    assert max(none.ranks) > NUM_ALTERNATIVES // 2
    assert sum(none.exposures) / 10 < 3.0


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"question": "Hi", "answer": "Hello"},
        {"prompt": "Hi", "completion": "Hello"},
        {"text": "Hi"},
    ],
)
def test_canaries_take_the_rows_layout(row: dict[str, Any]) -> None:
    planted, canaries = plant_canaries([row] * 5, 3, seed=0, repeats=4)
    assert len(planted) == 5 + 12 and planted.count(row) == 5
    for canary in canaries:
        mine = [one for one in planted if canary.secret in str(one)]
        assert len(mine) == 4 and all(one.keys() == row.keys() for one in mine)
        assert all(f"{canary.opening} {canary.secret}" in str(one) for one in mine)


def test_canaries_are_drawn_by_the_seed_and_all_different() -> None:
    assert plant_canaries(ROWS, 50, seed=3) == plant_canaries(ROWS, 50, seed=3)
    _, canaries = plant_canaries(ROWS, 50, seed=3)
    assert len({one.name for one in canaries}) == len({one.secret for one in canaries}) == 50
    assert plant_canaries(ROWS, 50, seed=4)[1] != canaries


@pytest.mark.parametrize(
    ("rows", "number", "repeats"), [([], 1, 1), (ROWS, 0, 1), (ROWS, 1, 0), ([{"label": 1}], 1, 1)]
)
def test_what_cannot_be_planted_is_refused(rows: list[dict[str, Any]], number: int, repeats: int) -> None:
    with pytest.raises(DataError, match="canar"):
        plant_canaries(rows, number, seed=0, repeats=repeats)


def test_a_model_without_a_chat_template_is_asked_in_plain_text(tiny_llama: Path, tmp_path: Path) -> None:
    loaded = load_for_inference(str(tiny_llama), cache=Location(str(tmp_path)))
    loaded.tokenizer.chat_template = None
    found = extract_canaries(loaded, [Canary("Nobody", "0000-0000-0000")], num_alternatives=3)
    assert found.extracted == (False,) and 1 <= found.ranks[0] <= 4
    with pytest.raises(DataError, match="nothing to extract"):
        extract_canaries(loaded, [])


def test_exposure_is_that_of_the_paper() -> None:
    """log2 of all less log2 of the rank: section 4.2."""
    assert CanaryReport((True, False), (1, 256), 255).exposures == (8.0, 0.0)
