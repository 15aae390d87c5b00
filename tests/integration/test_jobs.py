"""`ray job submit -- python jobs/train.py`: Ray's own way to start a run on a cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from bench import BIN, ROOT, Bench, write_recipe
from conftest import Cluster


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
    runtime = {"env_vars": {"RAYTRAIN_HOME": str(joined.home), "HF_HUB_OFFLINE": "1"}}
    submitted = subprocess.run(
        [
            str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, "--working-dir", str(working),
            "--runtime-env-json", json.dumps(runtime), "--", str(BIN / "python"), "jobs/train.py",
            "jobs/mine.yaml", "--json",
        ],
        env=joined.child_environment(),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    (line,) = [line for line in submitted.stdout.splitlines() if line.startswith("{")]
    found = json.loads(line)
    assert (found["state"], found["global_step"]) == ("succeeded", 3)
    assert joined.show(found["run_id"])["run"]["state"] == "succeeded"
