"""What trials leave on the storage, what of it goes, and when."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest_search import RecipeMaker, write_checkpoint
from conftest_search_run import InPlaceOfRay, learned, tune

from raytrain.errors import TrainingError
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.training.checkpoint_store import checkpoint_folder, folder_of
from raytrain.tuning.disk import TrialDisk
from raytrain.tuning.study import GENERATION, MEMBER, RUN_ID, StudyMemory
from raytrain.tuning.task import Ended, TrialTask, trial_run_id


def test_the_disks_limit_drops_the_worst_first(tune_recipe: RecipeMaker) -> None:
    recipe: Any = tune_recipe()
    storage = recipe.spec.storage.location
    memory = StudyMemory(recipe, "s")
    for i, loss in enumerate((0.3, 0.1, 0.2)):
        number, _ = memory.ask()
        memory.note(number, {RUN_ID: f"s-{i:04d}"})
        write_checkpoint(storage, f"s-{i:04d}", 10, num_bytes=10_000)
        memory.tell_complete(number, [loss])
    disk = TrialDisk(storage, memory)
    used = disk.used_bytes()
    assert disk.make_room(None) == disk.make_room(used + 1) == used
    left = disk.make_room(used - 5_000)
    assert left < used - 5_000
    assert left == TrialDisk(storage, memory).used_bytes(), "what is told is what lies there"
    there = [checkpoint_folder(storage, f"s-{i:04d}").exists() for i in range(3)]
    assert there == [False, True, True], "the worst of the three"


def test_what_the_next_generation_begins_with_stays_on_the_disk(tune_recipe: RecipeMaker) -> None:
    recipe: Any = tune_recipe()
    storage = recipe.spec.storage.location
    memory = StudyMemory(recipe, "s")
    for generation in range(3):
        memory.enqueue_as_it_is({}, {GENERATION: generation, MEMBER: 0})
        number, _ = memory.ask()
        memory.note(number, {RUN_ID: f"s-{number:04d}"})
        write_checkpoint(storage, f"s-{number:04d}", 10, num_bytes=10_000)
        memory.tell_complete(number, [0.5])
    TrialDisk(storage, memory).make_room(1.0)
    there = [checkpoint_folder(storage, f"s-{i:04d}").exists() for i in range(3)]
    assert there == [False, True, True]


def test_what_is_dropped_while_it_is_measured_counts_nothing_after_it(
    tune_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Tune's thread drops a pruned trial while the driver's measures what all of them have."""
    recipe: Any = tune_recipe()
    memory = StudyMemory(recipe, "s")
    number, _ = memory.ask()
    memory.note(number, {RUN_ID: "s-0000"})
    write_checkpoint(recipe.spec.storage.location, "s-0000", 10, num_bytes=10_000)
    memory.tell_pruned(number, "others were better")
    disk = TrialDisk(recipe.spec.storage.location, memory)
    dropping = threading.Thread(target=disk.drop_all, args=("s-0000", number))
    measure = Location.size_bytes

    def measured(place: Location) -> int:
        found = measure(place)
        if place.name == "s-0000":
            dropping.start()
            dropping.join(0.5)
        return found

    monkeypatch.setattr(Location, "size_bytes", measured)
    assert disk.used_bytes() > 10_000
    dropping.join(10)
    assert disk.used_bytes() == 0


# In a whole search


