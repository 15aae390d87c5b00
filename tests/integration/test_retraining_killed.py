"""A retraining with all that a loop may ask for: a check, a search, every report, all of them signed, staging, a trial.
It is killed with -9 after each of its steps, in the middle of the check, as three reports are begun, and while it
waits for the trial, whose log is written by the test; each time the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, Running, wait_until
from retrained import NAME, WHOLE, Site, put_up, row
from trial_rows import pairs, written

STEPS = (
    "rows", "prepare", "check", "tune", "train", "baseline", "evaluate", "compare", "release", "staging",
    "canary", "production",
)  # fmt: skip
PRODUCTION = {
    "to": "production", "signed_evidence": True, "override_by": ["lead"],
    # A model of random weights refuses nobody, and keeps no answer.
    "worst_failure": "critical", "max_lost": 1.0,
}  # fmt: skip
SEARCH: dict[str, Any] = {
    "space": {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    "num_trials": 3,
    "scheduler": "none",
    "probe_steps": 0,
    "max_concurrent": 1,
    "budget": {"hours": 2.0},
}


def num_told(site: Site, order: str, step: str) -> int:
    """So often the order's run has said that a step is done."""
    return sum(one["message"].startswith(f"{step}: ") for one in site.bench.events(order))


def killed_after(site: Site, order: str, step: str) -> None:
    before = num_told(site, order, step)
    running = site.bench.start("retrain", site.loop, order, "--json")
    killed_once(running, lambda: num_told(site, order, step) > before, f"{step} is done")


def killed_once(running: Running, is_time: Callable[[], bool], told: str) -> None:
    wait_until(
        lambda: is_time() or running.process.poll() is not None,
        900,
        lambda: f"{told}: " + running.files[1].read_text()[-3000:],
    )
    running.process.kill()
    outcome = running.ended()
    assert outcome.code == -9, f"before {told}: {outcome.told()}"


def killed_at(site: Site, order: str, words: str) -> None:
    """As soon as it tells these."""
    running = site.bench.start("retrain", site.loop, order)
    killed_once(running, lambda: words in " ".join(running.files[1].read_text().split()), words)


def killed_while_it_checks(site: Site, order: str) -> None:
    running = site.bench.start("retrain", site.loop, order, "--json")
    killed_once(running, lambda: bool(checks_begun(site)), "it checks")


def checks_begun(site: Site) -> list[Path]:
    return list((site.bench.home / "storage" / "runs").glob("check-*"))


def log_trial(site: Site) -> None:
    """Twenty pairs, as an ingress would leave them, of the two that are in staging and in production."""
    shown = site.run("registry", "show", NAME).object
    by_version = {one["version"]: one["digest"] for one in shown["versions"]}
    sides = {"production": "production", "candidate": "staging"}
    digests = {side: by_version[shown["aliases"][alias]] for side, alias in sides.items()}
    rows = [{**one, "digest": digests[one["arm"]]} for one in pairs(range(20), pairs=20, name=NAME)]
    written(site.folder / "log", rows)


@pytest.mark.thorough
@pytest.mark.timeout(3600)
def test_killed_after_each_step_it_goes_on_and_makes_nothing_twice(
    joined: Bench, tiny_llama: Path, tmp_path: Path
) -> None:
    staging = {"to": "staging", "reports": ["evaluation"], "documents": []}
    canary = {"hours": 1, "every_s": 0.2}
    site = put_up(
        joined, tiny_llama, tmp_path,
        targets=(staging, PRODUCTION), learns=WHOLE, search=SEARCH, canary=canary, log=str(tmp_path / "log"),
    )  # fmt: skip
    site.run("baseline", "freeze", site.model, "--suite", tmp_path / "cases.yaml", "--name", "golden")
    site.pool().add([row(number, f"user {number % 3}") for number in range(30)])
    order = site.run("loop", "run", site.loop).object["queued"]

    for step in STEPS[:-1]:
        if step == "check":
            killed_while_it_checks(site, order)
        if step == "staging":
            for report in ("contamination", "safety", "drift"):
                killed_at(site, order, f"making the report {report}")
        if step == "canary":
            killed_at(site, order, "the trial has 0 pairs")
            log_trial(site)
        killed_after(site, order, step)
    done = site.run("retrain", site.loop, order, timeout_s=600).object

    assert (done["outcome"], site.production()) == ("succeeded", "1.1.0"), done
    assert site.pool().counts()["used"] == 30
    record = json.loads((site.artifact(order, "record") / "record.json").read_text())
    known = {one["name"]: one["was_known"] for one in record["steps"]}
    assert tuple(known) == STEPS
    assert [name for name, was_known in known.items() if not was_known] == ["release", "canary", "production"]
    entries = site.run("registry", "log", NAME).object["entries"]
    moves = [
        (one["details"]["alias"], one["details"]["version"]) for one in entries if one["action"] == "move"
    ]
    assert moves == [("production", "1.0.0"), ("staging", "1.1.0"), ("production", "1.1.0")]
    kinds = [one["kind"] for one in site.bench.show(order)["artifacts"] if one["direction"] == "written"]
    for kind in ("check", "contamination", "safety", "golden"):
        assert any(kind in one for one in kinds), (kind, kinds)
    storage = site.bench.home / "storage"
    made = [one.name.partition("-")[0] for one in (storage / "retrainings" / order).iterdir() if one.is_dir()]
    assert (made.count("contamination"), made.count("safety")) == (2, 1), (
        "of the suite and of the held-out rows"
    )
    assert sum(one.is_dir() for one in (storage / "golden").iterdir()) == 1
    (study,) = site.run("runs", "list", "--kind", "tune").object["runs"]
    trained = [one["id"] for one in site.run("runs", "list", "--kind", "train").object["runs"]]
    trials = [f"{study['id']}-{number:04d}" for number in range(SEARCH["num_trials"])]
    assert sorted(one for one in trained if one.startswith(study["id"])) == trials
    assert len(trained) == len(trials) + 1, "1.0.0 and the trials, the best of which is 1.1.0"
    assert site.bench.show(study["id"])["run"]["config"]["search"]["budget"]["hours"] == 2.0
    first = site.bench.show(trials[0])["run"]["config"]
    assert first["train"]["learning_rate"] == WHOLE["train"]["learning_rate"], (
        "production's own is tried first"
    )
