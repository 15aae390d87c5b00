"""`ray job submit -- …`: Ray's own way to start something on a cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import BIN, ROOT, Bench, wait_until, write_recipe
from conftest import Cluster


def ray_job(joined: Bench, cluster: Cluster, *words: str) -> str:
    done = subprocess.run(
        [BIN / "ray", "job", words[0], "--address", cluster.dashboard, *words[1:]],
        env=joined.child_environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def submit(joined: Bench, cluster: Cluster, working: Path, *words: str | Path) -> str:
    runtime = {"env_vars": {"RAYTRAIN_HOME": str(joined.home), "HF_HUB_OFFLINE": "1"}}
    options = ["--working-dir", str(working), "--runtime-env-json", json.dumps(runtime)]
    return ray_job(joined, cluster, "submit", *options, *map(str, words))


def test_a_submitted_job_trains(
    joined: Bench, cluster: Cluster, tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    working = tmp_path / "working"
    (working / "jobs").mkdir(parents=True)
    shutil.copy(ROOT / "jobs" / "train.py", working / "jobs")
    write_recipe(
        working / "jobs" / "mine.yaml",
        model=tiny_llama,
        rows=rows_file,
        train={"max_steps": 3, "hooks": []},
        scaling={"num_workers": 1},
    )
    python = BIN / "python"
    told = submit(joined, cluster, working, "--", python, "jobs/train.py", "jobs/mine.yaml", "--json")
    (line,) = [line for line in told.splitlines() if line.startswith("{")]
    found = json.loads(line)
    assert (found["state"], found["global_step"]) == ("succeeded", 3)
    assert joined.show(found["run_id"])["run"]["state"] == "succeeded"


def write_scores(path: Path, start: float, shift: float = 0.0) -> None:
    """A hundred rows, a second apart. Whole at once: a watcher may look at any time."""
    scores = np.random.default_rng(int(start)).normal(shift, 1.0, 100)
    pq.write_table(pa.table({"at": start + np.arange(100.0), "score": scores}), path.with_suffix(".half"))
    path.with_suffix(".half").rename(path)


def test_a_submitted_watch_judges_what_comes_until_it_is_stopped(
    joined: Bench, cluster: Cluster, tmp_path: Path
) -> None:
    joined.folder = working = tmp_path / "working"
    rows = tmp_path / "rows"
    for folder in (working, rows):
        folder.mkdir()
    watch = {
        "watch": "scores",
        "rows": str(rows),
        "window": {"rows": 100, "settle_s": 0},
        "permutations": 199,
    }
    (working / "watch.yaml").write_text(json.dumps(watch))
    for number in range(3):
        write_scores(rows / f"{number}.parquet", 1_700_000_000.0 + 1000 * number)
    frozen = joined.run("watch", "freeze", "watch.yaml", "--json")
    assert frozen.code == 0, frozen.told()

    told = submit(
        joined, cluster, working, "--no-wait", "--submission-id", "scores-watched",
        "--", BIN / "raytrain", "watch", "run", "watch.yaml", "--every", "1", "--json",
    )  # fmt: skip
    assert "scores-watched" in told

    def looks() -> list[dict[str, Any]]:
        lines = ray_job(joined, cluster, "logs", "scores-watched").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    wait_until(lambda: bool(looks()), 90, lambda: "a look")
    write_scores(rows / "3.parquet", 1_700_010_000.0)
    wait_until(lambda: looks()[-1]["num_judged"] == 1, 60, lambda: f"a quiet window: {looks()[-1]}")
    write_scores(rows / "4.parquet", 1_700_020_000.0, shift=2.0)
    wait_until(lambda: looks()[-1]["num_judged"] == 2, 60, lambda: f"one that drifted: {looks()[-1]}")
    ray_job(joined, cluster, "stop", "scores-watched")
    assert "was stopped" in ray_job(joined, cluster, "status", "scores-watched")

    reports = [one for look in looks() for one in look["reports"]]
    assert [(one["window"]["number"], one["is_alarm"]) for one in reports] == [(1, False), (2, True)]
    run = joined.show(looks()[-1]["run_id"])["run"]
    assert (run["kind"], run["state"], run["global_step"]) == ("watch", "succeeded", 2)
    write_scores(rows / "5.parquet", 1_700_030_000.0)
    after = joined.run("watch", "run", "watch.yaml", "--json")
    assert (after.code, after.object["num_judged"]) == (0, 3), "nothing holds the watch any more"
