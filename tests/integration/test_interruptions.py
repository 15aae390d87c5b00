"""Stopped on purpose, twice at once, damaged, moved, changed: on a cluster that stays up."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from bench import Bench, Running, assert_every_row_once_per_epoch, run_id_of, write_recipe, write_rows
from conftest import Straight


def stop_at(bench: Bench, recipe: Path, step: int, *overrides: str) -> None:
    """Run until after `step`, then ask for a stop as Ctrl-C does, and let go."""
    run_id = run_id_of(recipe)
    bench.hold_at(step)
    running = bench.begin(recipe, *overrides)
    bench.wait_for_step(running, run_id, step)
    num_asked = sum("asked to stop" in one["message"] for one in bench.events(run_id))
    running.send(signal.SIGINT)
    release(bench, running, run_id, num_asked + 1)
    assert running.ended().code == 130


def release(bench: Bench, running: Running, run_id: str, num_asked: int) -> None:
    """Let the held step go once the driver has passed the request on."""
    bench.wait_for_event(run_id, "asked to stop", count=num_asked)
    bench.hold_at(None)


def test_signals_and_runs_stop_save_and_the_same_command_goes_on(
    joined: Bench, straight: Straight, recipe: Path
) -> None:
    """SIGINT, SIGTERM and `runs stop` one after the other in one run; meanwhile somebody starts it a second time."""
    run_id = run_id_of(recipe)
    for i, (stop_after, name, code) in enumerate([(5, "SIGINT", 130), (9, "SIGTERM", 143), (14, "stop", 0)]):
        joined.hold_at(stop_after)
        running = joined.begin(recipe)
        joined.wait_for_step(running, run_id, stop_after)
        if name == "SIGINT":
            second = joined.train(recipe)
            assert second.code == 4, second.told()
            assert str(running.pid) in second.error["why"] + second.error["what"], second.error
        if name == "stop":
            asked = joined.run("runs", "stop", run_id, "--json")
            assert asked.code == 0, asked.told()
        else:
            running.send(getattr(signal, name))
        release(joined, running, run_id, i + 1)
        stopped = running.ended()
        assert stopped.code == code, stopped.told()
        assert stopped.object["state"] == "cancelled"
        assert stopped.object["artifact"] is None
        # Asked during the hold of one step, heard after it or after the next.
        assert stopped.object["global_step"] in (stop_after, stop_after + 1)
        shown = joined.show(run_id)["run"]
        assert (shown["state"], shown["resumable"]) == ("cancelled", True)
        assert joined.checkpoints(run_id)[-1].name == f"step-{stopped.object['global_step']:08d}"
    outcome = joined.train(recipe)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == straight.digest
    steps = [line["step"] for line in joined.seen()]
    assert sorted(steps) == sorted([*range(1, outcome.object["global_step"] + 1)] * 2), "no step made twice"
    assert_every_row_once_per_epoch(joined.seen(), num_epochs=3, world_size=2)
    compared = joined.run("runs", "compare", run_id, "latest", "--json")
    assert compared.code == 2, "one run is nothing to compare"


def test_a_truncated_checkpoint_is_skipped_and_a_lost_place_comes_from_the_mirror(
    joined: Bench, straight: Straight, recipe: Path, tmp_path: Path
) -> None:
    run_id, drive = run_id_of(recipe), tmp_path / "drive"
    mirror = f"storage.mirror={drive}"
    stop_at(joined, recipe, 6, mirror)
    stands = joined.checkpoints(run_id)
    assert [one.name for one in joined.checkpoints(run_id, drive)] == [one.name for one in stands]
    for copy in (stands[-1], joined.checkpoints(run_id, drive)[-1]):
        weights = copy / "trained" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    stop_at(joined, recipe, 10, mirror)
    notes = [one["message"] for one in joined.events(run_id)]
    skipped = [note for note in notes if "is skipped" in note]
    assert len(skipped) == 2, notes
    assert all(stands[-1].name in note and "bytes instead of" in note for note in skipped)
    assert any("resumed at step 4 " in note for note in notes)
    shutil.rmtree(joined.home / "storage")
    outcome = joined.train(recipe, mirror)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == straight.digest
    assert any(f"from {drive}" in one["message"] for one in joined.events(run_id))
    assert_every_row_once_per_epoch(joined.seen(), num_epochs=3, world_size=2)


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
    stop_at(joined, recipe, 3)
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
        train={"global_batch_size": 2, "num_epochs": 4, "save_every": 0, "warmup_steps": 0},
    )
    outcome = joined.train(recipe)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["global_step"] == 8
    assert "eval/loss" not in outcome.object["metrics"]
    assert_every_row_once_per_epoch(joined.seen(), num_epochs=4, world_size=2)
    assert joined.checkpoints(outcome.object["run_id"]) == [], "save_every: 0 means none"


@pytest.mark.parametrize("learning_rate", [9.9])
def test_exploding_gradients_stop_the_run_and_name_the_layers(
    joined: Bench, tiny_llama: Path, rows_file: Path, tmp_path: Path, learning_rate: float
) -> None:
    recipe = write_recipe(
        tmp_path / "explode.yaml",
        model=tiny_llama,
        rows=rows_file,
        adapter={"lora_rank": 4, "lora_alpha": 10**25},
        train={"learning_rate": learning_rate, "max_grad_norm": None, "warmup_steps": 0, "max_steps": 40},
        scaling={"num_workers": 1},
    )
    outcome = joined.train(recipe)
    assert outcome.code == 4, outcome.told()
    assert outcome.error["kind"] == "training"
    assert "NaN or infinite gradients in 3 steps in a row" in outcome.error["what"]
    assert "lora_" in outcome.error["why"]
    assert "learning_rate" in outcome.error["fix"]
    run_id = run_id_of(recipe)
    assert joined.show(run_id)["run"]["state"] == "failed"
    assert joined.events(run_id, "gradients")