@pytest.mark.slow
def test_a_trial_that_came_to_nothing_is_gone_before_the_next_one_begins(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    recipe = tune_recipe("search.num_trials=5", "search.max_failed_trials=9")
    storage = recipe.spec.storage.location
    endings = [
        Ended("pruned", "others were better"),
        Ended("failed", "no rows"),
        Ended("stopped", "by `raytrain runs stop` of this run alone"),
    ]
    there: list[list[str]] = []

    def leaves(task: TrialTask) -> Ended:
        there.append([one.name for one in (storage / "runs").children()])
        write_checkpoint(storage, task.run_id, 5)
        assert folder_of(storage, task.run_id).exists()
        return endings[task.number] if task.number < len(endings) else learned(task)

    ray.objective = leaves
    tune(recipe, ray)
    kept = [trial_run_id(recipe.run_id, number) for number in (3, 4)]
    assert there == [[], [], [], [], kept[:1]]
    assert all(folder_of(storage, one).exists() for one in kept), "complete ones stay"


@pytest.mark.slow
def test_the_last_of_too_many_failures_leaves_nothing_either(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    recipe = tune_recipe("search.max_failed_trials=1")
    storage = recipe.spec.storage.location

    def fails(task: TrialTask) -> Ended:
        write_checkpoint(storage, task.run_id, 5)
        return Ended("failed", "no rows")

    ray.objective = fails
    with pytest.raises(TrainingError, match="the last of them trial 0"):
        tune(recipe, ray)
    assert not folder_of(storage, trial_run_id(recipe.run_id, 0)).exists()


@pytest.mark.slow
def test_what_a_command_that_was_killed_has_left_behind_goes(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    recipe = tune_recipe("search.num_trials=4")
    storage = recipe.spec.storage.location
    memory = StudyMemory(recipe, recipe.run_id)
    for tell in (
        memory.tell_pruned,
        memory.tell_failed,
        lambda number, _: memory.tell_complete(number, [0.5]),
    ):
        number, _ = memory.ask()
        run_id = trial_run_id(recipe.run_id, number)
        memory.note(number, {RUN_ID: run_id})
        write_checkpoint(storage, run_id, 5)
        tell(number, "killed before its checkpoints were dropped")
    tune(recipe, ray)
    assert ray.made == [3]
    there = [folder_of(storage, trial_run_id(recipe.run_id, number)).exists() for number in range(3)]
    assert there == [False, False, True]


@pytest.mark.slow
def test_a_full_disk_ends_it_with_the_best_trials_result_in_its_place(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    recipe = tune_recipe("search.num_trials=5", "search.scheduler=none", "search.budget.disk_gb=85e-6")
    storage = recipe.spec.storage.location
    runs = [trial_run_id(recipe.run_id, number) for number in range(4)]
    losses = [0.3, 0.1, 0.2, 0.4, 0.4]

    def leaves(task: TrialTask) -> Ended:
        is_large = task.number == 3
        write_checkpoint(storage, task.run_id, 40, num_bytes=70_000 if is_large else 10_000)
        deadline = time.monotonic() + 20
        while is_large and ray.made.count(3) == 1:
            if ray.searcher.stopped:
                return Ended("stopped", "asked to stop", global_step=5)
            assert time.monotonic() < deadline, "nobody stopped it"
            time.sleep(0.01)
        with ArtifactWriter(folder_of(storage, task.run_id) / "adapter", kind="adapter") as writer:
            (writer.path / "weights").write_bytes(bytes(20_000))
            writer.commit({})
        loss = losses[task.number]
        return Ended("complete", objectives=[loss], metrics={"eval/loss": loss}, global_step=40)

    ray.objective = leaves
    found = tune(recipe, ray)
    assert found.ended_by.startswith("search.budget.disk_gb: ")
    assert (found.state, ray.made, found.best[0].view.number) == ("succeeded", [0, 1, 2, 3], 1)
    open_artifact(folder_of(storage, runs[1]) / "adapter", kind="adapter")  # whole, or it raises
    assert Path(found.files["best"]).is_file()
    there = [(folder_of(storage, one) / "adapter").exists() for one in runs]
    assert there == [False, True, False, False], "of those that have ended only the best one's result"
    there = [checkpoint_folder(storage, one).exists() for one in runs]
    assert there == [False, False, False, True], "the one that was stopped goes on from its checkpoint"

    more = tune(tune_recipe("search.num_trials=5", "search.scheduler=none", "search.budget.disk_gb=1"), ray)
    assert more.ended_by == "all trials are made"
    assert ray.made == [0, 1, 2, 3, 3, 4]
