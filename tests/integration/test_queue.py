"""The queue with real training: a background run makes room for an urgent job and goes on from where it saved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest
from bench import Bench, Running, run_id_of, wait_until


def shown(bench: Bench, job: str) -> dict[str, object]:
    outcome = bench.run("queue", "status", job, "--json")
    assert outcome.code == 0, outcome.told()
    found: dict[str, object] = outcome.object["job"]
    return found


def submitted(bench: Bench, *words: str | Path) -> str:
    outcome = bench.run("queue", "submit", "--json", *words)
    assert outcome.code == 0, outcome.told()
    return str(outcome.object["job"]["id"])


def test_a_background_run_saves_makes_room_and_resumes(local: Bench, recipe: Path) -> None:
    assert local.run("queue", "limit", "default", "--running", "1").code == 0
    run_id = run_id_of(recipe)
    local.hold_at(6)
    background = submitted(local, "train", recipe, "--priority", "P2")
    worker: Running = local.start("queue", "work", "--until-empty", "--every", "0.5")
    local.wait_for_step(worker, run_id, 6, timeout_s=300)
    # That it fails at once, for want of its suite, is all the same here: it had the place.
    urgent = submitted(local, "--priority", "P0", "--", "evaluate", "outputs.jsonl", "--suite", "absent.yaml")
    wait_until(
        lambda: shown(local, background)["wish"] == "preempt", 60, lambda: str(shown(local, background))
    )
    # The wish stands in the store first; the run makes steps until it has been told.
    local.wait_for_event(run_id, "asked to stop", timeout_s=60)
    local.hold_at(None)
    outcome = worker.ended(500)
    assert outcome.code == 0, outcome.told()
    first, second = shown(local, background), shown(local, urgent)
    assert (first["state"], first["num_starts"]) == ("succeeded", 2)
    assert (first["num_failures"], first["num_losses"]) == (0, 0)
    assert (second["state"], second["exit_code"], second["num_starts"]) == ("failed", 2, 1)
    assert str(second["ended_at"]) < str(first["started_at"]), "it was begun again when the place was free"
    (step,) = local.resumed_at(run_id)
    assert step in (6, 7), "it saved when it made room; step 4 is that of its last checkpoint before"
    run = local.show(run_id)["run"]
    assert run["state"] == "succeeded" and run["global_step"] == run["max_steps"]
    assert set(Counter(line["step"] for line in local.seen()).values()) == {2}, "a step was made twice"


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_job_whose_driver_is_killed_is_tried_again_from_its_checkpoint(local: Bench, recipe: Path) -> None:
    run_id = run_id_of(recipe)
    local.hold_at(6)
    job = submitted(local, "train", recipe)
    worker: Running = local.start("queue", "work", "--until-empty", "--every", "0.5")
    local.wait_for_step(worker, run_id, 6, timeout_s=300)
    local.wait_until_held(run_id, world_size=2)
    local.wait_for_checkpoint(run_id, 4)
    workers = list(local.worker_pids(run_id).values())
    local.kill_now(local.show(run_id)["run"]["owner"]["pid"])
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), 60, lambda: f"the end of {workers}")
    local.hold_at(None)
    outcome = worker.ended(600)
    assert outcome.code == 0, outcome.told()
    done = shown(local, job)
    assert (done["state"], done["num_starts"], done["num_failures"]) == ("succeeded", 2, 1)
    assert local.resumed_at(run_id) == [4]
