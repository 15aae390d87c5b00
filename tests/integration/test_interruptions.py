"""Stopped on purpose, twice at once, damaged, moved, changed: on a cluster that stays up."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import (
    Bench,
    Running,
    assert_every_row_once_per_epoch,
    processes_below,
    run_id_of,
    wait_until,
    write_recipe,
    write_rows,
)
from conftest import Straight
from inside import Inside

STOPS = {"SIGINT": 130, "SIGTERM": 143, "runs stop": 0}


def stop_at(
    bench: Bench,
    recipe: Path,
    step: int,
    how: str,
    *overrides: str,
    meanwhile: Callable[[Running], None] | None = None,
) -> None:
    """Run until after `step`, ask for a stop, let go, and check what a stopped run leaves."""
    run_id = run_id_of(recipe)
    bench.hold_at(step)
    running = bench.begin(recipe, *overrides)
    bench.wait_for_step(running, run_id, step)
    if meanwhile is not None:
        meanwhile(running)
    num_asked = sum("asked to stop" in one["message"] for one in bench.events(run_id))
    if how == "runs stop":
        assert bench.run("runs", "stop", run_id, "--json").code == 0
    else:
        running.send(getattr(signal, how))
    bench.wait_for_event(run_id, "asked to stop", count=num_asked + 1)
    bench.hold_at(None)
    stopped = running.ended()
    assert stopped.code == STOPS[how], stopped.told()
    assert (stopped.object["state"], stopped.object["artifact"]) == ("cancelled", None)
    # Asked while one step was held: heard after it or after the next.
    assert stopped.object["global_step"] in (step, step + 1)
    shown = bench.show(run_id)["run"]
    assert (shown["state"], shown["resumable"]) == ("cancelled", True)
    assert bench.checkpoints(run_id)[-1].name == f"step-{stopped.object['global_step']:08d}"


def refuse_a_second_start(bench: Bench, recipe: Path, running: Running) -> None:
    second = bench.train(recipe)
    assert second.code == 4, second.told()
    assert str(running.pid) in second.error["why"] + second.error["what"], second.error


@pytest.mark.thorough
def test_a_run_that_is_stopped_damaged_and_moved_ends_as_the_straight_one(
    joined: Bench, straight: Straight, recipe: Path, tmp_path: Path
) -> None:
    """Stopped in each of three ways; in between its newest checkpoint is cut, then its first place lost."""
    run_id, drive = run_id_of(recipe), tmp_path / "drive"
    mirror = f"storage.mirror={drive}"

    def notes() -> list[str]:
        return [one["message"] for one in joined.events(run_id, "note")]

    stop_at(
        joined,
        recipe,
        6,
        "SIGINT",
        mirror,
        meanwhile=lambda running: refuse_a_second_start(joined, recipe, running),
    )
    places = joined.checkpoints(run_id), joined.checkpoints(run_id, drive)
    assert [one.name for one in places[0]] == [one.name for one in places[1]]
    for copies in places:
        weights = copies[-1] / "trained" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])

    stop_at(joined, recipe, 10, "SIGTERM", mirror)
    skipped = [note for note in notes() if "is skipped" in note]
    assert len(skipped) == 2, notes()
    assert all(places[0][-1].name in note and "bytes instead of" in note for note in skipped)
    assert any(note.startswith("resumed at step 4 ") for note in notes())
    shutil.rmtree(joined.home / "storage")

    stop_at(joined, recipe, 14, "runs stop", mirror)
    assert any(f"from {drive}" in note for note in notes())

    outcome = joined.train(recipe, mirror)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == straight.digest
    made = Counter(line["step"] for line in joined.seen())
    again = {step for step, count in made.items() if count > 2}
    assert again <= {5, 6, 7}, "steps after the cut checkpoint are made again, and no others"
    assert_every_row_once_per_epoch(joined.seen(), num_epochs=3, world_size=2)
    assert joined.run("runs", "compare", run_id, "latest", "--json").code == 2, (
        "one run is nothing to compare"
    )


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_a_signal_while_ray_starts_ends_the_run_in_order(local: Bench, recipe: Path, how: str) -> None:
    run_id = run_id_of(recipe)
    running = local.begin(recipe)
    # The first process of a Ray of its own: `ray.init` has begun, and needs seconds yet.
    wait_until(lambda: bool(ray_servers(local)), 60, lambda: "Ray's first process")
    running.send(getattr(signal, how))
    stopped = running.ended()
    assert stopped.code == STOPS[how], stopped.told()
    assert (stopped.object["state"], stopped.object["global_step"]) == ("cancelled", 0)
    shown = local.show(run_id)["run"]
    assert (shown["state"], shown["resumable"]) == ("cancelled", True)
    wait_until(lambda: not ray_servers(local), 30, lambda: "the end of Ray's processes")


def ray_servers(bench: Bench) -> list[str]:
    return [one.name() for one in processes_below(bench.ray_folder) if one.name() == "gcs_server"]


@pytest.mark.thorough
def test_a_run_whose_rows_changed_is_refused_and_fresh_starts_another(
    joined: Bench, rows_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    shutil.copy(rows_file, rows)
    recipe = write_recipe(
        tmp_path / "changing.yaml",
        model=tiny_llama,
        rows=rows,
        train={"max_steps": 6, "save_every": 2, "num_epochs": 1},
        scaling={"num_workers": 1},
    )
    run_id = run_id_of(recipe)
    stop_at(joined, recipe, 3, "SIGINT")
    before = {place.name for place in joined.checkpoints(run_id)}
    with rows.open("a") as stream:
        stream.write('{"question": "Case new: add 1 and 2.", "answer": "The sum is 3."}\n')
    refused = joined.train(recipe)
    assert refused.code == 5, refused.told()
    assert refused.error["kind"] == "integrity"
    assert "another dataset" in refused.error["what"]
    assert "--fresh" in refused.error["fix"]
    assert {place.name for place in joined.checkpoints(run_id)} == before
    shown = joined.show(run_id)["run"]
    assert (shown["state"], shown["error"]["what"]) == ("failed", refused.error["what"])
    fresh = joined.train(recipe, "--fresh")
    assert fresh.code == 0, fresh.told()
    assert fresh.object["run_id"] == f"{run_id}.2"
    assert fresh.object["global_step"] == 6
    compared = joined.run("runs", "compare", run_id, f"{run_id}.2", "--json")
    assert compared.code == 0, compared.told()
    assert compared.object["config"] == {}


@pytest.mark.thorough
def test_more_workers_than_rows_and_no_validation_rows(
    joined: Bench, tiny_llama: Path, tmp_path: Path
) -> None:
    """An epoch of three rows over two workers: the last batch has fewer rows than there are workers."""
    rows = [{"question": f"Add {i} and {i}?", "answer": f"That makes {2 * i}."} for i in range(3)]
    recipe = write_recipe(
        tmp_path / "few.yaml",
        model=tiny_llama,
        rows=write_rows(tmp_path / "few.jsonl", rows),
        data={"val_fraction": 0.0},
        train={
            "global_batch_size": 2,
            "num_epochs": 4,
            "save_every": 0,
            "save_every_minutes": None,
            "warmup_steps": 0,
        },
    )
    outcome = joined.train(recipe)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["global_step"] == 8
    assert "eval/loss" not in outcome.object["metrics"]
    assert_every_row_once_per_epoch(joined.seen(), num_epochs=4, world_size=2)
    assert joined.checkpoints(outcome.object["run_id"]) == [], "neither by steps nor by minutes"


def test_exploding_gradients_stop_the_run_and_name_the_layers(
    inside: Inside, tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(
        tmp_path / "explode.yaml",
        model=tiny_llama,
        rows=rows_file,
        adapter={"lora_rank": 4, "lora_alpha": 10**25},
        train={"learning_rate": 9.9, "max_grad_norm": None, "warmup_steps": 0, "max_steps": 40, "hooks": []},
        scaling={"num_workers": 1},
    )
    outcome = inside.train(recipe)
    assert outcome.code == 4, outcome.told()
    assert outcome.error["kind"] == "training"
    assert "NaN or infinite gradients in 3 steps in a row" in outcome.error["what"]
    assert "lora_" in outcome.error["why"]
    assert "learning_rate" in outcome.error["fix"]
    run_id = run_id_of(recipe)
    assert inside.show(run_id)["run"]["state"] == "failed"
    assert inside.events(run_id, "gradients")
