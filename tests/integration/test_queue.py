"""The queue with real training: a background run makes room for an urgent job and goes on from where it saved."""

from __future__ import annotations

from pathlib import Path

from bench import Bench, Running, run_id_of, wait_until


def shown(bench: Bench, job: str) -> dict[str, object]:
    outcome = bench.run("queue", "status", job, "--json")
    assert outcome.code == 0, outcome.told()
    found: dict[str, object] = outcome.object["job"]
    return found


def submitted(bench: Bench, *words: str | Path) -> str:
    outcome = bench.run("queue", "submit", *words, "--json")
    assert outcome.code == 0, outcome.told()
    return str(outcome.object["job"]["id"])


def test_a_background_run_saves_makes_room_and_resumes(local: Bench, recipe: Path) -> None:
    assert local.run("queue", "limit", "default", "--running", "1").code == 0
    run_id = run_id_of(recipe)
    local.hold_at(6)
    background = submitted(local, "train", recipe, "--priority", "P2")
    worker: Running = local.start("queue", "work", "--until-empty", "--every", "0.5")
    local.wait_for_step(worker, run_id, 5)
    urgent = submitted(local, "train", recipe, "train.max_steps=2", "train.hooks=[]", "--priority", "P0")
    wait_until(
        lambda: (
            "make room" in str(shown(local, background)["wish"] or shown(local, background)["exit_reason"])
            or shown(local, background)["wish"] == "preempt"
        ),
        60,
        lambda: str(shown(local, background)),
    )
    local.hold_at(None)
    outcome = worker.ended(240)
    assert outcome.code == 0, outcome.told()
    first, second = shown(local, background), shown(local, urgent)
    assert (first["state"], first["num_starts"], first["num_failures"], first["num_losses"]) == (
        "succeeded",
        2,
        0,
        0,
    )
    assert (second["state"], second["num_starts"]) == ("succeeded", 1)
    assert str(second["ended_at"]) < str(first["ended_at"])
    events = [one["message"] for one in local.events(run_id)]
    assert any(one.startswith("resumed at step") for one in events), events
    run = local.show(run_id)["run"]
    assert run["state"] == "succeeded" and run["global_step"] == run["max_steps"]
    assert local.steps_told(run_id) == sorted(set(local.steps_told(run_id))), "no step was made twice"
